//! The strategies that requests name: `[[strategy]]`. Each value is written as the flag of the same
//! name takes it.

use std::time::Duration;

use crate::config::{
    database::Name,
    home,
    reader::{Layer, Reader, Section, Seen},
    setting::{Count, Flag, Form, Span, quoted},
};

/// The keys of a strategy.
pub(super) const KEYS: &[&str] = &[
    "name",
    "canary",
    "wave",
    "parallel",
    "pause",
    "max_failures",
    "on_failure",
    "gate",
    "gate_no_alerts",
    "gate_wait",
    "gate_limit",
];

/// How an operation goes through its databases; `None` is what it is without a strategy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StrategyConfig {
    /// Its name, unique among the strategies, of `[a-zA-Z0-9_.-]`.
    pub name: String,
    /// The databases that go first.
    pub canary: Option<CanaryConfig>,
    /// How the others are divided.
    pub wave: Option<WaveConfig>,
    /// How many are worked on at once.
    pub parallel: Option<u32>,
    /// What lies between two waves.
    pub pause: Option<PauseConfig>,
    /// How many may fail.
    pub max_failures: Option<Amount>,
    /// Whether what was applied is rolled back then.
    pub rolls_back: bool,
    /// The SQL that has to be true after a wave.
    pub gate: Option<String>,
    /// Whether no alert may be open then.
    pub gate_no_alerts: bool,
    /// How long after a wave that is first asked.
    pub gate_wait: Option<Duration>,
    /// How long it may take to become true.
    pub gate_limit: Option<Duration>,
}

/// The databases that go first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CanaryConfig {
    /// So many.
    Count(u32),
    /// These.
    Names(Vec<String>),
}

/// The size of the waves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaveConfig {
    /// So many databases, or so much of all.
    Amount(Amount),
    /// One wave for each value of a label.
    ByLabel(String),
}

/// A number of databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// So many.
    Count(u32),
    /// So many percent of all.
    Percent(u8),
}

/// What lies between two waves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseConfig {
    /// So much time.
    For(Duration),
    /// Somebody has to resume it.
    Manual,
}

impl Form for CanaryConfig {
    type Value = Self;
    const TYPES: &'static [&'static str] = &["integer", "string"];
    const EXPECTED: &'static str =
        "a number of databases of at least 1, or their names such as \"orders-eu,orders-us\"";

    fn parse(text: &str) -> Result<Self, String> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Count::<1>::parse(text).map(Self::Count).map_err(|_| Self::unlike(text));
        }
        let names = text.split(',').map(|name| Name::parse(name.trim()));
        names.collect::<Result<_, _>>().map(Self::Names).map_err(|_| Self::unlike(text))
    }

    fn literal(value: &Self) -> String {
        match value {
            Self::Count(count) => count.to_string(),
            Self::Names(names) => quoted(&names.join(",")),
        }
    }
}

impl Form for WaveConfig {
    type Value = Self;
    const TYPES: &'static [&'static str] = &["integer", "string"];
    const EXPECTED: &'static str =
        "a part such as \"10%\", a number of databases of at least 1, or \"by-label=KEY\"";

    fn parse(text: &str) -> Result<Self, String> {
        let unlike = || Self::unlike(text);
        if let Some(key) = text.strip_prefix("by-label=") {
            return if key.is_empty() { Err(unlike()) } else { Ok(Self::ByLabel(key.to_owned())) };
        }
        match Amount::parse(text) {
            Ok(Amount::Count(0) | Amount::Percent(0)) | Err(_) => Err(unlike()),
            Ok(amount) => Ok(Self::Amount(amount)),
        }
    }

    fn literal(value: &Self) -> String {
        match value {
            Self::Amount(amount) => Amount::literal(amount),
            Self::ByLabel(key) => quoted(&format!("by-label={key}")),
        }
    }
}

impl Form for Amount {
    type Value = Self;
    const TYPES: &'static [&'static str] = &["integer", "string"];
    const EXPECTED: &'static str = "a number of databases, or a part from \"0%\" to \"100%\"";

    fn parse(text: &str) -> Result<Self, String> {
        let amount = match text.strip_suffix('%') {
            Some(percent) => percent.parse().ok().filter(|percent| *percent <= 100).map(Self::Percent),
            None => Count::<0>::parse(text).ok().map(Self::Count),
        };
        amount.ok_or_else(|| Self::unlike(text))
    }

    fn literal(value: &Self) -> String {
        match value {
            Self::Count(count) => count.to_string(),
            Self::Percent(percent) => quoted(&format!("{percent}%")),
        }
    }
}

impl Form for PauseConfig {
    type Value = Self;
    const TYPES: &'static [&'static str] = &["string"];
    const EXPECTED: &'static str = "a duration such as \"5m\", or \"manual\"";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "manual" => Ok(Self::Manual),
            _ => Span::<0>::parse(text).map(Self::For).map_err(|_| Self::unlike(text)),
        }
    }

    fn literal(value: &Self) -> String {
        match value {
            Self::Manual => quoted("manual"),
            Self::For(duration) => Span::<0>::literal(duration),
        }
    }
}

