//! The scheduled audits: `[[audit]]`. Whether an expression, a time zone and a selection mean
//! something is for those to say who read them.

use crate::config::{
    database::Name,
    home,
    reader::{Layer, Reader, Section, Seen},
    setting::{Form, quoted},
};

/// One scheduled audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditConfig {
    /// Its name, unique among the audits, of `[a-zA-Z0-9_.-]`.
    pub name: String,
    /// When it runs: a cron expression.
    pub schedule: String,
    /// The IANA time zone in which the expression is read.
    pub time_zone: String,
    /// Names or globs of databases; one must match. Empty: every name.
    pub databases: Vec<String>,
    /// A selector, as `--selector` takes it.
    pub selector: Option<String>,
}

/// The keys of an audit.
pub(super) const KEYS: &[&str] = &["name", "schedule", "time_zone", "databases", "selector"];

/// A text of one line.
struct Words;

impl Form for Words {
    type Value = String;
    const TYPES: &'static [&'static str] = &["string"];
    const EXPECTED: &'static str = "a text of one line";

    fn parse(text: &str) -> Result<String, String> {
        let text = text.trim();
        let fits = !text.is_empty() && !text.chars().any(char::is_control);
        if fits { Ok(text.to_owned()) } else { Err(Self::unlike(text)) }
    }

    fn literal(value: &String) -> String {
        quoted(value)
    }
}

/// Reads every `[[audit]]`, going on after each that is wrong.
pub(super) fn read<'a>(reader: &mut Reader<'a>, root: &Section<'a>) -> Vec<AuditConfig> {
    let sections = reader.sections(root, "audit");
    let mut seen = Seen::new();
    let audits = sections.into_iter().enumerate();
    audits.filter_map(|(index, section)| audit(reader, section, index + 1, &mut seen)).collect()
}

fn audit<'a>(
    reader: &mut Reader<'a>,
    mut section: Section<'a>,
    number: usize,
    seen: &mut Seen,
) -> Option<AuditConfig> {
    section.label = format!("audit #{number}: ");
    let name = reader.unique_name::<Name>(&section, "audit", seen, number);
    if let Some(name) = &name {
        section.label = format!("audit {name:?}: ");
    }
    reader.only(&section, KEYS, home);
    if section.get("schedule").is_none() {
        let message = format!("{}schedule is missing: give a cron expression", section.label);
        reader.complain(&section.span, message);
    }
    let mut words = |key| reader.setting::<Words>(&[Layer::File(&section)], key);
    let (schedule, time_zone) = (words("schedule"), words("time_zone"));
    let selector = reader.selector(&section, "selector");
    let databases = reader.list::<Words>(&section, "databases", "[\"orders-*\"]");
    Some(AuditConfig {
        name: name?,
        schedule: schedule?,
        time_zone: time_zone.unwrap_or_else(|| "UTC".to_owned()),
        databases,
        selector,
    })
}

/// One audit as TOML.
pub(super) fn lines(audit: &AuditConfig) -> Vec<String> {
    let databases: Vec<_> = audit.databases.iter().map(|name| quoted(name)).collect();
    let mut lines = vec![
        format!("name = {}", quoted(&audit.name)),
        format!("schedule = {}", quoted(&audit.schedule)),
        format!("time_zone = {}", quoted(&audit.time_zone)),
        format!("databases = [{}]", databases.join(", ")),
    ];
    // An empty selector is no selector: it is not written.
    if let Some(selector) = &audit.selector {
        lines.push(format!("selector = {}", quoted(selector)));
    }
    lines
}
