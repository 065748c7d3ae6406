//! A migration file, from bytes to statements: whatever a directory holds.
//!
//! Nothing panics, and what is told before an execution is what an execution finds: the pieces make up the
//! file, and there are as many statements as were counted.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use nexus::{
    migration::{Direction, Version, header::Header},
    sql::{Group, Groups, Wrapper, concurrent_index, inspect, is_atomic},
};

const NAME: &str = "0001_fuzzed.up.sql";

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let text = String::from_utf8_lossy(bytes);
    let Ok(header) = Header::parse(&text) else { return Corpus::Keep };
    let version = Version::from_row("0001_fuzzed");
    let Ok(inspection) = inspect(bytes, NAME, Direction::Up, &version, header.mode()) else {
        return Corpus::Keep;
    };
    let kept = groups(bytes, Wrapper::Keep);
    let joined: String = kept.iter().map(|group| group.text.as_str()).collect();
    let sent = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    assert!(sent.starts_with(joined.as_bytes()), "what is sent is the file");
    let count = |groups: &[Group]| groups.iter().map(|group| group.statements.len()).sum::<usize>();
    let wrapper = if inspection.wrapped { Wrapper::Remove } else { Wrapper::Keep };
    let executed = groups(bytes, wrapper);
    assert_eq!(count(&executed), inspection.statements as usize, "no statement is lost or new");
    assert_eq!(count(&kept), count(&executed) + if inspection.wrapped { 2 } else { 0 });
    for group in &executed {
        // A place is counted from the group's beginning: of many statements that takes its time.
        for statement in group.statements.iter().take(100) {
            let text = group.statement(statement);
            assert!(!text.trim().is_empty(), "a statement is something");
            let place = group.location(NAME, statement.range.start, 0);
            assert_eq!((place.line, place.column), (statement.line, statement.column));
            concurrent_index(text);
            is_atomic(text);
        }
    }
    Corpus::Keep
});

/// The groups of a file that was found to be sound.
fn groups(bytes: &[u8], wrapper: Wrapper) -> Vec<Group> {
    let groups: Result<_, _> = Groups::new(bytes, NAME, wrapper).collect();
    groups.expect("what was inspected can be split")
}
