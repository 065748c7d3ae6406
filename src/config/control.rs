//! The control database: `[control]`.

use crate::{
    config::{
        ControlSettings, UrlSource,
        database::Fleet,
        home,
        reader::{Layer, Section},
    },
    redact::{ExposeSecret as _, SecretString},
};

/// The keys of the URL, of which one is given.
pub(super) const URL_KEYS: [&str; 3] = ["url", "url_env", "url_file"];

/// What several daemons of one service know together is kept there.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// How to connect.
    pub url: SecretString,
    /// Where the URL was found.
    pub url_source: UrlSource,
    /// How it is used.
    pub settings: ControlSettings,
}

impl PartialEq for ControlConfig {
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings && self.url.expose_secret() == other.url.expose_secret()
    }
}

/// Reads the section, where it is there.
pub(super) fn read<'a>(fleet: &mut Fleet<'_, 'a>, root: &Section<'a>) -> Option<ControlConfig> {
    root.get("control")?;
    let section = fleet.reader.section(root, "control");
    fleet.reader.only(&section, &[&URL_KEYS, ControlSettings::KEYS].concat(), home);
    let layers = [Layer::Environment("control"), Layer::File(&section)];
    let settings = ControlSettings::read(fleet.reader, &layers, &ControlSettings::default());
    let (url, url_source) = fleet.url(&section)?;
    Some(ControlConfig { url, url_source, settings })
}
