//! PostgreSQL's error messages without the values of users that they quote.

use std::{borrow::Cow, ops::Range};

use super::mask_text;

/// What stands in the place of a value.
const GONE: &str = "…";

/// The most characters of a message that are kept: what raises it decides on its length, and what masks it
/// looks at some of it more than once.
const LONGEST: usize = 4_000;

/// A server's message that may be logged and shown.
///
/// Data exceptions (class 22), constraint violations (23) and messages raised by SQL itself (P0) lose
/// their values: what is quoted, unless it is the name of a column, a constraint and the like, as well
/// as numbers and addresses. Other messages lose credentials, `PASSWORD '…'` and string literals of
/// the SQL. DETAIL, CONTEXT and internal queries are not for this function: they are never kept.
/// Of a long message only the beginning is kept.
pub fn safe_sql_message(sqlstate: &str, message: &str) -> String {
    let message = &*closed(message);
    match sqlstate.get(..2) {
        Some("22" | "23" | "P0") => mask_text(&without_values(message, &NOUNS)),
        // libpq quotes the words of a connection string that it cannot read: a password with a space in it.
        _ if message.contains("connection string") => mask_text(&without_values(message, &[])),
        _ => without_literals(&mask_text(message)),
    }
}

/// A message, cut where it is too long. What the cut left open is closed: what stands in quotes goes, to the
/// last of them.
fn closed(message: &str) -> Cow<'_, str> {
    beginning(message).map_or(Cow::Borrowed(message), |kept| format!("{kept} {GONE}\"").into())
}

/// A text that somebody else wrote, at whatever length, as the operator may see it: without credentials.
pub fn safe_text(text: &str) -> String {
    match beginning(text) {
        Some(kept) => format!("{} {GONE}", mask_text(kept)),
        None => mask_text(text),
    }
}

/// What is kept of a text that is too long; `None` where it is not. A word stays whole: by its end a URL shows
/// what in it is a password.
fn beginning(text: &str) -> Option<&str> {
    let (end, _) = text.char_indices().nth(LONGEST)?;
    Some(&text[..text[..end].rfind(char::is_whitespace).unwrap_or(0)])
}

/// The message of an error inside a function, whose SQL may have been put together from the values of
/// rows: there a name, or what stands near a syntax error, may be such a value too.
pub fn safe_nested_message(sqlstate: &str, message: &str) -> String {
    match sqlstate.get(..2) {
        Some("22" | "23" | "P0") => safe_sql_message(sqlstate, message),
        _ => mask_text(&without_values(&closed(message), &[])),
    }
}

/// A message of a syntax error without the piece of the SQL that it quotes.
pub fn without_quoted_sql(message: &str) -> String {
    match near(message) {
        Some(near) => format!("{}{GONE}{}", &message[..near.start], &message[near.end..]),
        None => message.to_owned(),
    }
}

/// SQL that may be shown: without the credentials of URLs and connection strings, and without the
/// passwords of roles and user mappings. What else it holds stays, but of a long text only the beginning.
pub fn mask_sql(sql: &str) -> String {
    match beginning(sql) {
        Some(kept) => format!("{} {GONE}", without_passwords(&mask_text(kept))),
        None => without_passwords(&mask_text(sql)),
    }
}

/// The words after which PostgreSQL's messages quote a name.
const NOUNS: [&str; 16] = [
    "column",
    "columns",
    "relation",
    "table",
    "constraint",
    "index",
    "domain",
    "enum",
    "type",
    "encoding",
    "parameter",
    "function",
    "partition",
    "schema",
    "sequence",
    "trigger",
];

/// The message without what it quotes, but for the names after the `nouns`.
fn without_values(message: &str, nouns: &[&str]) -> String {
    let mut safe = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(open) = opening_quote(rest) {
        let (before, quoted) = rest.split_at(open);
        push_words(&mut safe, before);
        let name = quoted.strip_prefix('"').and_then(|q| q.split_once('"')).filter(|(name, _)| is_name(name));
        let noun = before.split_whitespace().next_back().is_some_and(|word| nouns.contains(&word));
        if let Some((name, after)) = name.filter(|_| noun) {
            safe.extend(["\"", name, "\""]);
            rest = after;
        } else {
            safe.extend(["\"", GONE, "\""]);
            rest = after_last_quote(quoted);
        }
    }
    push_words(&mut safe, rest);
    safe
}

