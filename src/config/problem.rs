//! What is wrong with a configuration: where, with the line and a caret, and what to write instead.

use std::{
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
};

use crate::redact::TOKEN_PREFIX;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file, the environment or the flags hold what they may not: all of it, in the file's order.
    #[error("{}", listing(.0))]
    Invalid(Vec<Problem>),
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where in the file; `None` where it is the environment's or a flag's.
    pub place: Option<Place>,
    /// What, naming the section or the database and the key.
    pub message: String,
}

/// A place in the configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, as it was named.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// How many characters are meant, at least 1.
    pub width: usize,
    /// The line's text; `None` where it may hold a secret.
    pub excerpt: Option<String>,
}

impl Place {
    /// The place of a range of bytes in the file's text.
    pub(super) fn new(file: Option<&Path>, text: &str, span: &Range<usize>) -> Self {
        let start = text.floor_char_boundary(span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let end = text.floor_char_boundary(span.end).clamp(start, line_end);
        let line = text[line_start..line_end].trim_end();
        Self {
            file: file.map_or_else(|| "configuration".into(), |file| file.display().to_string()),
            line: text[..line_start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            width: text[start..end].chars().count().max(1),
            excerpt: (!may_hold_secret(line)).then(|| line.replace('\t', " ")),
        }
    }

    /// Leaves of the line's text what stands before the value.
    pub(super) fn hide_value(&mut self) {
        if let Some((key, _)) = self.excerpt.as_deref().and_then(|line| line.split_once('=')) {
            self.excerpt = Some(format!("{key}= …"));
        }
    }
}

/// Whether a value or a line of the file may hold credentials. It is then not shown, however it is
/// malformed.
pub(super) fn may_hold_secret(text: &str) -> bool {
    let text: String = text.chars().filter(|c| !c.is_whitespace() && !"\"'".contains(*c)).collect();
    let text = text.to_ascii_lowercase();
    ["://", "@", "passw", "pwd=", "url=", "sha256=", "secret=", "token=", "credential", TOKEN_PREFIX]
        .iter()
        .any(|sign| text.contains(sign))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl Problem {
    /// The place and what is wrong there, in one line.
    pub fn line(&self) -> String {
        match &self.place {
            Some(place) => format!("{place}: {}", self.message),
            None => self.message.clone(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line())?;
        let Some(place) = &self.place else { return Ok(()) };
        let Some(excerpt) = &place.excerpt else { return Ok(()) };
        let (number, margin) = (place.line.to_string(), " ".repeat(place.line.to_string().len()));
        let (indent, carets) = (" ".repeat(place.column - 1), "^".repeat(place.width));
        write!(f, "\n {margin} |\n {number} | {excerpt}\n {margin} | {indent}{carets}")
    }
}

fn listing(problems: &[Problem]) -> String {
    let all: Vec<_> = problems.iter().map(ToString::to_string).collect();
    match all.as_slice() {
        [one] => one.clone(),
        all => format!("the configuration has {} errors\n\n{}", all.len(), all.join("\n\n")),
    }
}

/// The known word that was probably meant, where one is near enough.
pub(super) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |known: &str| strsim::osa_distance(&word.to_lowercase(), known);
    let near = known.into_iter().map(|known| (distance(known), known)).min()?;
    (near.0 <= 1 + word.len() / 4).then_some(near.1)
}
