//! What is wrong with a directory, collected into one failure.

use crate::migration::{Code, Failure, Location, Version};

/// One thing that is wrong, in one file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Problem {
    code: Code,
    /// The file, relative to the directory, with line and column where there are any.
    place: String,
    message: String,
    version: Option<String>,
    location: Option<Box<Location>>,
}

impl Problem {
    pub(super) fn new(code: Code, file: &str, message: impl Into<String>) -> Self {
        Self { code, place: file.to_owned(), message: message.into(), version: None, location: None }
    }

    pub(super) fn version(mut self, version: &Version) -> Self {
        self.version = Some(version.to_string());
        self
    }

    pub(super) fn is_of_the_same_version(&self, other: &Self) -> bool {
        self.version.is_some() && self.version == other.version
    }

    pub(super) fn at(mut self, location: Location) -> Self {
        self.place = location.to_string();
        self.location = Some(Box::new(location));
        self
    }
}

/// The failure of a directory: the first problem's, in the order of the files, with a line for each
/// where there are several. `None` where there is no problem.
pub(super) fn failure(mut problems: Vec<Problem>) -> Option<Failure> {
    problems.sort_by(|a, b| a.place.cmp(&b.place));
    let lines: Vec<_> =
        problems.iter().map(|problem| format!("{}: {}", problem.place, problem.message)).collect();
    let first = problems.into_iter().next()?;
    let message = match lines.len() {
        1 => lines[0].clone(),
        2 => format!("{} (and one more problem)", lines[0]),
        count => format!("{} (and {} more problems)", lines[0], count - 1),
    };
    let details = if lines.len() > 1 { lines } else { Vec::new() };
    let mut failure = Failure::new(first.code, message).details(details);
    failure.version = first.version;
    failure.location = first.location;
    Some(failure)
}
