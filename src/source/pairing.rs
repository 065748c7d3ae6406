//! Files to migrations: each number one version, each version one up file and one down file, side by
//! side.

use std::collections::BTreeMap;

use crate::{
    migration::{Code, Direction, Migration, Script, Version},
    source::{MissingDown, problem::Problem},
};

/// Pairs scripts that are in the order of their names; also says what is only worth a notice.
pub(super) fn pair(
    scripts: impl Iterator<Item = (Version, Direction, Script)>,
    missing_down: MissingDown,
    problems: &mut Vec<Problem>,
) -> (Vec<Migration>, Vec<String>) {
    let mut numbers: BTreeMap<u64, Vec<(Version, Direction, Script)>> = BTreeMap::new();
    for script in scripts {
        numbers.entry(script.0.number()).or_default().push(script);
    }
    let mut migrations = Vec::new();
    let mut notices = Vec::new();
    for files in numbers.into_values() {
        let clashes = clashes(&files);
        if !clashes.is_empty() {
            problems.extend(clashes);
            continue;
        }
        let (mut up, mut down) = (None, None);
        for (version, direction, script) in files {
            match direction {
                Direction::Up => up = Some((version, script)),
                Direction::Down => down = Some((version, script)),
            }
        }
        match (up, down.map(|(version, script)| (version.file_name(Direction::Up), version, script))) {
            (Some((version, up)), Some((_, _, down))) => {
                migrations.push(Migration { version, up, down: Some(down) });
            }
            (Some((version, up)), None) => {
                let message = format!("its down file {} is missing", version.file_name(Direction::Down));
                match missing_down {
                    MissingDown::Warn => notices.push(format!("{}: {message}", up.file_name)),
                    MissingDown::Error => problems
                        .push(Problem::new(Code::MissingDown, &up.file_name, message).version(&version)),
                }
                migrations.push(Migration { version, up, down: None });
            }
            (None, Some((up, version, down))) => {
                let message = format!("its up file {up} is missing");
                problems.push(Problem::new(Code::MissingUp, &down.file_name, message).version(&version));
            }
            (None, None) => {}
        }
    }
    (migrations, notices)
}

/// What stands against files of one number being the two files of one migration.
fn clashes(files: &[(Version, Direction, Script)]) -> Vec<Problem> {
    let problem = |code, (version, _, script): &(Version, Direction, Script), message| {
        Problem::new(code, &script.file_name, message).version(version)
    };
    if let [a, b] = files
        && a.0 != b.0
        && a.1 != b.1
    {
        let (down, up) = if a.1 == Direction::Down { (a, b) } else { (b, a) };
        let message =
            format!("its up file is missing; {} has the same number and another name", up.2.file_name);
        return vec![problem(Code::MissingUp, down, message)];
    }
    let mut clashes = Vec::new();
    let [first, others @ ..] = files else { return clashes };
    for (index, other) in others.iter().enumerate() {
        let before = &files[..=index];
        let same = before.iter().find(|file| file.0 == other.0);
        match same {
            // Each further version is told once, by its first file.
            None => {
                let message = format!("it has the same number as {}", first.2.file_name);
                clashes.push(problem(Code::DuplicateVersion, other, message));
            }
            Some(same) if before.iter().any(|file| file.0 == other.0 && file.1 == other.1) => {
                let message = format!("it is the same migration as {}", same.2.file_name);
                clashes.push(problem(Code::DuplicateVersion, other, message));
            }
            Some(same) if same.2.path.parent() != other.2.path.parent() => {
                let message =
                    format!("it is in another directory than {} of the same migration", same.2.file_name);
                clashes.push(problem(Code::DuplicateVersion, other, message));
            }
            Some(_) => {}
        }
    }
    clashes
}
