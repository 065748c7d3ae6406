//! What SECURITY.md claims, it claims by a mechanism and a test: each that it names is there.

use std::{error::Error, fs, path::Path};

use crate::none;

#[test]
fn what_security_rests_on_is_there() -> Result<(), Box<dyn Error>> {
    let page = fs::read_to_string("SECURITY.md")?;
    assert!(links(&page).count() > 60, "the page has its links");
    none(&astray(&page, |path| fs::read_to_string(path).ok()));
    Ok(())
}

/// The links that lead to no file, and the tests that are not in theirs.
fn astray(page: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let violation = |(text, target): (&str, &str)| {
        let path = target.split('#').next().unwrap_or_default();
        if path.is_empty() {
            return None;
        }
        let Some(source) = read(path) else { return Some(format!("SECURITY.md: {path} is not there")) };
        let is_source = Path::new(path).extension().is_some_and(|extension| extension == "rs");
        let is_test = is_source && !text.contains(['/', '.']);
        (is_test && !source.contains(&format!("fn {text}(")))
            .then(|| format!("SECURITY.md: {path} has no {text}"))
    };
    links(page).filter_map(violation).collect()
}

/// The text and the target of every link.
fn links(page: &str) -> impl Iterator<Item = (&str, &str)> {
    page.match_indices("](").filter_map(|(at, _)| {
        let text = page[..at].rsplit('[').next()?;
        Some((text, page[at + 2..].split(')').next()?))
    })
}

#[test]
fn finds_a_planted_gap() {
    let read = |path: &str| (path == "a.rs").then(|| "fn it_holds() {}".to_owned());
    let check = |page: &str, expected: usize| {
        let found = astray(page, read);
        assert_eq!(found.len(), expected, "{found:?}");
    };
    check("[it_holds](a.rs) [there](#there) [a.rs](a.rs#b) [src/a_b.rs](a.rs)", 0);
    check("[it_holds_not](a.rs)", 1);
    check("| [it_holds](b.rs), [b](b.md) |", 2);
}
