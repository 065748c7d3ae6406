//! The place of a request in a trace, as W3C's Trace Context writes it.

use std::fmt;

/// The target of the spans that are exported; no line of the daemon's own log has it.
pub const SPAN_TARGET: &str = "nexus::trace";

/// The target under which the text of statements is asked for.
pub const SQL_TARGET: &str = "nexus::trace::sql";

/// A trace, and the span in it that whatever comes next belongs under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; never 0.
    pub trace: u128,
    /// The span; never 0.
    pub span: u64,
    /// Whether the caller has recorded it, or wants it to be.
    pub sampled: bool,
}

impl TraceContext {
    /// Reads a `traceparent`; `None` where it is not one, which by the standard is as if there were none.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = |text: &str, length| {
            let fits = text.len() == length && text.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
            fits.then(|| u128::from_str_radix(text, 16).ok()).flatten()
        };
        let mut parts = text.trim().split('-');
        let mut next = |length| digits(parts.next()?, length);
        let (version, trace, span, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
        // Later versions may say more behind; this one does not.
        let fits = version < 0xff && (version > 0 || parts.next().is_none()) && trace > 0 && span > 0;
        let span = u64::try_from(span).ok()?;
        fits.then_some(Self { trace, span, sampled: flags & 1 == 1 })
    }

    /// The trace's id: 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }
}

impl fmt::Display for TraceContext {
    /// As a `traceparent`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_and_written() {
        let check = |text: &str, expected: Option<&str>| {
            let read = TraceContext::parse(text).map(|context| context.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        };
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        let sampled = format!("00-{trace}-{span}-01");
        check(&sampled, Some(&sampled));
        check(&format!("00-{trace}-{span}-00"), Some(&format!("00-{trace}-{span}-00")));
        // Only the first flag is known; later versions are read as far as this one goes.
        check(&format!("00-{trace}-{span}-03"), Some(&sampled));
        check(&format!("cc-{trace}-{span}-01-what-comes"), Some(&sampled));
        check(&format!("00-{trace}-{span}-01-more"), None);
        check(&format!("ff-{trace}-{span}-01"), None);
        check(&format!("00-{}-{span}-01", "0".repeat(32)), None);
        check(&format!("00-{trace}-{}-01", "0".repeat(16)), None);
        check(&format!("00-{}-{span}-01", trace.to_uppercase()), None);
        check(&format!("00-{}-{span}-01", &trace[1..]), None);
        check(&format!("00-{trace}-{span}"), None);
        check("00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None);
        check("", None);
    }

    #[test]
    fn the_trace_id_has_its_leading_zeros() {
        let context = TraceContext { trace: 7, span: 1, sampled: false };
        assert_eq!(context.trace_id(), "00000000000000000000000000000007");
    }
}
