//! Whether every error code is documented, and nothing else is.

use std::collections::BTreeMap;

/// The codes without a section, the sections without a code, and what stands twice.
pub(super) fn undocumented(codes: &[&str], page: &str) -> Vec<String> {
    let headings = page.lines().filter_map(|line| line.strip_prefix("## NX"));
    let sections: Vec<_> =
        headings.map(|rest| format!("NX{}", rest.split([' ', ':']).next().unwrap_or_default())).collect();
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for code in codes {
        counts.entry(code).or_default().0 += 1;
    }
    for section in &sections {
        counts.entry(section).or_default().1 += 1;
    }
    let wrong = counts.into_iter().filter(|(_, count)| *count != (1, 1));
    wrong
        .map(|(code, (codes, sections))| {
            format!("{code}: {codes} in Code::ALL, {sections} in docs/errors.md")
        })
        .collect()
}