/// Where the next quoted part begins; an apostrophe inside a word is none.
fn opening_quote(text: &str) -> Option<usize> {
    let mut previous = ' ';
    text.char_indices()
        .find(|(_, c)| {
            let opens = "\"«„“".contains(*c) || *c == '\'' && !previous.is_alphanumeric();
            previous = *c;
            opens
        })
        .map(|(at, _)| at)
}

/// What follows a quoted value. It may itself hold quotes, which PostgreSQL does not escape: so the
/// last quote of the message ends it, or the message does.
fn after_last_quote(quoted: &str) -> &str {
    let mut next = ' ';
    for (at, letter) in quoted.char_indices().skip(1).collect::<Vec<_>>().into_iter().rev() {
        if "\"»“”".contains(letter) || letter == '\'' && !next.is_alphanumeric() {
            return &quoted[at + letter.len_utf8()..];
        }
        next = letter;
    }
    ""
}

fn is_name(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.chars().all(|c| c.is_alphanumeric() || "_$.- ".contains(c))
}

/// Appends text that is not quoted, without the words that are numbers or addresses.
fn push_words(safe: &mut String, text: &str) {
    for word in text.split_inclusive(char::is_whitespace) {
        let bare = word.trim_start_matches(['(', '[', '{', '-', '+', '.', '=', ',']);
        if bare.starts_with(|c: char| c.is_ascii_digit()) || bare.contains('@') {
            let end = word.trim_end_matches(|c: char| c.is_whitespace() || ".,;:)]}".contains(c)).len();
            safe.extend([GONE, &word[end..]]);
        } else {
            safe.push_str(word);
        }
    }
}

/// Before the piece of the SQL itself that a syntax error quotes, a string literal included.
const NEAR: &str = "at or near \"";

fn without_literals(message: &str) -> String {
    let message = without_passwords(message);
    let Some(near) = near(&message) else { return message };
    let text = &message[near.clone()];
    if text.contains(['\'', '$']) || text.len() > 63 {
        format!("{}{GONE}{}", &message[..near.start], &message[near.end..])
    } else {
        message
    }
}

/// Where a message quotes the SQL.
fn near(message: &str) -> Option<Range<usize>> {
    let begin = message.find(NEAR)? + NEAR.len();
    let end = message.rfind('"').filter(|end| *end >= begin).unwrap_or(message.len());
    Some(begin..end)
}

/// Takes the literal out of every `PASSWORD '…'` and `CONNECTION '…'`, in whatever quotes it is. About a
/// role or a user a password without quotes goes, too: it is a mistake that would otherwise be told with it.
fn without_passwords(sql: &str) -> String {
    const WORDS: [&str; 2] = ["password", "connection"];
    let lower = sql.to_ascii_lowercase();
    let next = |at: usize| {
        let found =
            WORDS.iter().filter_map(|word| Some((lower[at..].find(word)? + word.len(), *word))).min()?;
        Some((at + found.0, found.1))
    };
    let mut safe = String::with_capacity(sql.len());
    let mut at = 0;
    while let Some((begin, word)) = next(at) {
        safe.push_str(&sql[at..begin]);
        at = begin;
        let text = sql[begin..].trim_start();
        if let Some(left) = after_password(text) {
            safe.extend([" '", GONE, "'"]);
            at = sql.len() - left.len();
        } else if word == WORDS[0] && sql[begin..].len() > text.len() && is_about_role(&safe) {
            let end = text.find(|c: char| c.is_whitespace() || ",;)".contains(c)).unwrap_or(text.len());
            if end > 0 && !text[..end].eq_ignore_ascii_case("null") {
                safe.extend([" ", GONE]);
                at = sql.len() - text.len() + end;
            }
        }
    }
    safe.push_str(&sql[at..]);
    safe
}

/// Whether the statement at the end of a text is about a role, as far as its words tell.
fn is_about_role(text: &str) -> bool {
    let statement = text.rsplit(';').next().unwrap_or_default().to_ascii_lowercase();
    let mut words = statement.split_whitespace();
    words.any(|word| ["create", "alter"].contains(&word))
        && words.any(|word| ["role", "user", "group"].contains(&word))
}

