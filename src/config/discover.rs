//! Where databases are looked for: `[[discover]]`.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    config::{
        DatabaseSettings, Place, UrlSource,
        database::{Defaults, Fleet, Name},
        home,
        reader::{Layer, Section},
        setting::{Count, Flag, Form, Span, quoted},
    },
    redact::{SecretString, mask_text},
    selector::Pattern,
};

/// The keys of a discovery beside a database's settings.
pub(super) const KEYS: &[&str] = &[
    "id",
    "url",
    "url_env",
    "url_file",
    "query",
    "databases",
    "schemas",
    "exclude",
    "name",
    "labels",
    "every",
    "limit",
    "allow_empty",
    "timeout",
];

/// What a name may be made of.
const PLACEHOLDERS: [&str; 3] = ["{name}", "{dbname}", "{schema}"];

const EVERY: Duration = Duration::from_mins(1);
const TIMEOUT: Duration = Duration::from_secs(30);
const LIMIT: u32 = 5_000;

/// Where databases are looked for.
#[derive(Debug, Clone)]
pub struct DiscoverConfig {
    /// What it is called in messages, unique; `discover-1` where nothing is given.
    pub id: String,
    /// How to connect.
    pub url: SecretString,
    /// Where the URL was found.
    pub url_source: UrlSource,
    /// What is looked for.
    pub find: Find,
    /// Globs of databases or schemas that are not meant.
    pub exclude: Vec<String>,
    /// What a found database is called, with `{name}`, `{dbname}` and `{schema}` in it; `None`: what
    /// suits what is looked for.
    pub name: Option<String>,
    /// Labels of every database that is found.
    pub labels: BTreeMap<String, String>,
    /// How often it is looked.
    pub every: Duration,
    /// How many databases may be found.
    pub limit: u32,
    /// Whether nothing may be found where something was before.
    pub allow_empty: bool,
    /// How long a look may take.
    pub timeout: Duration,
    /// How the migrations of each are run.
    pub settings: DatabaseSettings,
    /// Where it is written.
    pub place: Place,
}

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Find {
    /// The rows of a query.
    Query(String),
    /// The server's databases, by globs.
    Databases(Vec<String>),
    /// The schemas of the URL's database, by globs.
    Schemas(Vec<String>),
}

/// A query, which may have several lines.
struct Query;

impl Form for Query {
    type Value = String;
    const TYPES: &'static [&'static str] = &["string"];
    const EXPECTED: &'static str = "a query such as \"select dbname, schema from tenants\"";

    fn parse(text: &str) -> Result<String, String> {
        let query = text.trim().trim_end_matches(';').trim_end();
        let fits = !query.is_empty() && !query.contains('\0');
        if fits { Ok(query.to_owned()) } else { Err(Self::unlike(text)) }
    }

    fn literal(value: &String) -> String {
        quoted(value)
    }
}

/// A glob.
struct Glob;

impl Form for Glob {
    type Value = String;
    const TYPES: &'static [&'static str] = &["string"];
    const EXPECTED: &'static str = "a name or a glob such as \"tenant_*\"";

    fn parse(text: &str) -> Result<String, String> {
        if text.is_empty() {
            return Err(Self::unlike(text));
        }
        let read = Pattern::parse(text);
        read.map(|_| text.to_owned()).map_err(|wrong| format!("{text:?} is not a glob: {wrong}"))
    }

    fn literal(value: &String) -> String {
        quoted(value)
    }
}

/// What a found database is called.
struct Template;

impl Form for Template {
    type Value = String;
    const TYPES: &'static [&'static str] = &["string"];
    const EXPECTED: &'static str =
        "a name of letters, digits, `_`, `.` and `-`, with {name}, {dbname} or {schema} in it";

    fn parse(text: &str) -> Result<String, String> {
        let plain = PLACEHOLDERS.iter().fold(text.to_owned(), |text, known| text.replace(known, "_"));
        let has_one = PLACEHOLDERS.iter().any(|known| text.contains(known));
        if has_one && Name::parse(&plain).is_ok() { Ok(text.to_owned()) } else { Err(Self::unlike(text)) }
    }

    fn literal(value: &String) -> String {
        quoted(value)
    }
}

