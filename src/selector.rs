//! PURE: the language that says which databases are meant, `env=prod,region!=eu,name~orders-*`. It is
//! read by everybody who is given one, so that each says the same of it, and at the place.

use std::{collections::BTreeMap, fmt};

use globset::{ErrorKind, Glob, GlobSet};

/// What every database has beside its labels. A label of one of these names is not reached.
pub const BUILT_IN: [&str; 4] = ["name", "server", "schema", "dbname"];

/// Whether a text can be a database's name or a label's: letters, digits, `_`, `.` and `-`.
pub fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}

/// Whether a text can be a label's value: a selector could not name one with a comma.
pub fn is_label_value(text: &str) -> bool {
    !text.contains(|c: char| c == ',' || c.is_control())
}

/// What is known of a database, and what a selector asks for.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Its name in the fleet.
    pub name: &'a str,
    /// Its server: host and port, or the socket's directory.
    pub server: &'a str,
    /// The schema of its migrations.
    pub schema: &'a str,
    /// PostgreSQL's name for it.
    pub dbname: &'a str,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
}

impl<'a> Facts<'a> {
    fn get(&self, key: &str) -> Option<&'a str> {
        match key {
            "name" => Some(self.name),
            "server" => Some(self.server),
            "schema" => Some(self.schema),
            "dbname" => Some(self.dbname),
            _ => self.labels.get(key).map(String::as_str),
        }
    }
}

/// The longest glob, in bytes: it is compiled, and anybody may send one.
const LONGEST_GLOB: usize = 1_000;

/// A glob over one text: `*`, `?`, `[a-z]`, `{a,b}`.
#[derive(Debug, Clone)]
pub struct Pattern(GlobSet);

impl Pattern {
    /// Reads a glob; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > LONGEST_GLOB {
            return Err(format!("it has more than {LONGEST_GLOB} bytes"));
        }
        // A set of one: unlike a matcher, it says so where braces are too deep to be compiled.
        let set = Glob::new(text).and_then(|glob| GlobSet::builder().add(glob).build());
        set.map(Self).map_err(|error| match error.kind() {
            ErrorKind::Regex(_) => "its braces are nested too deeply".to_owned(),
            kind => kind.to_string(),
        })
    }

    /// Whether the whole text is of this form.
    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

/// Expressions that must all hold.
#[derive(Debug, Clone)]
pub struct Selector(Vec<Expression>);

#[derive(Debug, Clone)]
struct Expression {
    key: String,
    wanted: Wanted,
    /// What is wanted must not be so. It is not where there is no such label at all.
    is_negated: bool,
}

#[derive(Debug, Clone)]
enum Wanted {
    Text(String),
    Glob(Pattern),
}

/// What is wrong with a selector, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SelectorError {
    /// The selector.
    pub text: String,
    /// The place in it, in bytes from 0.
    pub at: usize,
    /// What is wrong, in a sentence without a full stop.
    pub message: String,
}

impl SelectorError {
    /// The selector, and under it a caret at the place.
    pub fn shown(&self) -> [String; 2] {
        let before = self.text.get(..self.at).unwrap_or_default().chars().count();
        [self.text.replace(char::is_control, " "), format!("{}^", " ".repeat(before))]
    }
}

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [text, caret] = self.shown();
        write!(f, "{}\n  {text}\n  {caret}", self.message)
    }
}

impl Selector {
    /// Reads a selector: expressions with commas between them. An expression is a label's name or one
    /// of [`BUILT_IN`], then `=`, `!=`, `~` or `!~` (these two are followed by a glob), then a value.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut expressions = Vec::new();
        let mut at = 0;
        loop {
            let (expression, end) = expression(text, at).map_err(|(at, message)| SelectorError {
                text: text.to_owned(),
                at,
                message,
            })?;
            expressions.push(expression);
            if end == text.len() {
                return Ok(Self(expressions));
            }
            at = end + 1;
        }
    }

    /// Whether a database is meant.
    pub fn matches(&self, facts: &Facts<'_>) -> bool {
        self.0.iter().all(|expression| expression.is_true(facts))
    }

    /// What the expressions ask for.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|expression| expression.key.as_str())
    }
}

impl Expression {
    fn is_true(&self, facts: &Facts<'_>) -> bool {
        let is_so = facts.get(&self.key).is_some_and(|value| match &self.wanted {
            Wanted::Text(wanted) => value == wanted,
            Wanted::Glob(pattern) => pattern.matches(value),
        });
        is_so != self.is_negated
    }
}

