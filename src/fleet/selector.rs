//! Which databases a request means: names and globs, selectors, or all.

use std::collections::BTreeSet;

use crate::{
    migration::{Code, Failure},
    redact::mask_text,
    selector::{BUILT_IN, Facts, Pattern, Selector, SelectorError},
};

/// How many names a refusal lists: a fleet may have thousands.
const MOST_NAMES: usize = 20;

/// The most names and selectors of one request: each is compared with each database.
const MOST_PATTERNS: usize = 10_000;

/// What a request says of its databases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Names or globs; one must match. Empty: every name.
    pub databases: Vec<String>,
    /// Selectors, such as `env=prod,name~orders-*`; all must match.
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
    /// The names that are meant, of `known` databases, in their order.
    pub fn resolve<'a>(&self, known: &[Facts<'a>], need: Need) -> Result<Vec<&'a str>, Failure> {
        if known.is_empty() {
            return Err(Failure::new(Code::UnknownDatabase, "The daemon knows no database"));
        }
        let patterns = self.databases.len() + self.labels.len();
        if patterns > MOST_PATTERNS {
            let message =
                format!("{patterns} names and selectors are too many: {MOST_PATTERNS} are the most");
            return Err(Failure::new(Code::BadRequest, message));
        }
        let is_empty = patterns == 0;
        if self.all && !is_empty {
            return Err(Failure::new(Code::BadRequest, "--all goes with neither --database nor --selector"));
        }
        if is_empty && !self.all && need == Need::Named && known.len() > 1 {
            let message = format!("Which of the {} databases is meant?", known.len());
            return Err(Failure::new(Code::NoSelection, message).details(names(known)));
        }
        let globs = self.globs(known)?;
        let selectors = self.labels.iter().map(|text| Selector::parse(text)).collect::<Result<Vec<_>, _>>();
        let selectors = selectors.map_err(|error| malformed(&error))?;
        let chosen: Vec<_> = known
            .iter()
            .filter(|facts| globs.is_empty() || globs.iter().any(|glob| glob.matches(facts.name)))
            .filter(|facts| selectors.iter().all(|selector| selector.matches(facts)))
            .map(|facts| facts.name)
            .collect();
        if chosen.is_empty() && !is_empty {
            let failure = Failure::new(Code::UnknownDatabase, "The selection matches no database");
            let unknown = unknown_keys(&selectors, known);
            return Err(failure.details(if unknown.is_empty() { names(known) } else { unknown }));
        }
        Ok(chosen)
    }

    /// Each pattern must match something: a misspelt name among right ones is an error too.
    fn globs(&self, known: &[Facts<'_>]) -> Result<Vec<Pattern>, Failure> {
        let matcher = |text: &String| {
            let pattern = Pattern::parse(text).map_err(|wrong| {
                Failure::new(Code::BadRequest, format!("{text:?} is not a name or a glob: {wrong}"))
            })?;
            if known.iter().any(|facts| pattern.matches(facts.name)) {
                return Ok(pattern);
            }
            Err(Failure::new(Code::UnknownDatabase, format!("No database {}", mask_text(text)))
                .details(names(known)))
        };
        self.databases.iter().map(matcher).collect()
    }
}

/// A selector that cannot be read.
fn malformed(error: &SelectorError) -> Failure {
    let message = format!("The selector is malformed: {}", error.message);
    Failure::new(Code::BadSelector, message).details(error.shown().into())
}

/// The names that there are, or the first of them.
fn names(known: &[Facts<'_>]) -> Vec<String> {
    let mut names: Vec<_> = known.iter().take(MOST_NAMES).map(|facts| facts.name.to_owned()).collect();
    if known.len() > MOST_NAMES {
        names.push(format!("and {} more", known.len() - MOST_NAMES));
    }
    names
}

/// What is asked for and no database has, with what there is.
fn unknown_keys(selectors: &[Selector], known: &[Facts<'_>]) -> Vec<String> {
    let labels: BTreeSet<&str> =
        known.iter().flat_map(|facts| facts.labels.keys().map(String::as_str)).chain(BUILT_IN).collect();
    let asked = selectors.iter().flat_map(Selector::keys);
    let unknown: BTreeSet<&str> = asked.filter(|key| !labels.contains(key)).collect();
    if unknown.is_empty() {
        return Vec::new();
    }
    let list = |keys: &BTreeSet<&str>| {
        let shown: Vec<_> = keys.iter().take(MOST_NAMES).copied().collect();
        shown.join(", ")
    };
    vec![format!("no database has a label {}; there are {}", list(&unknown), list(&labels))]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn selections() {
        let labels = |env: &str| BTreeMap::from([("env".to_owned(), env.to_owned())]);
        let (prod, staging) = (labels("prod"), labels("staging"));
        let known: Vec<_> = [("billing", &prod), ("orders-eu", &prod), ("orders-us", &staging)]
            .into_iter()
            .map(|(name, labels)| Facts { name, server: "h:5432", schema: "public", dbname: name, labels })
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
        check(&[], &["env=prod,name~orders-*"], false, Need::Named, Ok(&["orders-eu"]));
        check(&[], &["env=prod", "dbname=billing"], false, Need::Named, Ok(&["billing"]));
        check(&[], &["env=dev"], false, Need::Named, Err(Code::UnknownDatabase));
        check(&["billing", "bilings"], &[], false, Need::Named, Err(Code::UnknownDatabase));
        check(&["a[", "billing"], &[], false, Need::Named, Err(Code::BadRequest));
        let most = vec!["billing"; MOST_PATTERNS];
        check(&most, &[], false, Need::Any, Ok(&["billing"]));
        check(&most, &["env=prod"], false, Need::Any, Err(Code::BadRequest));
        check(&[], &["env"], false, Need::Named, Err(Code::BadSelector));
        check(&[], &["env=="], false, Need::Any, Err(Code::BadSelector));
        check(&[], &["=prod"], false, Need::Named, Err(Code::BadSelector));
        let details = |labels: &str| {
            let selection = Selection { labels: vec![labels.to_owned()], ..Selection::default() };
            selection.resolve(&known, Need::Any).expect_err("it matches nothing").details
        };
        let expected = "no database has a label evn; there are dbname, env, name, schema, server";
        assert_eq!(details("evn=prod"), [expected]);
        assert_eq!(details("env=dev"), everything);
        assert_eq!(details("env=="), ["env==", "    ^"]);
    }
}
