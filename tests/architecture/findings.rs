//! Every kind of finding has its page, and a row in the table of them: alerts lead there.

use std::{collections::BTreeMap, error::Error, fs};

use nexus::migration::FindingKind;

use crate::none;

/// What every page has, in this order.
const SECTIONS: [&str; 3] = ["\n## What it means\n", "\n## How to look\n", "\n## How to fix it\n"];

#[test]
fn every_kind_of_finding_has_its_page() -> Result<(), Box<dyn Error>> {
    let kinds: Vec<_> = FindingKind::ALL.iter().map(|kind| (kind.name(), kind.severity().name())).collect();
    let mut pages = BTreeMap::new();
    for entry in fs::read_dir("docs/findings")? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        pages.insert(name, fs::read_to_string(path)?);
    }
    let table = pages.remove("README").ok_or("docs/findings has no README.md")?;
    none(&unexplained(&kinds, &pages, &table));
    Ok(())
}

/// The kinds without a page or a row, the pages without a kind, and pages that leave something out.
fn unexplained(kinds: &[(&str, &str)], pages: &BTreeMap<String, String>, table: &str) -> Vec<String> {
    let mut violations = Vec::new();
    for (name, severity) in kinds {
        let row = format!("| [{name}]({name}.md) | {severity} | ");
        if !table.lines().any(|line| line.starts_with(&row)) {
            violations.push(format!("docs/findings/README.md has no row `{row}…`"));
        }
        let Some(page) = pages.get(*name) else {
            violations.push(format!("docs/findings/{name}.md is missing"));
            continue;
        };
        if !page.starts_with(&format!("# {name}\n\nSeverity: {severity}.")) {
            violations.push(format!("docs/findings/{name}.md does not begin with its name and severity"));
        }
        let places: Vec<_> = SECTIONS.iter().map(|section| page.find(section)).collect();
        if places.contains(&None) || !places.is_sorted() {
            violations.push(format!("docs/findings/{name}.md does not have its sections in order"));
        }
    }
    let strays = pages.keys().filter(|page| !kinds.iter().any(|(name, _)| name == page));
    violations.extend(strays.map(|page| format!("docs/findings/{page}.md is of no kind of finding")));
    violations
}

#[test]
fn finds_a_planted_gap() {
    let page = format!("# dirty\n\nSeverity: critical. \n{}", SECTIONS.concat());
    let table = "| [dirty](dirty.md) | critical | A row is dirty |";
    let check = |pages: &[(&str, &str)], table: &str, expected: usize| {
        let pages = pages.iter().map(|(name, page)| ((*name).to_owned(), (*page).to_owned())).collect();
        let found = unexplained(&[("dirty", "critical")], &pages, table);
        assert_eq!(found.len(), expected, "{found:?}");
    };
    check(&[("dirty", &page)], table, 0);
    check(&[], table, 1);
    check(&[("dirty", &page)], "", 1);
    check(&[("dirty", &page)], &table.replace("critical", "info"), 1);
    check(&[("dirty", &page.replace("critical", "info"))], table, 1);
    check(&[("dirty", &page.replace("How to look", "Look"))], table, 1);
    check(&[("dirty", &page), ("dust", "")], table, 1);
}
