//! Connection URLs and keyword DSNs, as they are read and as they are shown.
//!
//! Nothing panics, and neither an error nor what is shown holds the password.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use nexus::{
    postgres::Target,
    redact::{SecretString, mask_sink_url, mask_text, mask_url},
};

/// What no other part of the input can say by chance.
const CANARY: &str = "c4n4ry";

fuzz_target!(|text: &str| -> Corpus {
    shown(text);
    mask_text(text);
    mask_sink_url(text);
    // The same as a password, in each of the places where one stands.
    for url in [
        format!("postgres://app:{CANARY}{text}{CANARY}@db:5432/shop?sslmode=require"),
        format!("postgres://app@db/shop?sslmode=require&password={CANARY}{}", text.replace('&', "")),
        format!("host=db password='{CANARY}{}' user=app", text.replace('\\', "\\\\").replace('\'', "\\'")),
    ] {
        let mut shown = shown(&url);
        // Among other words, a space is the end of a URL.
        if !text.contains(char::is_whitespace) {
            shown.push(mask_text(&format!("cannot read {url} here")));
        }
        for shown in shown {
            assert!(!shown.contains(CANARY), "{url:?} is shown as {shown:?}");
        }
    }
    Corpus::Keep
});

/// What people get to see of a URL.
fn shown(url: &str) -> Vec<String> {
    let mut shown = vec![mask_url(url)];
    match Target::parse(&SecretString::from(url)) {
        Ok(target) => shown.extend([target.server(), target.dbname().to_owned(), format!("{target:?}")]),
        Err(error) => shown.extend([error.to_string(), format!("{error:?}")]),
    }
    shown
}
