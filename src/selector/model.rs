//! Selectors beside a simple evaluator: what is written is what is read, and what is read means what a
//! person would say of it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Facts, Pattern, Selector, Wanted};

/// A part of a glob, and what it stands for.
#[derive(Debug, Clone)]
enum Part {
    Text(String),
    Any,
    One,
    Choice(Vec<String>),
}

/// What a value has to be.
#[derive(Debug, Clone)]
enum Value {
    Text(String),
    Glob(Vec<Part>),
}

/// An expression as somebody means it, and the spaces with which they write it.
#[derive(Debug, Clone)]
struct Meant {
    key: &'static str,
    is_negated: bool,
    value: Value,
    spaces: [&'static str; 4],
}

impl Part {
    fn written(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Any => "*".to_owned(),
            Self::One => "?".to_owned(),
            Self::Choice(choices) => format!("{{{}}}", choices.join(",")),
        }
    }
}

impl Value {
    fn written(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Glob(parts) => parts.iter().map(Part::written).collect(),
        }
    }
}

impl Meant {
    fn written(&self) -> String {
        let sign = match (&self.value, self.is_negated) {
            (Value::Text(_), false) => "=",
            (Value::Text(_), true) => "!=",
            (Value::Glob(_), false) => "~",
            (Value::Glob(_), true) => "!~",
        };
        let [a, b, c, d] = self.spaces;
        format!("{a}{}{b}{sign}{c}{}{d}", self.key, self.value.written())
    }

    fn holds(&self, facts: &BTreeMap<&str, String>) -> bool {
        let is_so = facts.get(self.key).is_some_and(|found| match &self.value {
            Value::Text(text) => text == found,
            Value::Glob(parts) => fits(parts, found),
        });
        is_so != self.is_negated
    }
}

/// Whether the parts, one after the other, make up the text.
fn fits(parts: &[Part], text: &str) -> bool {
    let Some((part, parts)) = parts.split_first() else { return text.is_empty() };
    match part {
        Part::Text(head) => text.strip_prefix(head.as_str()).is_some_and(|rest| fits(parts, rest)),
        Part::One => (1..=text.len().min(1)).any(|at| fits(parts, &text[at..])),
        Part::Any => (0..=text.len()).any(|at| fits(parts, &text[at..])),
        Part::Choice(choices) => {
            choices.iter().any(|head| text.strip_prefix(head.as_str()).is_some_and(|rest| fits(parts, rest)))
        }
    }
}

const KEYS: [&str; 6] = ["name", "server", "schema", "dbname", "env", "tier"];

fn value() -> impl Strategy<Value = Value> {
    let part = prop_oneof![
        3 => "[ab.-]{1,2}".prop_map(Part::Text),
        1 => Just(Part::Any),
        1 => Just(Part::One),
        1 => prop::collection::vec("[ab]{1,2}", 1..3).prop_map(Part::Choice),
    ];
    prop_oneof![
        "[ab.-]{1,3}( [ab=~{}]{1,2})?".prop_map(Value::Text),
        prop::collection::vec(part, 1..4).prop_map(Value::Glob)
    ]
}

fn meant() -> impl Strategy<Value = Meant> {
    let space = || prop::sample::select(vec!["", " ", "\t", "  "]);
    let spaces = [space(), space(), space(), space()];
    (prop::sample::select(&KEYS[..]), any::<bool>(), value(), spaces)
        .prop_map(|(key, is_negated, value, spaces)| Meant { key, is_negated, value, spaces })
}

proptest! {
    #[test]
    fn a_selector_means_what_is_written(
        meant in prop::collection::vec(meant(), 1..4),
        found in prop::array::uniform6("[ab.-]{0,3}"),
        has_labels in any::<[bool; 2]>(),
    ) {
        let written: Vec<_> = meant.iter().map(Meant::written).collect();
        let selector = Selector::parse(&written.join(","));
        prop_assert!(selector.is_ok(), "{:?}", selector);
        let selector = selector.expect("it is sound");
        for (meant, read) in meant.iter().zip(&selector.0) {
            prop_assert_eq!((meant.key, meant.is_negated), (read.key.as_str(), read.is_negated));
            match (&meant.value, &read.wanted) {
                (Value::Text(meant), Wanted::Text(read)) => prop_assert_eq!(meant, read),
                (Value::Glob(_), Wanted::Glob(_)) => {}
                other => prop_assert!(false, "{:?}", other),
            }
        }
        prop_assert_eq!(selector.0.len(), meant.len());

        let mut facts: BTreeMap<_, _> = KEYS.into_iter().zip(found.clone()).collect();
        for (label, has) in ["env", "tier"].into_iter().zip(has_labels) {
            facts.retain(|key, _| *key != label || has);
        }
        let labels: BTreeMap<_, _> =
            facts.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let [name, server, schema, dbname, ..] = &found;
        let shown = Facts { name, server, schema, dbname, labels: &labels };
        prop_assert_eq!(selector.matches(&shown), meant.iter().all(|meant| meant.holds(&facts)), "{:?}", written);
    }

    #[test]
    fn any_text_is_read_or_refused_at_a_place(text in "(\\PC|[=!~,{}\\[\\]*?\\\\ \t\nae]){0,24}") {
        if let Err(error) = Selector::parse(&text) {
            prop_assert!(text.is_char_boundary(error.at), "{:?}", error);
            prop_assert!(!error.message.is_empty() && !error.to_string().is_empty());
        }
    }

    #[test]
    fn any_glob_is_read_or_refused(text in "[{}\\[\\]*?,!^\\\\a-c-]{0,400}", other in "[a-c-]{0,8}") {
        if let Ok(pattern) = Pattern::parse(&text) {
            pattern.matches(&other);
        }
    }
}
