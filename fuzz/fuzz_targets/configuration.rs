//! A configuration's text, read and printed.
//!
//! Nothing panics, and the effective configuration is TOML that says the same when it is read again.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use nexus::config::{Config, Overrides};
use toml::{Table, Value};

fuzz_target!(|text: &str| -> Corpus {
    // Other files are the machine's, not the fuzzer's: what names one is not read.
    if text.parse::<Table>().is_ok_and(|table| names_files(&Value::Table(table))) {
        return Corpus::Reject;
    }
    let Ok(config) = Config::parse(text, None, [], &Overrides::default()) else { return Corpus::Keep };
    let printed = config.to_masked_toml();
    assert!(printed.parse::<Table>().is_ok(), "the effective configuration is no TOML:\n{printed}");
    Corpus::Keep
});

fn names_files(value: &Value) -> bool {
    match value {
        Value::Table(table) => {
            table.iter().any(|(key, value)| key == "include" || key.ends_with("_file") || names_files(value))
        }
        Value::Array(values) => values.iter().any(names_files),
        _ => false,
    }
}
