//! How a whole fleet stands: how many databases are at which version, which lag, and what is wrong,
//! each thing once with the databases that it is about.

use std::{collections::BTreeMap, fmt::Write as _};

use jiff::Timestamp;

use crate::{
    cli::render::{
        status::{self, Finding},
        table::{Fit, table},
        text::{clean, count, duration, timestamp, wrap},
    },
    rpc::proto::{DatabaseStatus, MigrationState},
};

/// How many names of databases are shown of those that have something in common.
const NAMES: usize = 5;

/// How many different findings are shown.
const FINDINGS: usize = 40;

/// Databases at one version.
#[derive(Debug, Default)]
pub struct Skew<'a> {
    /// Their names, in order.
    pub databases: Vec<&'a str>,
    /// The most that one of them has pending.
    pub pending: u32,
    /// The oldest version that one of them has pending.
    pub oldest_pending: &'a str,
    /// How many of them are dirty.
    pub dirty: usize,
}

/// How many databases are at which version, the newest version first; those that could not be read
/// are at none.
pub fn skew(databases: &[DatabaseStatus]) -> Vec<(&str, Skew<'_>)> {
    let mut versions = BTreeMap::<(u64, &str), Skew<'_>>::new();
    for status in databases.iter().filter(|status| status.failure.is_none()) {
        let version = status.current_version.as_str();
        let skew = versions.entry((number(version), version)).or_default();
        skew.databases.push(&status.database);
        skew.pending = skew.pending.max(status.pending);
        skew.dirty += usize::from(status::dirty(status) > 0);
        let pending = status.migrations.iter().find(|it| it.state() == MigrationState::Pending);
        if let Some(oldest) = pending.map(|it| it.version.as_str())
            && (skew.oldest_pending.is_empty() || number(oldest) < number(skew.oldest_pending))
        {
            skew.oldest_pending = oldest;
        }
    }
    versions.into_iter().rev().map(|((_, version), skew)| (version, skew)).collect()
}

fn number(version: &str) -> u64 {
    crate::migration::Version::from_row(version).number()
}

/// The table of versions.
pub fn versions(databases: &[DatabaseStatus], width: Option<u16>) -> String {
    let columns = [
        ("version", Fit::Whole),
        ("#databases", Fit::Whole),
        ("#pending", Fit::Whole),
        ("oldest pending", Fit::Cut),
        ("#dirty", Fit::Whole),
        ("which", Fit::Wrap),
    ];
    let skews = skew(databases);
    // Of the most common version the names say nothing.
    let most = skews.iter().map(|(_, skew)| skew.databases.len()).max().unwrap_or_default();
    let mut rows: Vec<_> = skews
        .iter()
        .map(|(version, skew)| {
            let is_usual = skew.databases.len() == most && most > NAMES;
            vec![
                if version.is_empty() { "none".to_owned() } else { clean(version) },
                skew.databases.len().to_string(),
                dash(skew.pending.to_string(), skew.pending == 0),
                dash(clean(skew.oldest_pending), skew.oldest_pending.is_empty()),
                dash(skew.dirty.to_string(), skew.dirty == 0),
                if is_usual { String::new() } else { names(&skew.databases) },
            ]
        })
        .collect();
    let unread: Vec<_> =
        databases.iter().filter(|it| it.failure.is_some()).map(|it| it.database.as_str()).collect();
    if !unread.is_empty() {
        let nothing = || "-".to_owned();
        let number = unread.len().to_string();
        rows.push(vec!["unreadable".to_owned(), number, nothing(), nothing(), nothing(), names(&unread)]);
    }
    table(&columns, rows, width)
}

fn dash(text: String, is_nothing: bool) -> String {
    if is_nothing { "-".to_owned() } else { text }
}

