//! The strategies that the configuration names.

use std::collections::BTreeMap;

use crate::{
    fleet::strategy::Strategy,
    migration::{Code, Failure},
};

/// Strategies by their names.
#[derive(Debug, Clone, Default)]
pub struct Strategies(BTreeMap<String, Strategy>);

impl Strategies {
    /// Takes strategies that have names; each is made sure of.
    pub fn new(strategies: impl IntoIterator<Item = Strategy>) -> Result<Self, Failure> {
        let mut named = BTreeMap::new();
        for strategy in strategies {
            strategy.check()?;
            named.insert(strategy.name.clone().unwrap_or_default(), strategy);
        }
        Ok(Self(named))
    }

    /// The one of this name; the default one where the name is empty.
    pub fn get(&self, name: &str) -> Result<Strategy, Failure> {
        if name.is_empty() {
            return Ok(Strategy::default());
        }
        self.0.get(name).cloned().ok_or_else(|| {
            let failure = Failure::new(Code::UnknownStrategy, format!("No strategy {name}"));
            if self.0.is_empty() {
                return failure.hint(
                    "the daemon's configuration names none: add a [[strategy]], or use --canary, --wave and the like",
                );
            }
            failure.details(self.0.keys().cloned().collect())
        })
    }
}
