//! Plan digests: what a plan was made over, in a few characters, so that a run can be held to the
//! plan that somebody has read.
//!
//! A digest is made of a SHA-256 over everything, cut to 128 bits, and of 16 bits over each kind of
//! thing, which decide nothing: they only tell which kind has moved.

use std::{fmt, str::FromStr};

use crate::migration::{Catalog, Checksum, Code, Failure, Plan, StepAction, Tracked, plan::Source};

/// What the plan of one database was made over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Basis {
    /// The migration directory's digest.
    files: String,
    /// Of every applied row.
    rows: Checksum,
    /// Of what will be done.
    steps: Checksum,
}

impl Basis {
    /// The basis of a plan: the same catalog, rows and steps have the same one.
    pub fn of(catalog: &Catalog, tracked: &Tracked, plan: &Plan) -> Self {
        let mut rows = String::new();
        for row in &tracked.rows {
            let kept = row.kept_down.as_ref().map(|kept| kept.checksum.as_str());
            let applied_at = row.applied_at.as_microsecond();
            line(
                &mut rows,
                &[
                    row.version.as_str(),
                    &row.checksum,
                    if row.dirty { "dirty" } else { "clean" },
                    &applied_at.to_string(),
                    kept.unwrap_or_default(),
                ],
            );
        }
        let mut steps = String::new();
        for step in &plan.steps {
            let done = match step.action {
                StepAction::Resume { done } => done.to_string(),
                _ => String::new(),
            };
            let source = match step.source {
                None => "",
                Some(Source::File) => "file",
                Some(Source::Journal) => "journal",
            };
            line(&mut steps, &[step.version.as_str(), &step.action.to_string(), &done, source]);
        }
        let sum = |text: &str| Checksum::of(text.as_bytes());
        Self { files: catalog.digest().to_owned(), rows: sum(&rows), steps: sum(&steps) }
    }

    /// Refuses where a database is not as it was when its plan was made.
    pub fn hold(&self, now: &Self) -> Result<(), Failure> {
        let moved = [
            (self.files != now.files, Kind::Files),
            (self.rows != now.rows, Kind::Rows),
            (self.steps != now.steps, Kind::Steps),
        ];
        refuse(moved.into_iter().filter_map(|(has_moved, kind)| has_moved.then_some(kind)))
    }
}

impl fmt::Display for Basis {
    /// As it is kept: the files, the rows and the steps, each as hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.files, self.rows.hex(), self.steps.hex())
    }
}

impl FromStr for Basis {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let mut parts = text.split(' ');
        let mut next = || parts.next().ok_or("a part of the plan's basis is missing");
        let files = next()?.to_owned();
        let mut sum = || Checksum::from_hex(next()?).ok_or("a part of the plan's basis is not a checksum");
        Ok(Self { files, rows: sum()?, steps: sum()? })
    }
}

/// A kind of thing that a plan was made over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Targets,
    Strategy,
    Files,
    Rows,
    Steps,
}

impl Kind {
    /// Those that a digest tells apart, in the order in which it does.
    const TOLD: [Self; 4] = [Self::Targets, Self::Strategy, Self::Files, Self::Rows];

    fn moved(self) -> &'static str {
        match self {
            Self::Targets => "the databases that are meant are not those of the plan",
            Self::Strategy => "the strategy is not the plan's",
            Self::Files => "the migration files are not those of the plan",
            Self::Rows => "the applied migrations are not those of the plan",
            Self::Steps => "what would be done is not what the plan says",
        }
    }
}

/// One kind: all of a message's sentence; several: a line for each.
fn refuse(kinds: impl Iterator<Item = Kind>) -> Result<(), Failure> {
    let moved: Vec<_> = kinds.map(|kind| kind.moved().to_owned()).collect();
    match moved.as_slice() {
        [] => Ok(()),
        [one] => Err(Failure::new(Code::PlanMoved, format!("The plan has moved: {one}"))),
        _ => Err(Failure::new(Code::PlanMoved, "The plan has moved").details(moved)),
    }
}

/// The digest of a plan over several databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanDigest {
    /// Over everything, 32 hexadecimal digits.
    whole: String,
    /// Over each of [`Kind::TOLD`], four hexadecimal digits.
    kinds: [String; 4],
}

/// What a plan over several databases was made of.
#[derive(Debug)]
pub struct Planned<'a> {
    /// What would be done, such as `apply`.
    pub verb: &'a str,
    /// How it goes through the databases, in words.
    pub strategy: &'a str,
    /// The waves: their names, and their databases in their order.
    pub waves: &'a [(&'a str, &'a [String])],
    /// What the plan of each database was made over, in the order of their names.
    pub databases: &'a [(&'a str, &'a Basis)],
}