/// One expression that begins at a byte, and where it ends: at a comma, or with the text.
fn expression(text: &str, from: usize) -> Result<(Expression, usize), (usize, String)> {
    let skip = |at: usize| text.len() - text[at..].trim_start().len();
    let start = skip(from);
    let rest = &text[start..];
    let key = &rest[..rest.find(|c: char| !is_of_a_key(c)).unwrap_or(rest.len())];
    if key.is_empty() {
        let found = match rest.chars().next() {
            None => "nothing".to_owned(),
            Some(c) => format!("`{c}`"),
        };
        return Err((
            start,
            format!("expected an expression such as env=prod or name~orders-*, found {found}"),
        ));
    }
    let operator = skip(start + key.len());
    let Some((sign, is_glob, is_negated)) =
        [("!=", false, true), ("!~", true, true), ("=", false, false), ("~", true, false)]
            .into_iter()
            .find(|(sign, ..)| text[operator..].starts_with(sign))
    else {
        return Err((operator, format!("expected =, !=, ~ or !~ after `{key}`")));
    };
    let value = skip(operator + sign.len());
    if text[value..].starts_with(['=', '~']) {
        let found = &text[operator..=value];
        return Err((value, format!("`{found}` is no operator: =, !=, ~ and !~ are")));
    }
    let end = value + length(&text[value..], is_glob);
    let wanted = text[value..end].trim_end();
    if wanted.is_empty() {
        return Err((value, format!("a value is missing after `{key}{sign}`")));
    }
    let wanted = if is_glob {
        let no_glob = |wrong: String| (value, format!("`{wanted}` is not a glob: {wrong}"));
        Wanted::Glob(Pattern::parse(wanted).map_err(no_glob)?)
    } else {
        Wanted::Text(wanted.to_owned())
    };
    Ok((Expression { key: key.to_owned(), wanted, is_negated }, end))
}

fn is_of_a_key(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_.-".contains(c)
}

/// How long a value is: up to a comma, of which a glob may have its own between braces.
fn length(text: &str, is_glob: bool) -> usize {
    let mut depth = 0_u32;
    for (at, c) in text.char_indices() {
        match c {
            '{' if is_glob => depth += 1,
            '}' if is_glob => depth = depth.saturating_sub(1),
            ',' if depth == 0 => return at,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors() {
        let labels =
            [("env", "prod"), ("region", "eu-west")].map(|(a, b)| (a.to_owned(), b.to_owned())).into();
        let facts = Facts {
            name: "orders-1",
            server: "db:5432",
            schema: "tenant_1",
            dbname: "orders",
            labels: &labels,
        };
        let check = |text: &str, expected: bool| {
            let matched = Selector::parse(text).map(|selector| selector.matches(&facts));
            assert_eq!(matched, Ok(expected), "{text}");
        };
        check("env=prod", true);
        check("env=pro", false);
        check("env=prod,region!=eu-west", false);
        check(" env = prod , region != eu , name ~ orders-* ", true);
        check("name~order", false);
        check("name~order?-[0-9]", true);
        check("name!~orders-*", false);
        check("region~{us,eu}-*,env=prod", true);
        check("server=db:5432,schema~tenant_*,dbname=orders", true);
        check("tier!=gold", true);
        check("tier=gold", false);
        check("tier!~*", true);
        check("env=a=b", false);
    }

    #[test]
    fn what_is_wrong_is_pointed_at() {
        let check = |text: &str, at: usize, expected: &str| {
            let error = Selector::parse(text).expect_err(text);
            assert_eq!((error.at, error.message.as_str()), (at, expected), "{text}");
        };
        check("env==", 4, "`==` is no operator: =, !=, ~ and !~ are");
        check("env==prod", 4, "`==` is no operator: =, !=, ~ and !~ are");
        check("a=b,env=~x", 8, "`=~` is no operator: =, !=, ~ and !~ are");
        check("env", 3, "expected =, !=, ~ or !~ after `env`");
        check("env,a=b", 3, "expected =, !=, ~ or !~ after `env`");
        check("env prod", 4, "expected =, !=, ~ or !~ after `env`");
        check("env=", 4, "a value is missing after `env=`");
        check("env!= ,a=b", 6, "a value is missing after `env!=`");
        let expected = "expected an expression such as env=prod or name~orders-*, found ";
        check("", 0, &format!("{expected}nothing"));
        check("env=prod,", 9, &format!("{expected}nothing"));
        check("=prod", 0, &format!("{expected}`=`"));
        check("env=prod,,a=b", 9, &format!("{expected}`,`"));
        check("straße=x", 4, "expected =, !=, ~ or !~ after `stra`");
        let no_glob = Selector::parse("name~a[").expect_err("it is wrong");
        assert!(no_glob.at == 5 && no_glob.message.contains("`a[` is not a glob"), "{no_glob}");
        let nested = "{a,".repeat(200) + "b" + &"}".repeat(200);
        for (glob, expected) in [(nested, "nested too deeply"), ("?".repeat(1_001), "1000 bytes")] {
            let error = Selector::parse(&format!("name~{glob}")).expect_err("it cannot be compiled");
            assert!(error.message.contains(expected), "{}", error.message);
        }
        let shown = Selector::parse("region=ü,env==").expect_err("it is wrong").to_string();
        assert!(shown.ends_with("\n  region=ü,env==\n               ^"), "{shown}");
    }
}
