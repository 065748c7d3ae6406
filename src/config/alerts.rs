//! Who is told of alerts: `[[alerts.webhook]]` and `[[alerts.alertmanager]]`.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use toml::{Spanned, de::DeValue};

use crate::{
    config::{
        AlertsConfig, MinSeverity,
        database::Name,
        home,
        reader::{Layer, Reader, Section, with_article},
        secret_file,
        setting::{Form, Location, Span, quoted},
    },
    redact::SecretString,
};

/// The keys of a webhook.
pub(super) const WEBHOOK_KEYS: &[&str] =
    &["name", "url", "url_file", "secret_file", "timeout", "min_severity"];

/// The keys of an Alertmanager.
pub(super) const ALERTMANAGER_KEYS: &[&str] = &["name", "url", "timeout", "min_severity"];

/// How long a sink may take to answer, where nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Who is told of alerts.
#[derive(Debug, Clone)]
pub struct SinkConfig {
    /// What it is.
    pub kind: SinkType,
    /// Its name, unique among the sinks; `webhook-1` where none is given.
    pub name: String,
    /// Where it is.
    pub url: SecretString,
    /// The file that the URL was found in.
    pub url_file: Option<PathBuf>,
    /// What requests are signed with.
    pub secret: Option<SecretString>,
    /// The file that the secret was found in.
    pub secret_file: Option<PathBuf>,
    /// How long it may take to answer.
    pub timeout: Duration,
    /// Of what it is told.
    pub min_severity: MinSeverity,
}

/// What a sink is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinkType {
    /// Anything that takes JSON.
    Webhook,
    /// Prometheus's Alertmanager.
    Alertmanager,
}

impl SinkType {
    /// The table's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Alertmanager => "alertmanager",
        }
    }

    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Webhook => WEBHOOK_KEYS,
            Self::Alertmanager => ALERTMANAGER_KEYS,
        }
    }
}

/// The URL of a sink. Its complaints never hold the text.
struct SinkUrl;

impl Form for SinkUrl {
    type Value = String;
    const TYPES: &'static [&'static str] = &["string"];
    const EXPECTED: &'static str = "a URL such as https://HOST/PATH or http://HOST:PORT";

    fn parse(text: &str) -> Result<String, String> {
        let uri: Option<http::Uri> = text.parse().ok();
        let fits = uri.is_some_and(|uri| {
            let authority = uri.authority().map_or("", http::uri::Authority::as_str);
            let after_host = authority.rsplit(['@', ']']).next().unwrap_or_default();
            let has_good_port = !after_host.contains(':') || uri.port_u16().is_some();
            has_good_port
                && matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
        });
        if fits { Ok(text.to_owned()) } else { Err(format!("expected {}", Self::EXPECTED)) }
    }

    fn literal(value: &String) -> String {
        quoted(value)
    }
}

/// Reads `[alerts]` and its sinks, going on after each that is wrong.
pub(super) fn read<'a>(
    reader: &mut Reader<'a>,
    root: &Section<'a>,
    base: &Path,
) -> (AlertsConfig, Vec<SinkConfig>) {
    let section = reader.section(root, "alerts");
    reader.only(&section, &[AlertsConfig::KEYS, &["webhook", "alertmanager"]].concat(), home);
    let layers = [Layer::Environment("alerts"), Layer::File(&section)];
    let settings = AlertsConfig::read(reader, &layers, &AlertsConfig::default());
    let (mut sinks, mut names) = (Vec::new(), BTreeSet::new());
    for kind in [SinkType::Webhook, SinkType::Alertmanager] {
        for (index, table) in tables(reader, &section, kind).into_iter().enumerate() {
            let read = sink(reader, table, kind, index + 1, base);
            let Some((sink, span)) = read else { continue };
            if !names.insert(sink.name.clone()) {
                let message = format!("sink {:?}: another sink has this name; names are unique", sink.name);
                reader.complain(&span, message);
            }
            sinks.push(sink);
        }
    }
    (settings, sinks)
}

/// The tables of one kind of sink.
fn tables<'a>(reader: &mut Reader<'a>, section: &Section<'a>, kind: SinkType) -> Vec<Section<'a>> {
    let Some(value) = section.get(kind.name()) else { return Vec::new() };
    let table = |item: &'a Spanned<DeValue<'a>>| {
        Some(Section::new(String::new(), Some((item.span(), item.get_ref().as_table()?))))
    };
    let tables = value.get_ref().as_array().and_then(|items| items.iter().map(table).collect());
    tables.unwrap_or_else(|| {
        let found = with_article(value.get_ref().type_str());
        let name = kind.name();
        let message = format!("[[alerts.{name}]] each is a table of its own, written so; found {found}");
        reader.complain(&value.span(), message);
        Vec::new()
    })
}

/// One sink, and where it stands.
fn sink<'a>(
    reader: &mut Reader<'a>,
    mut section: Section<'a>,
    kind: SinkType,
    number: usize,
    base: &Path,
) -> Option<(SinkConfig, std::ops::Range<usize>)> {
    let default = format!("{}-{number}", kind.name());
    section.label = format!("{} #{number}: ", kind.name());
    reader.only(&section, kind.keys(), home);
    let layers = [Layer::File(&section)];
    let name = reader.setting::<Name>(&layers, "name").unwrap_or(default);
    section.label = format!("sink {name:?}: ");
    let layers = [Layer::File(&section)];
    let timeout = reader.setting::<Span<1>>(&layers, "timeout").unwrap_or(TIMEOUT);
    let min_severity = reader.setting::<MinSeverity>(&layers, "min_severity").unwrap_or(MinSeverity::Warning);
    let of_file = |reader: &mut Reader<'a>, key: &str| {
        let value = section.get(key)?;
        let label = format!("{}{key}: ", section.label);
        let path = base.join(reader.value_of::<Location>(value, &label)?);
        let read = secret_file::read(&path).and_then(|text| {
            if text.is_empty() { Err(format!("{} is empty", path.display())) } else { Ok(text) }
        });
        match read {
            Ok(text) => Some((text, path)),
            Err(wrong) => {
                reader.complain(&value.span(), format!("{label}{wrong}"));
                None
            }
        }
    };
    let secret = of_file(reader, "secret_file");
    let (url, url_file) = match (section.get("url"), section.get("url_file")) {
        (Some(value), None) => (reader.value_of::<SinkUrl>(value, &format!("{}url: ", section.label))?, None),
        (None, Some(value)) => {
            let (text, path) = of_file(reader, "url_file")?;
            if let Err(wrong) = SinkUrl::parse(&text) {
                let message = format!("{}url_file: {}: {wrong}", section.label, path.display());
                reader.complain(&value.span(), message);
                return None;
            }
            (text, Some(path))
        }
        (Some(_), Some(second)) => {
            let message = format!("{}url and url_file are both given; keep one", section.label);
            reader.complain(&second.span(), message);
            return None;
        }
        (None, None) => {
            let message = format!("{}url is missing", section.label);
            reader.complain(&section.span, message);
            return None;
        }
    };
    let (secret, secret_file) = secret.unzip();
    let sink = SinkConfig {
        kind,
        name,
        url: url.into(),
        url_file,
        secret: secret.map(Into::into),
        secret_file,
        timeout,
        min_severity,
    };
    Some((sink, section.span))
}
