//! Words and figures, as people read them.

use std::{collections::HashMap, time::Duration};

use anstyle::{AnsiColor, Color, Style};
use jiff::Timestamp;
use unicode_width::UnicodeWidthStr as _;

/// Of errors.
pub const RED: Style = Style::new().bold().fg_color(Some(Color::Ansi(AnsiColor::Red)));
/// Of warnings.
pub const YELLOW: Style = Style::new().bold().fg_color(Some(Color::Ansi(AnsiColor::Yellow)));
/// Of what is well.
pub const GREEN: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Green)));
/// Of headings.
pub const BOLD: Style = Style::new().bold();
/// Of hints.
pub const CYAN: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Cyan)));

/// A text of somebody else's, safe on a terminal: control characters, which could move the cursor
/// or hide what follows, are replaced.
pub fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => ' ',
            c if c.is_control() || turns(c) => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// Whether it turns the direction of a text, which then shows something else than what is there.
fn turns(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The same, for a sentence: without the period at its end.
pub fn sentence(text: &str) -> String {
    let text = clean(text);
    let text = text.trim();
    if text.ends_with("...") { text } else { text.strip_suffix('.').unwrap_or(text) }.to_owned()
}

/// Breaks a text between its words, so that no line is wider than `width`, unless a word is; the lines
/// after the first are indented.
pub fn wrap(text: &str, width: Option<u16>, indent: usize) -> String {
    let Some(width) = width.map(usize::from) else { return text.to_owned() };
    let (mut wrapped, mut column) = (String::new(), 0);
    for word in text.split_inclusive(' ') {
        if column > indent && column + word.trim_end().width() > width {
            wrapped.truncate(wrapped.trim_end().len());
            wrapped.push('\n');
            wrapped.push_str(&" ".repeat(indent));
            column = indent;
        }
        wrapped.push_str(word);
        column += word.width();
    }
    wrapped
}

/// `1 migration`, `2 migrations`.
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// A duration, in the unit that fits.
pub fn duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
        _ => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// A number of bytes, in the unit that fits.
pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{}.{} KiB", bytes / 1_024, bytes % 1_024 * 10 / 1_024),
        _ => format!("{}.{} MiB", bytes / 1_048_576, bytes % 1_048_576 * 10 / 1_048_576),
    }
}

/// How much of a step is done, in percent, or as it is where it is little: statements.
pub fn part(done: u64, total: u64) -> String {
    if total < 1_000 {
        return format!("{done} of {total}");
    }
    format!("{} %", done.min(total).saturating_mul(100) / total)
}

/// A time in UTC, to the second; a dash where there is none.
pub fn time(time: Option<&prost_types::Timestamp>) -> String {
    timestamp(time).map_or_else(|| "-".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// A time as RFC 3339, in UTC with milliseconds.
pub fn rfc3339(time: Option<&prost_types::Timestamp>) -> Option<String> {
    timestamp(time).map(|time| time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string())
}

/// A time of the daemon's.
pub fn timestamp(time: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    time.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok())
}

/// Labels as `env=prod,tier=gold`, in the order of their keys.
pub fn labels<S>(labels: &HashMap<String, String, S>) -> String {
    let mut labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.sort();
    labels.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        let check = |ms, expected| assert_eq!(duration(Duration::from_millis(ms)), expected);
        check(12, "12 ms");
        check(1_250, "1.2 s");
        check(125_000, "2 min 5 s");
        check(3_660_000, "1 h 1 min");
        assert_eq!([bytes(412), bytes(1_536), bytes(50 << 20)], ["412 B", "1.5 KiB", "50.0 MiB"]);
        assert_eq!([part(2, 5), part(512, 2_048), part(0, 0)], ["2 of 5", "25 %", "0 of 0"]);
        assert_eq!([count(1, "migration"), count(0, "migration")], ["1 migration", "0 migrations"]);
    }

    #[test]
    fn what_others_wrote_cannot_steer_the_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\tc\r"), "a\u{fffd}[2Jb c\u{fffd}");
        assert_eq!(sentence("Perhaps you meant another column.\n"), "Perhaps you meant another column");
        assert_eq!(sentence("and so on..."), "and so on...");
    }

    #[test]
    fn lines_are_broken_between_words() {
        let check = |text, width, expected| assert_eq!(wrap(text, width, 2), expected);
        check("  one two three", None, "  one two three");
        check("  one two three", Some(80), "  one two three");
        check("  one two three", Some(9), "  one two\n  three");
        check("  one twoandthree four", Some(9), "  one\n  twoandthree\n  four");
    }

    #[test]
    fn times() {
        let at = prost_types::Timestamp { seconds: 1_761_819_330, nanos: 123_000_000 };
        assert_eq!(time(Some(&at)), "2025-10-30 10:15:30Z");
        assert_eq!(rfc3339(Some(&at)).as_deref(), Some("2025-10-30T10:15:30.123Z"));
        assert_eq!((time(None).as_str(), rfc3339(None)), ("-", None));
    }
}