impl PlanDigest {
    /// The digest of a plan: a pure function of what the plan was made of.
    pub fn of(planned: &Planned<'_>) -> Self {
        let Planned { verb, strategy, waves, databases } = planned;
        let (mut targets, mut files, mut rows, mut steps) = Default::default();
        for (name, basis) in *databases {
            line(&mut targets, &[name]);
            line(&mut files, &[name, &basis.files]);
            line(&mut rows, &[name, &basis.rows.hex()]);
            line(&mut steps, &[name, &basis.steps.hex()]);
        }
        let mut way = String::new();
        line(&mut way, &[strategy]);
        for (name, databases) in *waves {
            line(&mut way, &[name]);
            // Which databases there are is told apart from how they are laid out.
            line(&mut way, &[&databases.len().to_string()]);
        }
        let mut whole = String::new();
        line(&mut whole, &[verb, &targets, &way, &files, &rows, &steps]);
        for (name, databases) in *waves {
            line(&mut whole, &[name]);
            databases.iter().for_each(|database| line(&mut whole, &[database]));
        }
        let digits = |text: &str, count| Checksum::of(text.as_bytes()).hex().chars().take(count).collect();
        Self { whole: digits(&whole, 32), kinds: [targets, way, files, rows].map(|text| digits(&text, 4)) }
    }

    /// Refuses where this plan's basis is not what it is now.
    pub fn hold(&self, now: &Self) -> Result<(), Failure> {
        if self.whole == now.whole {
            return Ok(());
        }
        let pairs = self.kinds.iter().zip(&now.kinds).zip(Kind::TOLD);
        let moved: Vec<_> = pairs.filter(|((then, now), _)| then != now).map(|(_, kind)| kind).collect();
        let moved = if moved.is_empty() { vec![Kind::Steps] } else { moved };
        refuse(moved.into_iter())
    }
}

/// Fields with their lengths, so that no two lists of fields have the same text.
fn line(text: &mut String, fields: &[&str]) {
    for field in fields {
        text.push_str(&field.len().to_string());
        text.push(':');
        text.push_str(field);
    }
    text.push('\n');
}

impl fmt::Display for PlanDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.whole, self.kinds.concat())
    }
}

impl FromStr for PlanDigest {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let is_hex = |part: &str, length| {
            part.len() == length
                && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        };
        let parts = text.split_once('-').filter(|(whole, kinds)| is_hex(whole, 32) && is_hex(kinds, 16));
        let Some((whole, kinds)) = parts else {
            let message = format!("{text:?} is not a plan's digest");
            let hint = "nexusctl plan prints it: 32 hexadecimal digits, a hyphen, and 16 more";
            return Err(Failure::new(Code::BadRequest, message).hint(hint));
        };
        let kind = |index: usize| kinds[index * 4..index * 4 + 4].to_owned();
        Ok(Self { whole: whole.to_owned(), kinds: std::array::from_fn(kind) })
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::migration::{
        AppliedRow, Migration, Mode, Script, Step, Version, checksum::Checksums, header::Header,
    };

    fn catalog(files: &[(&str, &str)]) -> Catalog {
        let migration = |(version, up): &(&str, &str)| {
            let version = Version::from_row(version);
            let up = Script {
                file_name: format!("{version}.up.sql"),
                path: "migrations".into(),
                size: up.len() as u64,
                checksums: Checksums::of(up.as_bytes()),
                arrived: Timestamp::UNIX_EPOCH,
                header: Header::default(),
            };
            Migration { version, up, down: None }
        };
        Catalog::new(files.iter().map(migration).collect(), Vec::new())
    }

    fn row(version: &str, checksum: &str, dirty: bool, second: i64) -> AppliedRow {
        AppliedRow {
            version: Version::from_row(version),
            applied_at: Timestamp::from_second(second).expect("a time"),
            checksum: checksum.to_owned(),
            dirty,
            last_attempt: None,
            kept_down: None,
            applied_by: None,
        }
    }

    fn step(version: &str, action: StepAction, source: Option<Source>) -> Step {
        Step {
            version: Version::from_row(version),
            action,
            mode: Mode::Transactional,
            source,
            reason: String::new(),
            header: Header::default(),
            size: 0,
            row_checksum: String::new(),
        }
    }

    fn basis(files: &[(&str, &str)], rows: Vec<AppliedRow>, steps: Vec<Step>) -> Basis {
        Basis::of(&catalog(files), &Tracked::new(rows), &Plan { steps, notices: Vec::new() })
    }

