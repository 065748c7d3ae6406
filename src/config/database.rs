//! The fleet: `[[database]]` over `[defaults]`, with each database's URL and labels.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

use toml::{Spanned, de::DeValue};

use crate::{
    config::{
        DatabaseConfig, DatabaseSettings, UrlSource, home,
        reader::{Layer, Reader, Section, with_article},
        secret_file,
        setting::{Form, Location},
    },
    redact::{ExposeSecret as _, SecretString},
};

/// The keys of a database beside its settings.
pub(super) const OWN_KEYS: &[&str] = &["name", "url", "url_env", "url_file", "labels"];

/// Reads the databases.
pub(super) struct Fleet<'r, 'a> {
    reader: &'r mut Reader<'a>,
    environment: &'r BTreeMap<String, String>,
    base: &'r Path,
    /// What is allowed, but probably not meant.
    pub(super) warnings: Vec<String>,
}

/// The name of a database, an audit or a sink.
pub(super) struct Name;

impl Form for Name {
    type Value = String;
    const TYPES: &'static [&'static str] = &["string"];
    const EXPECTED: &'static str = "a name of letters, digits, `_`, `.` and `-`";

    fn parse(text: &str) -> Result<String, String> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        if !text.is_empty() && text.bytes().all(fits) { Ok(text.into()) } else { Err(Self::unlike(text)) }
    }

    fn literal(value: &String) -> String {
        super::setting::quoted(value)
    }
}

/// A label's value.
struct LabelValue;

impl Form for LabelValue {
    type Value = String;
    const TYPES: &'static [&'static str] = &["string"];
    const EXPECTED: &'static str = "a text without commas and control characters";

    fn parse(text: &str) -> Result<String, String> {
        let fits = |c: char| c != ',' && !c.is_control();
        if text.chars().all(fits) { Ok(text.into()) } else { Err(Self::unlike(text)) }
    }

    fn literal(value: &String) -> String {
        super::setting::quoted(value)
    }
}

/// How to connect. Its complaints never hold the text.
struct Url;

impl Form for Url {
    type Value = String;
    const TYPES: &'static [&'static str] = &["string"];
    const EXPECTED: &'static str =
        "postgres://USER@HOST:PORT/DATABASE, or key=value pairs as libpq reads them";

    fn parse(text: &str) -> Result<String, String> {
        let text = text.trim();
        let is_url = text.starts_with("postgres://") || text.starts_with("postgresql://");
        let is_pairs = text.contains('=') && !text.contains("://");
        if is_url || is_pairs { Ok(text.to_owned()) } else { Err(format!("expected {}", Self::EXPECTED)) }
    }

    fn literal(value: &String) -> String {
        super::setting::quoted(value)
    }
}

impl<'r, 'a> Fleet<'r, 'a> {
    /// Relative paths start at `base`.
    pub(super) fn new(
        reader: &'r mut Reader<'a>,
        environment: &'r BTreeMap<String, String>,
        base: &'r Path,
    ) -> Self {
        Self { reader, environment, base, warnings: Vec::new() }
    }

    /// Reads `[defaults]` and every `[[database]]`, going on after each that is wrong.
    pub(super) fn read(&mut self, root: &Section<'a>) -> Vec<DatabaseConfig> {
        let section = self.reader.section(root, "defaults");
        self.reader.only(&section, &[DatabaseSettings::KEYS, &["labels"]].concat(), home);
        let layers = [Layer::Environment("defaults"), Layer::File(&section)];
        let defaults = DatabaseSettings::read(self.reader, &layers, &DatabaseSettings::default());
        let labels = self.labels(&section, &BTreeMap::new());

        let mut databases = Vec::new();
        let mut seen = BTreeMap::new();
        for (index, section) in self.reader.sections(root, "database").into_iter().enumerate() {
            databases.extend(self.database(section, index + 1, &defaults, &labels, &mut seen));
        }
        databases
    }

