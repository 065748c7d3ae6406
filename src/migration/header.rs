//! The header: the comments that a migration file opens with.

use std::time::Duration;

use crate::migration::Mode;

/// What the header of one file says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Header {
    /// `-- nexus: no-transaction`: run statement by statement, outside a transaction.
    pub no_transaction: bool,
    /// `-- nexus: lock-timeout 2s`.
    pub lock_timeout: Option<Duration>,
    /// `-- nexus: statement-timeout 10min`.
    pub statement_timeout: Option<Duration>,
    /// `-- nexus: allow RULE reason`: the rules that are silenced, with the reasons.
    pub allowed: Vec<Allowed>,
    /// `-- Description: …`.
    pub description: String,
    /// `-- Impact: …`.
    pub impact: String,
    /// `-- Rollback Impact: …`.
    pub rollback_impact: String,
    /// `-- Data Loss: …`.
    pub data_loss: String,
}

impl Header {
    /// Whether the file runs inside one transaction.
    pub fn mode(&self) -> Mode {
        if self.no_transaction { Mode::NonTransactional } else { Mode::Transactional }
    }
}

/// One lint rule that a file silences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// The rule's name.
    pub rule: String,
    /// Why; never empty.
    pub reason: String,
}

/// Why a header's directive is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DirectiveError {
    /// The line, from 1.
    pub line: u32,
    /// The column of the directive in characters, from 1.
    pub column: u32,
    /// What is wrong with it, and what was probably meant.
    pub message: String,
}

const DIRECTIVES: [&str; 4] = ["no-transaction", "lock-timeout", "statement-timeout", "allow"];

impl Header {
    /// Reads the comments at the beginning of `text`, the first bytes of a file. The header ends
    /// at the first line that holds anything but a comment: what stands below it is no directive.
    pub fn parse(text: &str) -> Result<Self, DirectiveError> {
        let mut header = Self::default();
        for comment in comments(text.strip_prefix('\u{feff}').unwrap_or(text)) {
            header.take(comment.text).map_err(|message| DirectiveError {
                line: comment.line,
                column: comment.column,
                message,
            })?;
        }
        Ok(header)
    }

    /// Takes one line of a comment: a directive, a field of the runbook's, or prose.
    fn take(&mut self, comment: &str) -> Result<(), String> {
        if let Some(directive) = strip_prefix_ignoring_case(comment, "nexus:") {
            return self.directive(directive.trim());
        }
        if let Some(rest) = strip_prefix_ignoring_case(comment, "nexus ")
            && let Some(name) = rest.split_whitespace().next().filter(|name| DIRECTIVES.contains(name))
        {
            return Err(format!("a colon is missing: write `-- nexus: {name}`"));
        }
        let Some((key, value)) = comment.split_once(':') else { return Ok(()) };
        let field = match key.trim_end().to_ascii_lowercase().as_str() {
            "description" => &mut self.description,
            "impact" => &mut self.impact,
            "rollback impact" => &mut self.rollback_impact,
            "data loss" => &mut self.data_loss,
            _ => return Ok(()),
        };
        if field.is_empty() {
            value.trim().clone_into(field);
        }
        Ok(())
    }

    fn directive(&mut self, directive: &str) -> Result<(), String> {
        let (name, argument) =
            directive.split_once(char::is_whitespace).map_or((directive, ""), |(n, a)| (n, a.trim()));
        let is_duplicate = match name {
            "no-transaction" if !argument.is_empty() => {
                return Err(format!("no-transaction takes nothing after it, but {argument:?} stands there"));
            }
            "no-transaction" => std::mem::replace(&mut self.no_transaction, true),
            "lock-timeout" => self.lock_timeout.replace(timeout(name, argument)?).is_some(),
            "statement-timeout" => self.statement_timeout.replace(timeout(name, argument)?).is_some(),
            "allow" => {
                let (rule, reason) = argument.split_once(char::is_whitespace).unwrap_or((argument, ""));
                if rule.is_empty() || reason.trim().is_empty() {
                    return Err("allow needs a rule and a reason: `-- nexus: allow RULE reason`".into());
                }
                let is_duplicate = self.allowed.iter().any(|allowed| allowed.rule == rule);
                self.allowed.push(Allowed { rule: rule.into(), reason: reason.trim().into() });
                is_duplicate
            }
            "" => return Err(format!("the directive is empty; there are {}", DIRECTIVES.join(", "))),
            _ => return Err(unknown(name)),
        };
        if is_duplicate { Err(format!("`{directive}` is given a second time")) } else { Ok(()) }
    }
}

