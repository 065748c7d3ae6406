//! Lines and columns.

use crate::migration::Location;

/// The longest excerpt of a line, in characters.
const EXCERPT: usize = 200;

/// A place in a file: line and column from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: u32,
    pub(super) column: u32,
}

impl Default for Position {
    fn default() -> Self {
        Self { line: 1, column: 1 }
    }
}

impl Position {
    /// The place after `text`, which begins here.
    #[must_use]
    pub(super) fn after(self, text: &str) -> Self {
        let newlines = text.bytes().filter(|&byte| byte == b'\n').count();
        let tail = text.rfind('\n').map_or(text, |newline| &text[newline + 1..]);
        let characters = tail.bytes().filter(|&byte| byte & 0xc0 != 0x80).count();
        let number = |count| u32::try_from(count).unwrap_or(u32::MAX);
        Self {
            line: self.line.saturating_add(number(newlines)),
            column: if newlines == 0 { self.column } else { 1 }.saturating_add(number(characters)),
        }
    }

    /// The location of the byte at `offset` of `text`, which begins here.
    ///
    /// The excerpt is empty where the line begins before `text`: a caret would stand wrong below it.
    pub(super) fn locate(self, file: &str, text: &[u8], offset: usize) -> Location {
        let before = String::from_utf8_lossy(&text[..offset]);
        let Self { line, column } = self.after(&before);
        let excerpt = match text[..offset].iter().rposition(|&byte| byte == b'\n') {
            None if self.column > 1 => String::new(),
            newline => excerpt(&text[newline.map_or(0, |newline| newline + 1)..]),
        };
        Location::new(file, line, column, &excerpt)
    }
}

/// The first line of `text`, without what would confuse a terminal.
fn excerpt(text: &[u8]) -> String {
    // A character has at most four bytes: no more than these are looked at.
    let text = &text[..text.len().min(EXCERPT * 4)];
    let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let printable = |c: char| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
    String::from_utf8_lossy(line).chars().take(EXCERPT).map(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let check = |text: &str, from: (u32, u32), offset, expected: (u32, u32, &str)| {
            let position = Position { line: from.0, column: from.1 };
            let found = position.locate("f", text.as_bytes(), offset);
            assert_eq!((found.line, found.column, found.excerpt.as_str()), expected, "{text:?} at {offset}");
            assert_eq!(found.is_hidden(), found.excerpt.ends_with('…'), "{text:?} at {offset}");
        };
        check("", (1, 1), 0, (1, 1, ""));
        check("äb\r\nçd", (1, 1), 2, (1, 2, "äb"));
        check("äb\r\nçd", (1, 1), 7, (2, 2, "çd"));
        check("äb\nçd", (7, 5), 2, (7, 6, ""));
        check("äb\nçd", (7, 5), 4, (8, 1, "çd"));
        check("a\x1b[31m\tb\n", (1, 1), 0, (1, 1, "a\u{fffd}[31m\tb"));
        check("alter role a password 'x' y", (1, 1), 26, (1, 27, "alter role a password '…"));
        let long = "é".repeat(300);
        check(&long, (1, 1), 500, (1, 251, &"é".repeat(200)));
    }
}