/// What follows a failure.
struct OnFailure;

impl Form for OnFailure {
    type Value = bool;
    const TYPES: &'static [&'static str] = &["string"];
    const EXPECTED: &'static str = "\"stop\" or \"rollback\"";

    fn parse(text: &str) -> Result<bool, String> {
        match text {
            "stop" => Ok(false),
            "rollback" => Ok(true),
            _ => Err(Self::unlike(text)),
        }
    }

    fn literal(value: &bool) -> String {
        quoted(if *value { "rollback" } else { "stop" })
    }
}

/// A statement of SQL.
struct Statement;

impl Form for Statement {
    type Value = String;
    const TYPES: &'static [&'static str] = &["string"];
    const EXPECTED: &'static str = "a statement that returns one boolean, such as \"select true\"";

    fn parse(text: &str) -> Result<String, String> {
        if text.trim().is_empty() { Err(Self::unlike(text)) } else { Ok(text.to_owned()) }
    }

    fn literal(value: &String) -> String {
        quoted(value)
    }
}

/// Reads every `[[strategy]]`, going on after each that is wrong.
pub(super) fn read<'a>(reader: &mut Reader<'a>, root: &Section<'a>) -> Vec<StrategyConfig> {
    let sections = reader.sections(root, "strategy");
    let mut seen = Seen::new();
    let strategies = sections.into_iter().enumerate();
    strategies.filter_map(|(index, section)| strategy(reader, section, index + 1, &mut seen)).collect()
}

fn strategy<'a>(
    reader: &mut Reader<'a>,
    mut section: Section<'a>,
    number: usize,
    seen: &mut Seen,
) -> Option<StrategyConfig> {
    section.label = format!("strategy #{number}: ");
    let name = reader.unique_name::<Name>(&section, "strategy", seen, number);
    if let Some(name) = &name {
        section.label = format!("strategy {name:?}: ");
    }
    reader.only(&section, KEYS, home);
    let layers = [Layer::File(&section)];
    let strategy = StrategyConfig {
        name: name.unwrap_or_default(),
        canary: reader.setting::<CanaryConfig>(&layers, "canary"),
        wave: reader.setting::<WaveConfig>(&layers, "wave"),
        parallel: reader.setting::<Count<1>>(&layers, "parallel"),
        pause: reader.setting::<PauseConfig>(&layers, "pause"),
        max_failures: reader.setting::<Amount>(&layers, "max_failures"),
        rolls_back: reader.setting::<OnFailure>(&layers, "on_failure").unwrap_or_default(),
        gate: reader.setting::<Statement>(&layers, "gate"),
        gate_no_alerts: reader.setting::<Flag>(&layers, "gate_no_alerts").unwrap_or_default(),
        gate_wait: reader.setting::<Span<0>>(&layers, "gate_wait"),
        gate_limit: reader.setting::<Span<1>>(&layers, "gate_limit"),
    };
    let has = |key| section.get(key).is_some();
    let contradictions = [
        ("pause", !has("canary") && !has("wave"), "there is one wave only: give canary or wave too"),
        (
            "gate_wait",
            !has("gate") && !strategy.gate_no_alerts,
            "there is no gate: give gate or gate_no_alerts",
        ),
        (
            "gate_limit",
            !has("gate") && !strategy.gate_no_alerts,
            "there is no gate: give gate or gate_no_alerts",
        ),
    ];
    for (key, is_wrong, why) in contradictions {
        if let Some(value) = section.get(key).filter(|_| is_wrong) {
            reader.complain(&value.span(), format!("{}{key}: {why}", section.label));
        }
    }
    (!strategy.name.is_empty()).then_some(strategy)
}

/// One strategy as TOML; what it does not say is not written.
pub(super) fn lines(strategy: &StrategyConfig) -> Vec<String> {
    let literals = [
        ("canary", strategy.canary.as_ref().map(CanaryConfig::literal)),
        ("wave", strategy.wave.as_ref().map(WaveConfig::literal)),
        ("parallel", strategy.parallel.as_ref().map(Count::<1>::literal)),
        ("pause", strategy.pause.as_ref().map(PauseConfig::literal)),
        ("max_failures", strategy.max_failures.as_ref().map(Amount::literal)),
        ("on_failure", Some(OnFailure::literal(&strategy.rolls_back))),
        ("gate", strategy.gate.as_ref().map(Statement::literal)),
        ("gate_no_alerts", Some(Flag::literal(&strategy.gate_no_alerts))),
        ("gate_wait", strategy.gate_wait.as_ref().map(Span::<0>::literal)),
        ("gate_limit", strategy.gate_limit.as_ref().map(Span::<1>::literal)),
    ];
    let said = literals.into_iter().filter_map(|(key, literal)| Some(format!("{key} = {}", literal?)));
    std::iter::once(format!("name = {}", quoted(&strategy.name))).chain(said).collect()
}