/// Reads one `[[discover]]`.
pub(super) fn read<'a>(
    fleet: &mut Fleet<'_, 'a>,
    mut section: Section<'a>,
    defaults: &Defaults,
) -> Option<DiscoverConfig> {
    let number = fleet.found.ids.len() + 1;
    section.label = format!("discover #{number}: ");
    let given = fleet.reader.setting::<Name>(&[Layer::File(&section)], "id");
    let id = given.unwrap_or_else(|| format!("discover-{number}"));
    section.label = format!("discover {id:?}: ");
    if !fleet.found.ids.insert(id.clone()) {
        let message = format!("discover {id:?}: another one has this id; ids are unique");
        fleet.reader.complain(&section.span, message);
    }
    fleet.reader.only(&section, &[KEYS, DatabaseSettings::KEYS].concat(), home);
    let find = find(fleet, &section);
    let exclude = fleet.reader.list::<Glob>(&section, "exclude", "[\"tenant_test_*\"]");
    let layers = [Layer::File(&section)];
    let name = name(fleet, &section, find.as_ref());
    let every = fleet.reader.setting::<Span<1>>(&layers, "every").unwrap_or(EVERY);
    let limit = fleet.reader.setting::<Count<1>>(&layers, "limit").unwrap_or(LIMIT);
    let allow_empty = fleet.reader.setting::<Flag>(&layers, "allow_empty").unwrap_or_default();
    let timeout = fleet.reader.setting::<Span<1>>(&layers, "timeout").unwrap_or(TIMEOUT);
    let settings = fleet.settings(&layers, &defaults.settings);
    let labels = fleet.labels(&section, &defaults.labels);
    let place = fleet.reader.place(&section.span);
    let (url, url_source) = fleet.url(&section)?;
    let find = find?;
    Some(DiscoverConfig {
        id,
        url,
        url_source,
        find,
        exclude,
        name,
        labels,
        every,
        limit,
        allow_empty,
        timeout,
        settings,
        place,
    })
}

/// What is looked for, from the one key that says so.
fn find<'a>(fleet: &mut Fleet<'_, 'a>, section: &Section<'a>) -> Option<Find> {
    let given: Vec<_> =
        ["query", "databases", "schemas"].into_iter().filter(|key| section.get(key).is_some()).collect();
    let label = section.label.clone();
    let place_of = |key: &str| section.get(key).map_or(section.span.clone(), toml::Spanned::span);
    match given.as_slice() {
        ["query"] => {
            if section.get("exclude").is_some() {
                let message =
                    format!("{label}exclude goes with databases or schemas: a query leaves out by itself");
                fleet.reader.complain(&place_of("exclude"), message);
            }
            fleet.reader.setting::<Query>(&[Layer::File(section)], "query").map(Find::Query)
        }
        [key] => {
            let globs = fleet.reader.list::<Glob>(section, key, "[\"tenant_*\"]");
            let written = section.get(key).and_then(|value| value.get_ref().as_array());
            if written.is_some_and(|written| written.is_empty()) {
                let message = format!("{label}{key}: at least one name or glob is needed");
                fleet.reader.complain(&place_of(key), message);
            }
            Some(if *key == "databases" { Find::Databases(globs) } else { Find::Schemas(globs) })
        }
        [] => {
            let message = format!("{label}what to look for is missing: give query, databases or schemas");
            fleet.reader.complain(&section.span, message);
            None
        }
        [first, second, ..] => {
            let message = format!("{label}{first} and {second} are both given; keep one");
            fleet.reader.complain(&place_of(second), message);
            None
        }
    }
}

/// The template of the names. One that would give all the same name is refused.
fn name<'a>(fleet: &mut Fleet<'_, 'a>, section: &Section<'a>, find: Option<&Find>) -> Option<String> {
    let name = fleet.reader.setting::<Template>(&[Layer::File(section)], "name")?;
    let needed = match find? {
        Find::Query(_) => return Some(name),
        Find::Databases(_) => "{dbname}",
        Find::Schemas(_) => "{schema}",
    };
    let wrong = if !name.contains(needed) {
        format!("every database would have this name; it needs {needed}")
    } else if name.contains("{name}") {
        "{name} is a column of a query".to_owned()
    } else {
        return Some(name);
    };
    let span = section.get("name").map_or(section.span.clone(), toml::Spanned::span);
    fleet.reader.complain(&span, format!("{}name: {wrong}", section.label));
    None
}

/// One discovery as TOML, but for its URL and its settings.
pub(super) fn lines(discovery: &DiscoverConfig) -> Vec<String> {
    let list = |texts: &[String]| {
        let texts: Vec<_> = texts.iter().map(|text| quoted(text)).collect();
        format!("[{}]", texts.join(", "))
    };
    let mut lines = vec![format!("id = {}", quoted(&discovery.id))];
    lines.push(match &discovery.find {
        Find::Query(query) => format!("query = {}", quoted(&mask_text(query))),
        Find::Databases(globs) => format!("databases = {}", list(globs)),
        Find::Schemas(globs) => format!("schemas = {}", list(globs)),
    });
    if !discovery.exclude.is_empty() {
        lines.push(format!("exclude = {}", list(&discovery.exclude)));
    }
    lines.extend(discovery.name.iter().map(|name| format!("name = {}", quoted(name))));
    lines.push(format!("every = {}", Span::<1>::literal(&discovery.every)));
    lines.push(format!("limit = {}", discovery.limit));
    lines.push(format!("allow_empty = {}", discovery.allow_empty));
    lines.push(format!("timeout = {}", Span::<1>::literal(&discovery.timeout)));
    lines
}
