//! The fleet: `[[database]]` and `[[discover]]` over `[defaults]`, with URLs and labels.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::{Path, PathBuf},
};

use toml::{Spanned, de::DeValue};

use crate::{
    config::{
        DatabaseConfig, DatabaseSettings, DiscoverConfig, discover, home,
        reader::{Layer, Reader, Section, Seen, with_article},
        secret_file,
        setting::{Form, Location, is_shown},
    },
    redact::{ExposeSecret as _, SecretString},
    selector::{BUILT_IN, is_label_value, is_name},
};

/// Where a database's URL was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UrlSource {
    /// In the configuration file itself.
    Inline,
    /// In an environment variable.
    Variable(String),
    /// In a file of its own.
    File(PathBuf),
}

impl UrlSource {
    pub(super) fn variable(&self) -> Option<String> {
        match self {
            Self::Variable(name) => Some(name.clone()),
            Self::Inline | Self::File(_) => None,
        }
    }

    pub(super) fn file(&self) -> Option<PathBuf> {
        match self {
            Self::File(path) => Some(path.clone()),
            Self::Inline | Self::Variable(_) => None,
        }
    }
}

/// The keys of a database beside its settings.
pub(super) const OWN_KEYS: &[&str] = &["name", "url", "url_env", "url_file", "labels"];

/// Reads the databases of one file.
pub(super) struct Fleet<'r, 'a> {
    pub(super) reader: &'r mut Reader<'a>,
    environment: &'r BTreeMap<String, String>,
    base: &'r Path,
    pub(super) found: &'r mut Found,
}

/// The name of a database, an audit or a sink.
pub(super) struct Name;

impl Form for Name {
    type Value = String;
    const TYPES: &'static [&'static str] = &["string"];
    const EXPECTED: &'static str = "a name of letters, digits, `_`, `.` and `-`";

    fn parse(text: &str) -> Result<String, String> {
        if is_name(text) { Ok(text.into()) } else { Err(Self::unlike(text)) }
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
        if is_label_value(text) && is_shown(text) { Ok(text.into()) } else { Err(Self::unlike(text)) }
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

/// What holds for every database of a file that does not say otherwise.
#[derive(Debug, Clone)]
pub(super) struct Defaults {
    /// Settings, whose `migrations` is resolved.
    pub(super) settings: DatabaseSettings,
    /// Labels.
    pub(super) labels: BTreeMap<String, String>,
}

impl Defaults {
    /// What holds where nothing is said at all; relative paths start at `base`.
    pub(super) fn of(base: &Path) -> Self {
        let built_in = DatabaseSettings::default();
        let settings = DatabaseSettings { migrations: base.join(&built_in.migrations), ..built_in };
        Self { settings, labels: BTreeMap::new() }
    }
}

/// All that the files say of the fleet.
#[derive(Default)]
pub(super) struct Found {
    pub(super) databases: Vec<DatabaseConfig>,
    pub(super) discoveries: Vec<DiscoverConfig>,
    /// What is allowed, but probably not meant.
    pub(super) warnings: Vec<String>,
    /// The names of databases that are taken.
    pub(super) names: Seen,
    /// The ids of discoveries that are taken.
    pub(super) ids: BTreeSet<String>,
}

impl<'r, 'a> Fleet<'r, 'a> {
    /// Reads one file; relative paths start at `base`. What is found is added to `found`.
    pub(super) fn new(
        reader: &'r mut Reader<'a>,
        environment: &'r BTreeMap<String, String>,
        base: &'r Path,
        found: &'r mut Found,
    ) -> Self {
        Self { reader, environment, base, found }
    }

    /// Reads `[defaults]` over those that are `inherited`, and every `[[database]]` and
    /// `[[discover]]`, going on after each that is wrong. Returns the defaults.
    pub(super) fn read(&mut self, root: &Section<'a>, inherited: &Defaults) -> Defaults {
        let section = self.reader.section(root, "defaults");
        self.reader.only(&section, &[DatabaseSettings::KEYS, &["labels"]].concat(), home);
        let layers = [Layer::Environment("defaults"), Layer::File(&section)];
        let settings = self.settings(&layers, &inherited.settings);
        let defaults = Defaults { settings, labels: self.labels(&section, &inherited.labels) };
        for (index, section) in self.reader.sections(root, "database").into_iter().enumerate() {
            let read = self.database(section, index + 1, &defaults);
            self.found.databases.extend(read);
        }
        for section in self.reader.sections(root, "discover") {
            let read = discover::read(self, section, &defaults);
            self.found.discoveries.extend(read);
        }
        defaults
    }

    /// Settings over a fallback whose `migrations` is resolved already: what a file says begins at its
    /// own directory.
    pub(super) fn settings(&mut self, layers: &[Layer<'_>], fallback: &DatabaseSettings) -> DatabaseSettings {
        // An empty path cannot be written.
        let unset = DatabaseSettings { migrations: PathBuf::new(), ..fallback.clone() };
        let mut settings = DatabaseSettings::read(self.reader, layers, &unset);
        settings.migrations = if settings.migrations.as_os_str().is_empty() {
            fallback.migrations.clone()
        } else {
            self.base.join(settings.migrations)
        };
        settings
    }

    fn database(
        &mut self,
        mut section: Section<'a>,
        number: usize,
        defaults: &Defaults,
    ) -> Option<DatabaseConfig> {
        section.label = format!("database #{number}: ");
        let seen = &mut self.found.names;
        let name = self.reader.unique_name::<Name>(&section, "database", seen, number);
        if let Some(name) = &name {
            section.label = format!("database {name:?}: ");
        }
        self.reader.only(&section, &[OWN_KEYS, DatabaseSettings::KEYS].concat(), home);
        let settings = self.settings(&[Layer::File(&section)], &defaults.settings);
        let labels = self.labels(&section, &defaults.labels);
        let place = self.reader.place(&section.span);
        let (url, url_source) = self.url(&section)?;
        Some(DatabaseConfig { name: name?, url, url_source, labels, settings, place })
    }

    /// The labels of a section, over those `inherited`.
    pub(super) fn labels(
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
            if BUILT_IN.contains(&key.get_ref().as_ref()) {
                let key = key.get_ref();
                self.found.warnings.push(format!(
                    "{label}labels.{key}: selectors do not reach this label: `{key}` is the database's own"
                ));
            }
            let label = format!("{label}labels.{}: ", key.get_ref());
            if let Some(text) = self.reader.value_of::<LabelValue>(value, &label) {
                labels.insert(key.get_ref().to_string(), text);
            }
        }
        labels
    }

    /// The URL, from the one key that says where it is.
    pub(super) fn url(&mut self, section: &Section<'_>) -> Option<(SecretString, UrlSource)> {
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
        match secret_file::read(&path) {
            Ok(text) => {
                let url = self.checked_url(&text, &value.span(), &format!("{label}{shown}: "))?;
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