    const FILES: &[(&str, &str)] = &[("0001_a", "select 1"), ("0002_b", "select 2")];

    fn rows() -> Vec<AppliedRow> {
        vec![row("0001_a", "aa", false, 1)]
    }

    fn steps() -> Vec<Step> {
        vec![step("0002_b", StepAction::Apply, Some(Source::File))]
    }

    #[test]
    fn a_database_that_has_moved() {
        let then = basis(FILES, rows(), steps());
        let check = |now: Basis, expected: &[&str]| match then.hold(&now) {
            Ok(()) => assert_eq!(expected, [] as [&str; 0]),
            Err(failure) => {
                assert_eq!(failure.code, Code::PlanMoved);
                let told = format!("{} {}", failure.message, failure.details.join(" "));
                assert!(expected.iter().all(|word| told.contains(word)), "{told}: {expected:?}");
                assert!(!expected.is_empty(), "{told}");
            }
        };
        check(basis(FILES, rows(), steps()), &[]);
        check(
            basis(&[FILES[0], ("0002_b", "select 3")], rows(), steps()),
            &["has moved: the migration files"],
        );
        check(basis(&[FILES, &[("0003_c", "x")]].concat(), rows(), steps()), &["the migration files"]);
        let applied = "has moved: the applied migrations";
        check(basis(FILES, vec![row("0001_a", "ab", false, 1)], steps()), &[applied]);
        check(basis(FILES, vec![row("0001_a", "aa", true, 1)], steps()), &[applied]);
        check(basis(FILES, vec![row("0001_a", "aa", false, 2)], steps()), &[applied]);
        let later = [rows(), vec![row("0002_b", "bb", false, 2)]].concat();
        check(
            basis(FILES, later, Vec::new()),
            &["The plan has moved", "the applied migrations", "what would be done"],
        );
        let asked = "has moved: what would be done";
        check(basis(FILES, rows(), Vec::new()), &[asked]);
        check(basis(FILES, rows(), vec![step("0002_b", StepAction::Undo, Some(Source::File))]), &[asked]);
        check(basis(FILES, rows(), vec![step("0002_b", StepAction::Apply, Some(Source::Journal))]), &[asked]);
    }

    #[test]
    fn digests() {
        let one = basis(FILES, rows(), steps());
        let other = basis(FILES, Vec::new(), steps());
        let edited = basis(&FILES[..1], rows(), steps());
        let (a, b, both) = (vec!["a".to_owned()], vec!["b".to_owned()], vec!["a".to_owned(), "b".to_owned()]);
        let digest = |verb, strategy, waves: &[(&str, &[String])], databases: &[(&str, &Basis)]| {
            PlanDigest::of(&Planned { verb, strategy, waves, databases })
        };
        let then = digest("apply", "all", &[("wave 1", &both)], &[("a", &one), ("b", &one)]);
        let check = |now: PlanDigest, expected: &str| {
            let told = then.hold(&now).err().map(|it| format!("{} {}", it.message, it.details.join("; ")));
            match told {
                None => assert_eq!(expected, ""),
                Some(told) => assert!(!expected.is_empty() && told.contains(expected), "{told}: {expected}"),
            }
        };
        let pair: &[(&str, &Basis)] = &[("a", &one), ("b", &one)];
        check(digest("apply", "all", &[("wave 1", &both)], pair), "");
        check(digest("rollback", "all", &[("wave 1", &both)], pair), "what would be done");
        check(digest("apply", "one by one", &[("wave 1", &both)], pair), "moved: the strategy");
        check(digest("apply", "all", &[("canary", &a), ("wave 1", &b)], pair), "moved: the strategy");
        check(
            digest("apply", "all", &[("wave 1", &both)], &[("a", &one), ("b", &other)]),
            "moved: the applied",
        );
        check(
            digest("apply", "all", &[("wave 1", &both)], &[("a", &edited), ("b", &one)]),
            "moved: the migration files",
        );
        check(digest("apply", "all", &[("wave 1", &a)], &pair[..1]), "the databases that are meant");
        check(
            digest("apply", "all", &[("wave 1", &both)], &[("a", &one), ("ab", &one)]),
            "the databases that are meant",
        );

        let text = then.to_string();
        assert_eq!(text.len(), 49);
        assert_eq!(text.parse(), Ok(then.clone()));
        for wrong in
            ["", "abc", &text[1..], &text.to_uppercase(), &text.replace('-', "_"), &format!("{text}0")]
        {
            let refused = wrong.parse::<PlanDigest>().map_err(|failure| failure.code);
            assert_eq!(refused, Err(Code::BadRequest), "{wrong}");
        }
    }
}
