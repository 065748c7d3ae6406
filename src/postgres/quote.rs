//! Names and texts inside SQL: the one place that quotes them.

/// An identifier in double quotes: every name that becomes part of an SQL text goes through here.
///
/// PostgreSQL knows no NUL in a name; the server refuses a message that holds one.
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string literal, as `quote_literal()` of the server writes it: safe with either setting of
/// `standard_conforming_strings`.
pub fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, expected) in [
            ("users", r#""users""#),
            (r#"a"b"#, r#""a""b""#),
            ("Select", r#""Select""#),
            ("é x", r#""é x""#),
            ("", r#""""#),
        ] {
            assert_eq!(quote_ident(name), expected);
        }
    }

    #[test]
    fn literals() {
        for (text, expected) in
            [("x", "'x'"), ("it's", "'it''s'"), (r"a\'b", r"E'a\\''b'"), ("", "''"), ("\n", "'\n'")]
        {
            assert_eq!(quote_literal(text), expected);
        }
    }
}