    fn database(
        &mut self,
        mut section: Section<'a>,
        number: usize,
        defaults: &DatabaseSettings,
        labels: &BTreeMap<String, String>,
        seen: &mut BTreeMap<String, usize>,
    ) -> Option<DatabaseConfig> {
        section.label = format!("database #{number}: ");
        let name = self.reader.unique_name::<Name>(&section, "database", seen, number);
        if let Some(name) = &name {
            section.label = format!("database {name:?}: ");
        }
        self.reader.only(&section, &[OWN_KEYS, DatabaseSettings::KEYS].concat(), home);
        let mut settings = DatabaseSettings::read(self.reader, &[Layer::File(&section)], defaults);
        settings.migrations = self.base.join(settings.migrations);
        let labels = self.labels(&section, labels);
        let (url, url_source) = self.url(&section)?;
        Some(DatabaseConfig { name: name?, url, url_source, labels, settings })
    }

    /// The labels of a section, over those `inherited`.
    fn labels(
        &mut self,
        section: &Section<'_>,
        inherited: &BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        let mut labels = inherited.clone();
        let Some(value) = section.get("labels") else { return labels };
        let label = &section.label;
        let Some(table) = value.get_ref().as_table() else {
            let found = with_article(value.get_ref().type_str());
            let message =
                format!("{label}labels: expected a table such as {{ env = \"prod\" }}, found {found}");
            self.reader.complain(&value.span(), message);
            return labels;
        };
        for (key, value) in table {
            if let Err(wrong) = Name::parse(key.get_ref()) {
                self.reader.complain(&key.span(), format!("{label}labels: {wrong}"));
            }
            let label = format!("{label}labels.{}: ", key.get_ref());
            if let Some(text) = self.reader.value_of::<LabelValue>(value, &label) {
                labels.insert(key.get_ref().to_string(), text);
            }
        }
        labels
    }

    /// The URL, from the one key that says where it is.
    fn url(&mut self, section: &Section<'_>) -> Option<(SecretString, UrlSource)> {
        let given: Vec<_> = ["url", "url_env", "url_file"]
            .into_iter()
            .filter_map(|key| section.get(key).map(|value| (key, value)))
            .collect();
        let label = &section.label;
        match given.as_slice() {
            [(key, value)] => {
                let label = format!("{label}{key}: ");
                match *key {
                    "url" => {
                        let url = self.reader.value_of::<Url>(value, &label)?;
                        Some((url.into(), UrlSource::Inline))
                    }
                    "url_env" => self.url_from_variable(value, &label),
                    _ => self.url_from_file(value, &label),
                }
            }
            [] => {
                let message = format!("{label}url is missing: give url, url_env or url_file");
                self.reader.complain(&section.span, message);
                None
            }
            [first, second, ..] => {
                let message = format!("{label}{} and {} are both given; keep one", first.0, second.0);
                self.reader.complain(&second.1.span(), message);
                None
            }
        }
    }

    fn url_from_variable(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        label: &str,
    ) -> Option<(SecretString, UrlSource)> {
        let name = self.reader.value_of::<Name>(value, label)?;
        let Some(text) = self.environment.get(&name).filter(|text| !text.trim().is_empty()) else {
            let message = format!("{label}the environment variable {name} is not set or empty");
            self.reader.complain(&value.span(), message);
            return None;
        };
        let url = self.checked_url(text, &value.span(), &format!("{label}{name}: "))?;
        Some((url, UrlSource::Variable(name)))
    }

    fn url_from_file(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        label: &str,
    ) -> Option<(SecretString, UrlSource)> {
        let path: PathBuf = self.base.join(self.reader.value_of::<Location>(value, label)?);
        let shown = path.display();
        match secret_file::read(&path, "a connection URL") {
            Ok((text, warning)) => {
                let url = self.checked_url(&text, &value.span(), &format!("{label}{shown}: "))?;
                self.warnings.extend(warning.map(|warning| format!("{label}{warning}")));
                Some((url, UrlSource::File(path)))
            }
            Err(error) => {
                self.reader.complain(&value.span(), format!("{label}{error}"));
                None
            }
        }
    }

    fn checked_url(&mut self, text: &str, span: &Range<usize>, label: &str) -> Option<SecretString> {
        match Url::parse(text) {
            Ok(url) => Some(url.into()),
            Err(wrong) => {
                self.reader.complain(span, format!("{label}{wrong}"));
                None
            }
        }
    }
}

/// Whether a URL or a list of pairs holds a password.
pub(super) fn has_password(url: &SecretString) -> bool {
    let url = url.expose_secret();
    let authority = url.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@'));
    authority.is_some_and(|(user, _)| user.contains(':')) || url.contains("password=")
}
