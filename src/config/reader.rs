//! Reads settings from their layers: flags over environment over file. What is wrong is collected,
//! so that one look at the messages is enough to put everything right.

use std::{collections::BTreeMap, ops::Range, path::Path};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{
    config::{
        Overrides,
        problem::{Place, Problem, did_you_mean, may_hold_secret},
        setting::Form,
    },
    selector::Selector,
};

/// A table of the file, and how messages call it.
#[derive(Clone)]
pub(super) struct Section<'a> {
    /// What a message about one of its keys begins with: `[log] `, or `database "orders": `.
    pub(super) label: String,
    /// Where it stands, for what is missing in it.
    pub(super) span: Range<usize>,
    table: Option<&'a DeTable<'a>>,
}

/// A place where a setting may stand.
pub(super) enum Layer<'a> {
    /// The command line.
    Flags(&'static str),
    /// `NEXUS_SECTION_KEY`.
    Environment(&'static str),
    /// A table of the file.
    File(&'a Section<'a>),
}

/// Where a value was found.
enum Origin {
    Named(String),
    File(Range<usize>),
}

/// The names that are taken: by which of several tables of a file, and where that says so.
pub(super) type Seen = BTreeMap<String, (usize, Place)>;

/// Reads settings and collects what is wrong.
pub(super) struct Reader<'a> {
    file: Option<&'a Path>,
    text: &'a str,
    environment: &'a BTreeMap<String, String>,
    overrides: &'a Overrides,
    problems: Vec<(usize, Problem)>,
}

impl<'a> Section<'a> {
    /// A table that is found by its name, or one that is not there.
    pub(super) fn new(label: String, table: Option<(Range<usize>, &'a DeTable<'a>)>) -> Self {
        let span = table.as_ref().map_or(0..0, |(span, _)| span.clone());
        Self { label, span, table: table.map(|(_, table)| table) }
    }

    /// A key's value.
    pub(super) fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.entries().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    /// The keys and values.
    pub(super) fn entries(
        &self,
    ) -> impl Iterator<Item = (&'a Spanned<std::borrow::Cow<'a, str>>, &'a Spanned<DeValue<'a>>)> + use<'a>
    {
        self.table.into_iter().flatten()
    }
}

impl<'a> Reader<'a> {
    /// Reads the file's `text`.
    pub(super) fn new(
        file: Option<&'a Path>,
        text: &'a str,
        environment: &'a BTreeMap<String, String>,
        overrides: &'a Overrides,
    ) -> Self {
        Self { file, text, environment, overrides, problems: Vec::new() }
    }

    /// Notes what is wrong at a place of the file.
    pub(super) fn complain(&mut self, span: &Range<usize>, message: String) {
        let place = Some(self.place(span));
        self.problems.push((span.start, Problem { place, message }));
    }