/// What follows the literal that a text begins with, closed or not: `'…'`, `E'…'`, `U&'…'`, `$tag$…$tag$`.
fn after_password(text: &str) -> Option<&str> {
    if let Some(dollar) = text.strip_prefix('$') {
        let (tag, body) = dollar.split_once('$')?;
        let is_tag = tag.chars().all(|c| c.is_alphanumeric() || c == '_');
        return is_tag.then(|| body.split_once(&format!("${tag}$")).map_or("", |(_, after)| after));
    }
    let escapes = text.starts_with(['E', 'e']);
    let literal = text.trim_start_matches(['E', 'e']);
    let literal = literal.strip_prefix("U&").or_else(|| literal.strip_prefix("u&")).unwrap_or(literal);
    literal.strip_prefix('\'').map(|literal| after_literal(literal, escapes))
}

/// What follows a string literal whose opening quote is already read; in some a backslash escapes.
fn after_literal(text: &str, escapes: bool) -> &str {
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' if escapes => drop(letters.next()),
            // As the server is set, this may be an escape too, and the end anywhere.
            '\\' if letters.peek().is_some_and(|(_, next)| *next == '\'') => return "",
            '\'' if letters.peek().is_some_and(|(_, next)| *next == '\'') => drop(letters.next()),
            '\'' => return &text[at + 1..],
            _ => {}
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_go_and_names_stay() {
        let cases = [
            (
                "22P02",
                r#"invalid input syntax for type integer: "4111 1111""#,
                r#"invalid input syntax for type integer: "…""#,
            ),
            (
                "22P02",
                r#"invalid input syntax for type json: "a"b c"d""#,
                r#"invalid input syntax for type json: "…""#,
            ),
            (
                "22P02",
                r#"invalid input value for enum mood: "sad""#,
                r#"invalid input value for enum mood: "…""#,
            ),
            (
                "22003",
                r#"value "99999" is out of range for type integer"#,
                r#"value "…" is out of range for type integer"#,
            ),
            (
                "22001",
                "value too long for type character varying(3)",
                "value too long for type character varying(3)",
            ),
            (
                "22021",
                r#"invalid byte sequence for encoding "UTF8": 0xe9 0x20"#,
                r#"invalid byte sequence for encoding "UTF8": … …"#,
            ),
            ("22012", "division by zero", "division by zero"),
            (
                "22007",
                "invalid input syntax for type date: \"31.02.\n1970",
                "invalid input syntax for type date: \"…\"",
            ),
            ("22P04", r#"missing data for column "email""#, r#"missing data for column "email""#),
            ("22P02", "syntaxe en entrée invalide : « bob »", "syntaxe en entrée invalide : \"…\""),
            (
                "23505",
                r#"duplicate key value violates unique constraint "users_email_key""#,
                r#"duplicate key value violates unique constraint "users_email_key""#,
            ),
            (
                "23502",
                r#"null value in column "a" of relation "t 1" violates not-null constraint"#,
                r#"null value in column "a" of relation "t 1" violates not-null constraint"#,
            ),
            (
                "23514",
                r#"new row for relation "t" violates check constraint "c""#,
                r#"new row for relation "t" violates check constraint "c""#,
            ),
            ("23505", "dup bob@example.com, 42", "dup …, …"),
            ("P0001", "customer 'Bob' can't pay 12.50", "customer \"…\" can't pay …"),
            ("P0001", r#"column "bob@example.com" is bad"#, r#"column "…" is bad"#),
            ("42601", r#"syntax error at or near "CREAT""#, r#"syntax error at or near "CREAT""#),
            (
                "42601",
                r#"unterminated quoted string at or near "'my "secret"""#,
                r#"unterminated quoted string at or near "…""#,
            ),
            ("42601", "near alter role a password 'it''s' valid", "near alter role a password '…' valid"),
            ("42P01", r#"relation "t1" does not exist"#, r#"relation "t1" does not exist"#),
            ("08001", "could not connect to postgres://a:b@h/d", "could not connect to postgres://a:***@h/d"),
            ("", "", ""),
        ];
        for (sqlstate, message, expected) in cases {
            assert_eq!(safe_sql_message(sqlstate, message), expected);
        }
    }

    #[test]
    fn long_messages_are_cut_and_take_no_time() {
        for unit in ["password ", "password 'x' ", "column \"a\" ", "\"", "at or near \"", "é", "1 "] {
            let began = std::time::Instant::now();
            for state in ["22P02", "42601"] {
                let safe = safe_sql_message(state, &unit.repeat(2_000_000 / unit.len()));
                assert!(safe.chars().count() <= LONGEST + 5, "{unit}");
            }
            assert!(mask_sql(&unit.repeat(2_000_000 / unit.len())).chars().count() <= LONGEST + 5, "{unit}");
            let nested = safe_nested_message("42601", &unit.repeat(2_000_000 / unit.len()));
            assert!(nested.chars().count() <= LONGEST + 5, "{unit}");
            assert!(safe_text(&unit.repeat(2_000_000 / unit.len())).chars().count() <= LONGEST + 2, "{unit}");
            assert!(began.elapsed().as_secs() < 20, "{unit}: {:?}", began.elapsed());
        }
    }

    #[test]
    fn a_cut_leaves_nothing_open() {
        let long = "x ".repeat(LONGEST);
        for (state, message) in [
            ("22P02", format!("invalid input syntax for type json: \"a\" s3cret {long}\"")),
            ("42601", format!("syntax error at or near \"'s3cret {long}'\"")),
            ("42601", format!("near alter role a password 's3cret {long}'")),
            (
                "08001",
                format!("{}postgres://a:s3cret{}@h", "y ".repeat(LONGEST / 2 - 20), "z".repeat(LONGEST)),
            ),
        ] {
            let safe = safe_sql_message(state, &message);
            assert!(!safe.contains("s3cret") && safe.contains(GONE), "{safe}");
        }
        assert_eq!(safe_text(&long).chars().count(), LONGEST + 1);
        assert!(safe_sql_message("42P01", &long).starts_with("x x x"));
    }

    #[test]
    fn passwords_in_sql() {
        let cases = [
            ("create role a password 'x';", "create role a password '…';"),
            ("ALTER USER a PASSWORD E'x\\'y' VALID", "ALTER USER a PASSWORD '…' VALID"),
            ("alter role a password U&'x' uescape", "alter role a password '…' uescape"),
            ("alter role a password $$x$$; select 1", "alter role a password '…'; select 1"),
            ("alter role a password $t$x$$y$t$;", "alter role a password '…';"),
            ("alter role a password 'x\\'y'; select 'z'", "alter role a password '…'"),
            ("alter role a password 'not closed;", "alter role a password '…'"),
            ("alter role a password plain;", "alter role a password …;"),
            ("alter role a password null;", "alter role a password null;"),
            ("create table users (password text, b int);", "create table users (password text, b int);"),
            ("options (user 'a', password 'it''s')", "options (user 'a', password '…')"),
            (
                "create subscription s connection 'host=h password=a b' publication p",
                "create subscription s connection '…' publication p",
            ),
            ("select dblink('postgres://a:b@h/x')", "select dblink('postgres://a:***@h/x')"),
        ];
        for (sql, expected) in cases {
            assert_eq!(mask_sql(sql), expected);
        }
    }

    #[test]
    fn names_of_dynamic_sql_may_be_values() {
        let check = |sqlstate, message, expected: &str| {
            assert_eq!(safe_nested_message(sqlstate, message), expected);
        };
        check("42703", r#"column "bob" does not exist"#, r#"column "…" does not exist"#);
        check("42601", r#"syntax error at or near "bob""#, r#"syntax error at or near "…""#);
        check("23502", r#"null value in column "a""#, r#"null value in column "a""#);
        let conninfo =
            r#"invalid connection string syntax: missing "=" after "hunter2" in connection info string"#;
        assert!(!safe_sql_message("42601", conninfo).contains("hunter2"));
        assert_eq!(without_quoted_sql(r#"syntax error at or near "x""#), r#"syntax error at or near "…""#);
        assert_eq!(without_quoted_sql("division by zero"), "division by zero");
    }

    proptest! {
        #[test]
        fn no_literal_of_a_password_survives(secret in "[!-~é]{6,24}", word in "PASSWORD|password|Password E") {
            let literal = secret.replace('\'', "''");
            let message = format!("near ALTER ROLE app {word}'{literal}' VALID UNTIL");
            prop_assume!(!literal.contains('\\'));
            let safe = safe_sql_message("42601", &message);
            prop_assert!(!safe.contains(&literal) && safe.ends_with(" VALID UNTIL"), "{}", safe);
        }

        #[test]
        fn no_quoted_value_survives(value in "[!-~]{6,30}") {
            let message = format!("invalid input syntax for type integer: \"{value}\"");
            prop_assert!(!safe_sql_message("22P02", &message).contains(&value));
        }

        #[test]
        fn any_message_is_safe_without_panic(state in "22P02|P0001|42601", message in "\\PC{0,80}") {
            let _ = safe_sql_message(&state, &message);
        }
    }
}