/// PostgreSQL keeps its timeouts in milliseconds, in 32 bits; 0 turns them off.
fn timeout(name: &str, argument: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(argument)
        .map_err(|_| format!("{name} needs a duration such as `2s` or `10min`, not {argument:?}"))?;
    let fits = i32::try_from(duration.as_millis()).is_ok() && duration.subsec_nanos() % 1_000_000 == 0;
    if fits { Ok(duration) } else { Err(format!("{name} must be whole milliseconds, at most 24 days")) }
}

fn unknown(name: &str) -> String {
    let nearest = DIRECTIVES
        .iter()
        .map(|known| (strsim::damerau_levenshtein(&name.to_ascii_lowercase(), known), known))
        .min_by_key(|(distance, _)| *distance);
    match nearest {
        Some((distance, known)) if distance <= 4 => {
            format!("there is no directive `{name}`; did you mean `{known}`?")
        }
        _ => format!("there is no directive `{name}`; there are {}", DIRECTIVES.join(", ")),
    }
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, tail) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(tail)
}

/// One line of a comment, without what marks it as one.
struct Comment<'a> {
    line: u32,
    column: u32,
    text: &'a str,
}

/// The lines of the comments that `text` opens with.
fn comments(text: &str) -> Vec<Comment<'_>> {
    let mut comments = Vec::new();
    let mut depth = 0_u32;
    for (number, line) in (1..).zip(text.lines()) {
        let mut at = 0;
        loop {
            let rest = &line[at..];
            let blank = rest.len() - rest.trim_start().len();
            let (length, next) = match rest.find("/*").into_iter().chain(rest.find("*/")).min() {
                _ if depth == 0 && blank == rest.len() => break,
                _ if depth == 0 && rest[blank..].starts_with("--") => {
                    at += blank + 2;
                    (line.len() - at, None)
                }
                Some(mark) if depth == 0 && mark == blank && rest[mark..].starts_with("/*") => {
                    (0, Some((mark + 2, 1)))
                }
                _ if depth == 0 => return comments,
                Some(mark) if rest[mark..].starts_with("/*") => (mark, Some((mark + 2, depth + 1))),
                Some(mark) => (mark, Some((mark + 2, depth - 1))),
                None => (rest.len(), None),
            };
            let inside = &line[at..at + length];
            let bare = inside.trim_start_matches(|c: char| c.is_whitespace() || c == '*');
            let column = line[..at + length - bare.len()].chars().count() + 1;
            let column = u32::try_from(column).unwrap_or(u32::MAX);
            comments.push(Comment { line: number, column, text: bare.trim_end() });
            let Some((step, new_depth)) = next else { break };
            at += step;
            depth = new_depth;
        }
    }
    comments
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: u32, column: u32, message: &str) -> Result<Header, DirectiveError> {
        Err(DirectiveError { line, column, message: message.into() })
    }

    fn check(text: &str, expected: &Result<Header, DirectiveError>) {
        assert_eq!(&Header::parse(text), expected, "{text:?}");
    }

    #[test]
    fn what_is_refused() {
        check(
            "-- nexus: no-transactions",
            &error(1, 4, "there is no directive `no-transactions`; did you mean `no-transaction`?"),
        );
        check(
            "\n  --nexus:  lock_timeout 2s",
            &error(2, 5, "there is no directive `lock_timeout`; did you mean `lock-timeout`?"),
        );
        check(
            "-- nexus: frobnicate",
            &error(
                1,
                4,
                "there is no directive `frobnicate`; there are no-transaction, lock-timeout, statement-timeout, allow",
            ),
        );
        check(
            "-- NEXUS:",
            &error(
                1,
                4,
                "the directive is empty; there are no-transaction, lock-timeout, statement-timeout, allow",
            ),
        );
        check(
            "-- nexus: no-transaction please",
            &error(1, 4, "no-transaction takes nothing after it, but \"please\" stands there"),
        );
        check(
            "-- nexus: lock-timeout soon",
            &error(1, 4, "lock-timeout needs a duration such as `2s` or `10min`, not \"soon\""),
        );
        check(
            "-- nexus: lock-timeout",
            &error(1, 4, "lock-timeout needs a duration such as `2s` or `10min`, not \"\""),
        );
        for too_much in ["25days", "10us"] {
            check(
                &format!("-- nexus: statement-timeout {too_much}"),
                &error(1, 4, "statement-timeout must be whole milliseconds, at most 24 days"),
            );
        }
        for reasonless in ["allow", "allow drop-table", "allow drop-table  "] {
            check(
                &format!("-- nexus: {reasonless}"),
                &error(1, 4, "allow needs a rule and a reason: `-- nexus: allow RULE reason`"),
            );
        }
        check(
            "-- nexus: no-transaction\r\n\r\n-- nexus: no-transaction\r\n",
            &error(3, 4, "`no-transaction` is given a second time"),
        );
        check(
            "/* nexus: lock-timeout 1s */ -- nexus: lock-timeout 2s",
            &error(1, 33, "`lock-timeout 2s` is given a second time"),
        );
        check(
            "-- nexus: allow a because\n-- nexus: allow a why",
            &error(2, 4, "`allow a why` is given a second time"),
        );
        check(
            "-- nexus no-transaction",
            &error(1, 4, "a colon is missing: write `-- nexus: no-transaction`"),
        );
        check(
            "/* Ünïcode\n * é nexus\n * nexus: x\n */",
            &error(
                3,
                4,
                "there is no directive `x`; there are no-transaction, lock-timeout, statement-timeout, allow",
            ),
        );
    }

    #[test]
    fn what_is_read() {
        let none = Header::default();
        check("", &Ok(none.clone()));
        check("SELECT 1;\n-- nexus: nonsense", &Ok(none.clone()));
        check("/* a */ SELECT 1; -- nexus: nonsense", &Ok(none.clone()));
        check("-- nexus is what runs this\n-- see: nexus: the manual", &Ok(none.clone()));
        check("/* unterminated\nnexus", &Ok(none.clone()));
        let no_transaction = Header { no_transaction: true, ..none.clone() };
        check("\u{feff}-- nexus: no-transaction\r\nVACUUM;", &Ok(no_transaction.clone()));
        check("\n\t--nexus:no-transaction\n", &Ok(no_transaction.clone()));
        check("/* first /* nested */\n * nexus: no-transaction\n */\nVACUUM;", &Ok(no_transaction));
        let allowed = |rule: &str, reason: &str| Allowed { rule: rule.into(), reason: reason.into() };
        check(
            "-- 0010_add_products.up.sql\n\
             -- DESCRIPTION: Creates products: with categories \n\
             -- impact: none\n\
             -- Rollback Impact:drops them\n\
             -- Data  Loss: not this one\n\
             -- Data Loss: yes\n\
             -- Data Loss: the first counts\n\
             -- nexus: lock-timeout 2s\n\
             -- nexus: statement-timeout  10min \n\
             -- nexus: allow drop-table it is  empty\n\
             -- nexus: allow rename nobody reads it\n\
             CREATE TABLE t ();",
            &Ok(Header {
                lock_timeout: Some(Duration::from_secs(2)),
                statement_timeout: Some(Duration::from_mins(10)),
                allowed: vec![allowed("drop-table", "it is  empty"), allowed("rename", "nobody reads it")],
                description: "Creates products: with categories".into(),
                impact: "none".into(),
                rollback_impact: "drops them".into(),
                data_loss: "yes".into(),
                ..none
            }),
        );
    }
}