    /// Everything that was wrong, in the file's order, the environment and the flags last.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|(start, _)| *start);
        self.problems.into_iter().map(|(_, problem)| problem).collect()
    }

    /// A setting's value in the strongest layer that has it; `None` also where it is wrong.
    pub(super) fn setting<F: Form>(&mut self, layers: &[Layer<'_>], key: &str) -> Option<F::Value> {
        for layer in layers {
            match layer {
                Layer::Flags(section) => {
                    if let Some((flag, text)) = self.overrides.get(section, key) {
                        return self.parsed::<F>(&text, Origin::Named(format!("{flag}: ")), "");
                    }
                }
                Layer::Environment(section) => {
                    let name = variable(section, key);
                    if let Some(text) = self.environment.get(&name).filter(|text| !text.is_empty()) {
                        return self.parsed::<F>(&text.clone(), Origin::Named(format!("{name}: ")), "");
                    }
                }
                Layer::File(section) => {
                    if let Some(value) = section.get(key) {
                        return self.value_of::<F>(value, &format!("{}{key}: ", section.label));
                    }
                }
            }
        }
        None
    }

    /// Notes what is wrong with a setting that is well-formed, where its value was found.
    pub(super) fn complain_of(&mut self, layers: &[Layer<'_>], key: &str, wrong: &str) {
        for layer in layers {
            let named = match layer {
                Layer::Flags(section) => self.overrides.get(section, key).map(|(flag, _)| flag.to_owned()),
                Layer::Environment(section) => Some(variable(section, key))
                    .filter(|name| self.environment.get(name).is_some_and(|text| !text.is_empty())),
                Layer::File(section) => {
                    if let Some(value) = section.get(key) {
                        return self.complain(&value.span(), format!("{}{key}: {wrong}", section.label));
                    }
                    None
                }
            };
            if let Some(name) = named {
                let problem = Problem { place: None, message: format!("{name}: {wrong}") };
                return self.problems.push((usize::MAX, problem));
            }
        }
    }

    /// A value of the file.
    pub(super) fn value_of<F: Form>(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        label: &str,
    ) -> Option<F::Value> {
        let kind = value.get_ref().type_str();
        if !F::TYPES.contains(&kind) {
            let text = self.text.get(value.span()).filter(|text| text.len() < 40 && !may_hold_secret(text));
            let shown =
                text.filter(|_| kind != "string").map(|text| format!(" ({text})")).unwrap_or_default();
            let message = format!("{label}expected {}, found {}{shown}", F::EXPECTED, with_article(kind));
            self.complain(&value.span(), message);
            return None;
        }
        let text = match value.get_ref() {
            DeValue::Integer(number) if number.radix() != 10 => {
                i64::from_str_radix(number.as_str(), number.radix()).unwrap_or(-1).to_string()
            }
            DeValue::Integer(number) => number.as_str().to_owned(),
            DeValue::Float(number) => number.as_str().to_owned(),
            DeValue::Boolean(flag) => flag.to_string(),
            other => other.as_str().unwrap_or_default().to_owned(),
        };
        self.parsed::<F>(&text, Origin::File(value.span()), label)
    }

    fn parsed<F: Form>(&mut self, text: &str, origin: Origin, label: &str) -> Option<F::Value> {
        match (F::parse(text), origin) {
            (Ok(value), _) => return Some(value),
            (Err(wrong), Origin::File(span)) => self.complain(&span, format!("{label}{wrong}")),
            (Err(wrong), Origin::Named(name)) => {
                self.problems.push((usize::MAX, Problem { place: None, message: format!("{name}{wrong}") }));
            }
        }
        None
    }

    /// The place of a range of bytes of the file.
    pub(super) fn place(&self, span: &Range<usize>) -> Place {
        Place::new(self.file, self.text, span)
    }

    /// A list of texts; an empty one where there is none. `example` is one.
    pub(super) fn list<F: Form>(&mut self, section: &Section<'_>, key: &str, example: &str) -> Vec<F::Value> {
        let label = format!("{}{key}: ", section.label);
        let Some(value) = section.get(key) else { return Vec::new() };
        let Some(items) = value.get_ref().as_array() else {
            let found = with_article(value.get_ref().type_str());
            self.complain(&value.span(), format!("{label}expected a list such as {example}, found {found}"));
            return Vec::new();
        };
        items.iter().filter_map(|item| self.value_of::<F>(item, &label)).collect()
    }

    /// A selector; what is wrong with it is pointed at.
    pub(super) fn selector(&mut self, section: &Section<'_>, key: &str) -> Option<String> {
        let value = section.get(key)?;
        let label = format!("{}{key}: ", section.label);
        let Some(text) = value.get_ref().as_str() else {
            let found = with_article(value.get_ref().type_str());
            let message = format!("{label}expected a text such as \"env=prod,name~orders-*\", found {found}");
            self.complain(&value.span(), message);
            return None;
        };
        match Selector::parse(text) {
            Ok(_) => Some(text.to_owned()),
            Err(error) => {
                let span = self.inside(value, error.at);
                self.complain(&span, format!("{label}{}", error.message));
                None
            }
        }
    }

    /// The place of a byte in a text of the file: exact where the text is written without escapes.
    fn inside(&self, value: &Spanned<DeValue<'_>>, at: usize) -> Range<usize> {
        let (span, text) = (value.span(), value.get_ref().as_str().unwrap_or_default());
        let written = self.text.get(span.clone()).unwrap_or_default();
        if written.get(1..1 + text.len()) == Some(text) && written.len() == text.len() + 2 {
            let start = span.start + 1 + at;
            start..start + 1
        } else {
            span
        }
    }

    /// A table by its name. It may be missing; it may not be something else.
    pub(super) fn section(&mut self, root: &Section<'a>, name: &str) -> Section<'a> {
        let label = format!("{}[{name}] ", root.label);
        match root.get(name).map(|value| (value.span(), value.get_ref())) {
            Some((span, DeValue::Table(table))) => Section::new(label, Some((span, table))),
            Some((span, other)) => {
                let found = with_article(other.type_str());
                self.complain(&span, format!("{label}must be a table, written as `[{name}]`; found {found}"));
                Section::new(label, None)
            }
            None => Section::new(label, None),
        }
    }

    /// The tables of `[[name]]`, an array of tables.
    pub(super) fn sections(&mut self, root: &Section<'a>, name: &str) -> Vec<Section<'a>> {
        let Some(value) = root.get(name) else { return Vec::new() };
        let table = |item: &'a Spanned<DeValue<'a>>| {
            Some(Section::new(format!("[[{name}]] "), Some((item.span(), item.get_ref().as_table()?))))
        };
        let sections = value.get_ref().as_array().and_then(|items| items.iter().map(table).collect());
        sections.unwrap_or_else(|| {
            let found = with_article(value.get_ref().type_str());
            let advice = format!("each {name} is a table of its own, written as `[[{name}]]`");
            self.complain(&value.span(), format!("[[{name}]] {advice}; found {found}"));
            Vec::new()
        })
    }

    /// The `name` of one of several tables, the `number`th; each has its own.
    pub(super) fn unique_name<F: Form<Value = String>>(
        &mut self,
        section: &Section<'_>,
        what: &str,
        seen: &mut Seen,
        number: usize,
    ) -> Option<String> {
        let Some(value) = section.get("name") else {
            self.complain(&section.span, format!("{}name is missing", section.label));
            return None;
        };
        let name = self.value_of::<F>(value, &format!("{}name: ", section.label))?;
        let place = self.place(&value.span());
        let this = place.file.clone();
        if let Some((number, first)) = seen.insert(name.clone(), (number, place)) {
            let first = if first.file == this { format!("#{number}") } else { first.to_string() };
            let message = format!("{what} {name:?}: {first} has this name already; names are unique");
            self.complain(&value.span(), message);
        }
        Some(name)
    }

    /// Refuses keys that mean nothing in this table. `elsewhere` says where a key would belong.
    pub(super) fn only(
        &mut self,
        section: &Section<'_>,
        known: &[&str],
        elsewhere: impl Fn(&str) -> Option<&'static str>,
    ) {
        for (key, _) in section.entries() {
            let name = key.get_ref().as_ref();
            if known.contains(&name) {
                continue;
            }
            let near = did_you_mean(name, known.iter().copied());
            let advice = if let Some(near) = near {
                format!("; did you mean `{near}`?")
            } else if let Some(place) = elsewhere(name) {
                format!("; it belongs in {place}")
            } else {
                format!("; known are {}", known.join(", "))
            };
            self.complain(&key.span(), format!("{}unknown key `{name}`{advice}", section.label));
            // What somebody calls `pass` may be anything.
            if near.is_none_or(|near| may_hold_secret(&format!("{near}=")))
                && let Some((_, Problem { place: Some(place), .. })) = self.problems.last_mut()
            {
                place.hide_value();
            }
        }
    }
}

/// A TOML type's name in a sentence.
pub(super) fn with_article(kind: &str) -> String {
    if kind.starts_with(['a', 'i']) { format!("an {kind}") } else { format!("a {kind}") }
}

/// The environment's name of a key.
pub(super) fn variable(section: &str, key: &str) -> String {
    format!("NEXUS_{section}_{key}").to_uppercase()
}

/// Variables that look like settings and are none.
pub(super) fn unknown_variables(
    environment: &BTreeMap<String, String>,
    known: &[String],
    used: &[String],
) -> Vec<String> {
    let prefixes = [
        "NEXUS_SERVER_",
        "NEXUS_ACCESS_",
        "NEXUS_LOG_",
        "NEXUS_LIMITS_",
        "NEXUS_WATCH_",
        "NEXUS_ALERTS_",
        "NEXUS_DEFAULTS_",
    ];
    let strange = environment.keys().filter(|name| {
        prefixes.iter().any(|prefix| name.starts_with(prefix))
            && !known.contains(name)
            && !used.contains(name)
    });
    let near = |name: &str| {
        let meant = known.iter().map(|known| (strsim::osa_distance(name, known), known)).min()?;
        (meant.0 <= 3).then(|| format!("; did you mean {}?", meant.1))
    };
    strange
        .map(|name| {
            format!("the environment variable {name} means nothing here{}", near(name).unwrap_or_default())
        })
        .collect()
}
