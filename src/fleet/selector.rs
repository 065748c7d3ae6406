//! Which databases a request means: names and globs, label expressions, or all.

use std::collections::BTreeMap;

use globset::Glob;

use crate::migration::{Code, Failure};

/// What a request says of its databases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Names or globs; one must match. Empty: every name.
    pub databases: Vec<String>,
    /// `key=value` or `key!=value`; all must match.
    pub labels: Vec<String>,
    /// All databases, said outright.
    pub all: bool,
}

/// Whether a request must say which databases it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It must, where there are several: it may change them.
    Named,
    /// It need not: it only reads.
    Any,
}

impl Selection {
    /// The names that are meant, of `known` databases with their labels.
    pub fn resolve<'a>(
        &self,
        known: &'a BTreeMap<String, BTreeMap<String, String>>,
        need: Need,
    ) -> Result<Vec<&'a str>, Failure> {
        if known.is_empty() {
            return Err(Failure::new(Code::UnknownDatabase, "The daemon knows no database"));
        }
        let is_empty = self.databases.is_empty() && self.labels.is_empty();
        if self.all && !is_empty {
            return Err(Failure::new(Code::BadRequest, "--all goes with neither --database nor --selector"));
        }
        if is_empty && !self.all && need == Need::Named && known.len() > 1 {
            let message = format!("Which of the {} databases is meant?", known.len());
            return Err(Failure::new(Code::NoSelection, message).details(known.keys().cloned().collect()));
        }
        let globs = self.globs(known)?;
        let expressions =
            self.labels.iter().map(|text| Expression::parse(text)).collect::<Result<Vec<_>, _>>()?;
        let chosen: Vec<_> = known
            .iter()
            .filter(|(name, _)| globs.is_empty() || globs.iter().any(|glob| glob.is_match(name)))
            .filter(|(_, labels)| expressions.iter().all(|expression| expression.is_true(labels)))
            .map(|(name, _)| name.as_str())
            .collect();
        if chosen.is_empty() && !is_empty {
            let message = "The selection matches no database";
            return Err(Failure::new(Code::UnknownDatabase, message).details(known.keys().cloned().collect()));
        }
        Ok(chosen)
    }

    /// Each pattern must match something: a misspelt name among right ones is an error too.
    fn globs(
        &self,
        known: &BTreeMap<String, BTreeMap<String, String>>,
    ) -> Result<Vec<globset::GlobMatcher>, Failure> {
        let matcher = |pattern: &String| {
            let glob = Glob::new(pattern).map_err(|error| {
                Failure::new(
                    Code::BadRequest,
                    format!("{pattern:?} is not a name or a glob: {}", error.kind()),
                )
            })?;
            let glob = glob.compile_matcher();
            if known.keys().any(|name| glob.is_match(name)) {
                return Ok(glob);
            }
            let message = format!("No database {pattern}");
            Err(Failure::new(Code::UnknownDatabase, message).details(known.keys().cloned().collect()))
        };
        self.databases.iter().map(matcher).collect()
    }
}

/// One label expression.
struct Expression<'a> {
    key: &'a str,
    value: &'a str,
    equal: bool,
}

impl<'a> Expression<'a> {
    fn parse(text: &'a str) -> Result<Self, Failure> {
        let (key, value, equal) = match (text.split_once("!="), text.split_once('=')) {
            (Some((key, value)), _) => (key, value, false),
            (None, Some((key, value))) => (key, value, true),
            (None, None) => ("", "", true),
        };
        let (key, value) = (key.trim(), value.trim());
        if key.is_empty() || value.is_empty() {
            let message = format!("{text:?} is not a label expression: key=value or key!=value is");
            return Err(Failure::new(Code::BadRequest, message));
        }
        Ok(Self { key, value, equal })
    }

    fn is_true(&self, labels: &BTreeMap<String, String>) -> bool {
        (labels.get(self.key).is_some_and(|value| value == self.value)) == self.equal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selections() {
        let known: BTreeMap<_, _> = [("billing", "prod"), ("orders-eu", "prod"), ("orders-us", "staging")]
            .into_iter()
            .map(|(name, env)| (name.to_owned(), BTreeMap::from([("env".to_owned(), env.to_owned())])))
            .collect();
        let check = |databases: &[&str], labels: &[&str], all, need, expected: Result<&[&str], Code>| {
            let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
            let selection = Selection { databases: owned(databases), labels: owned(labels), all };
            let resolved = selection.resolve(&known, need);
            assert_eq!(resolved.as_deref().map_err(|failure| failure.code), expected, "{selection:?}");
        };
        let everything: &[&str] = &["billing", "orders-eu", "orders-us"];
        check(&[], &[], false, Need::Named, Err(Code::NoSelection));
        check(&[], &[], false, Need::Any, Ok(everything));
        check(&[], &[], true, Need::Named, Ok(everything));
        check(&["billing"], &[], true, Need::Named, Err(Code::BadRequest));
        check(&["orders-*"], &[], false, Need::Named, Ok(&["orders-eu", "orders-us"]));
        check(&["orders-*"], &["env=prod"], false, Need::Named, Ok(&["orders-eu"]));
        check(&[], &["env!=prod"], false, Need::Named, Ok(&["orders-us"]));
        check(&[], &["env=dev"], false, Need::Named, Err(Code::UnknownDatabase));
        check(&["billing", "bilings"], &[], false, Need::Named, Err(Code::UnknownDatabase));
        check(&["a[", "billing"], &[], false, Need::Named, Err(Code::BadRequest));
        check(&[], &["env"], false, Need::Named, Err(Code::BadRequest));
        check(&[], &["=prod"], false, Need::Named, Err(Code::BadRequest));
    }
}