/// Some names, and how many more there are.
pub fn names(databases: &[&str]) -> String {
    let shown: Vec<_> = databases.iter().take(NAMES).map(|name| clean(name)).collect();
    match databases.len().saturating_sub(NAMES) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// The findings, each once with its databases, those of the most databases first; what is pending
/// only where `all` are wanted.
pub fn list(findings: &[&Finding], all: bool, width: Option<u16>) -> String {
    let mut same = BTreeMap::<(&str, &str), Vec<&str>>::new();
    for finding in findings.iter().filter(|finding| all || finding.kind != "pending") {
        same.entry((&finding.version, &finding.message)).or_default().push(&finding.database);
    }
    let mut same: Vec<_> = same.into_iter().collect();
    same.sort_by_key(|(_, databases)| std::cmp::Reverse(databases.len()));
    let mut text = String::new();
    for ((version, message), databases) in same.iter().take(FINDINGS) {
        let separator = if version.is_empty() { "" } else { " " };
        let many = count(databases.len(), "database");
        let line = format!("{}{separator}{message}: {many}: {}", clean(version), names(databases));
        let _ = writeln!(text, "{}", wrap(&line, width, 2));
    }
    if let Some(more) = same.len().checked_sub(FINDINGS).filter(|more| *more > 0) {
        let _ = writeln!(text, "… and {} (-o json has them)", count(more, "more finding"));
    }
    text
}

/// How old what the daemon saw is: of the newest and of the oldest look.
pub fn age(databases: &[DatabaseStatus], now: Timestamp) -> String {
    let looks = databases.iter().filter_map(|status| timestamp(status.observed_at.as_ref()));
    let since = |time: Timestamp| {
        duration(std::time::Duration::try_from(now.duration_since(time)).unwrap_or_default())
    };
    let (mut oldest, mut newest): (Option<Timestamp>, Option<Timestamp>) = (None, None);
    for time in looks {
        oldest = Some(oldest.map_or(time, |oldest| oldest.min(time)));
        newest = newest.max(Some(time));
    }
    match (oldest, newest) {
        (Some(oldest), Some(newest)) if since(oldest) != since(newest) => {
            format!("as the daemon saw it {} to {} ago\n", since(newest), since(oldest))
        }
        (Some(oldest), _) => format!("as the daemon saw it {} ago\n", since(oldest)),
        (None, _) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::proto::{Failure, MigrationStatus};

    fn database(name: &str, version: &str, pending: &[&str], dirty: Option<&str>) -> DatabaseStatus {
        let migration = |version: &str, state: MigrationState| MigrationStatus {
            version: version.into(),
            state: state.into(),
            ..Default::default()
        };
        let waiting = pending.iter().map(|version| migration(version, MigrationState::Pending));
        let dirty = dirty.map(|version| migration(version, MigrationState::Dirty));
        DatabaseStatus {
            database: name.into(),
            current_version: version.into(),
            pending: u32::try_from(pending.len()).unwrap_or(u32::MAX),
            migrations: dirty.into_iter().chain(waiting).collect(),
            ..Default::default()
        }
    }

    fn fleet() -> Vec<DatabaseStatus> {
        let mut all: Vec<_> =
            (1..=20).map(|number| database(&format!("db-{number:02}"), "0010_ten", &[], None)).collect();
        all.push(database("late-1", "0009_nine", &["0010_ten"], None));
        all.push(database("late-2", "0009_nine", &["0008_late", "0010_ten"], Some("0007_x")));
        all.push(database("new", "", &["0001_one", "0002_two"], None));
        all.push(DatabaseStatus {
            database: "gone".into(),
            failure: Some(Failure::default()),
            ..Default::default()
        });
        all
    }

    #[test]
    fn versions_are_counted_newest_first() {
        let expected = "\
version     databases  pending  oldest pending  dirty  which
──────────────────────────────────────────────────────────────────
0010_ten           20        -  -                   -
0009_nine           2        2  0008_late           1  late-1, late-2
none                1        2  0001_one            -  new
unreadable          1        -  -                   -  gone
";
        let shown = versions(&fleet(), None);
        let trimmed = |text: &str| text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
        let without_rule =
            |text: &str| trimmed(text).into_iter().filter(|line| !line.starts_with('─')).collect::<Vec<_>>();
        assert_eq!(without_rule(&shown), without_rule(expected), "{shown}");
    }

    #[test]
    fn a_finding_of_many_databases_is_one_line() {
        let fleet = fleet();
        let findings = status::findings(&fleet);
        let findings: Vec<_> = findings.iter().collect();
        assert_eq!(
            list(&findings, true, None),
            "0010_ten is pending: 2 databases: late-1, late-2\n\
             : 1 database: gone\n\
             0001_one is pending: 1 database: new\n\
             0002_two is pending: 1 database: new\n\
             0007_x is dirty: 1 database: late-2\n\
             0008_late is pending: 1 database: late-2\n"
        );
        assert_eq!(list(&findings, false, None), ": 1 database: gone\n0007_x is dirty: 1 database: late-2\n");
    }

    #[test]
    fn names_and_ages() {
        assert_eq!(names(&["a", "b"]), "a, b");
        assert_eq!(names(&["a", "b", "c", "d", "e", "f", "g"]), "a, b, c, d, e and 2 more");
        let at = |second| prost_types::Timestamp { seconds: second, nanos: 0 };
        let seen = |second| DatabaseStatus { observed_at: Some(at(second)), ..Default::default() };
        let now = Timestamp::from_second(100).expect("a time");
        assert_eq!(age(&[seen(98), seen(70)], now), "as the daemon saw it 2.0 s to 30.0 s ago\n");
        assert_eq!(age(&[seen(98)], now), "as the daemon saw it 2.0 s ago\n");
        assert_eq!(age(&[DatabaseStatus::default()], now), "");
    }
}
