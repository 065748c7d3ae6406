//! Every way to do something to a file, and where it is found.

use proptest::prelude::*;

use super::*;
use crate::auditlog::{Entry, chain::seal};

/// So many records, each a line with its end.
fn records(count: u64) -> Vec<String> {
    let mut head = Head::of_new_chain(Uuid::from_u128(7));
    let record = |number| {
        let (line, next) = seal(&head, &Entry::new("call").with("number", number), "i");
        head = next;
        line
    };
    (1..=count).map(record).collect()
}

fn verify(files: &[&str], anchors: Vec<Anchor>) -> Result<Summary, Fault> {
    let mut verifier = Verifier::new(anchors);
    for (index, text) in files.iter().enumerate() {
        verifier.read(&format!("f{index}"), text.as_bytes()).expect("memory is read")?;
    }
    verifier.end()
}

/// What is wrong with a file, and on which line.
fn wrong(lines: &[String]) -> Option<(Wrong, u64)> {
    verify(&[&lines.concat()], Vec::new()).err().map(|fault| (fault.wrong, fault.line))
}

/// The same record with another text and a hash that fits it.
fn forged(line: &str) -> String {
    let body = line.split(",\"hash\":").next().unwrap_or_default().replace("call", "kall");
    format!("{body},\"hash\":\"{}\"}}\n", Checksum::of(body.as_bytes()))
}

fn head_of(line: &str) -> Head {
    read(line.trim_end().as_bytes()).expect("it is a record").head
}

#[test]
fn what_was_done_to_a_file_is_found_where_it_was_done() {
    let whole = records(5);
    assert_eq!(wrong(&whole), None);
    let check = |change: &dyn Fn(&mut Vec<String>), expected: (Wrong, u64)| {
        let mut lines = whole.clone();
        change(&mut lines);
        assert_eq!(wrong(&lines), Some(expected), "{lines:#?}");
    };
    check(&|it| it[2] = it[2].replace("call", "kall"), (Wrong::Altered, 3));
    check(&|it| it[2] = forged(&it[2]), (Wrong::Replaced, 4));
    check(&|it| drop(it.remove(2)), (Wrong::Missing, 3));
    check(&|it| drop(it.drain(1..4)), (Wrong::Missing, 2));
    check(&|it| it.insert(2, it[1].clone()), (Wrong::OutOfOrder, 3));
    check(&|it| it.swap(1, 2), (Wrong::Missing, 2));
    check(&|it| it.insert(2, "hello\n".into()), (Wrong::Torn, 3));
    check(&|it| it.insert(2, "\n".into()), (Wrong::Torn, 3));
    check(&|it| it[4].truncate(40), (Wrong::Torn, 5));
    check(&|it| it[4] = it[4].trim_end().to_owned(), (Wrong::Torn, 5));
    check(&|it| it[4] = "x\n".into(), (Wrong::Torn, 5));
    check(&|it| it.clear(), (Wrong::Empty, 0));
    check(&|it| it[0] = it[0].replace(&"0".repeat(63), &"1".repeat(63)), (Wrong::Altered, 1));
    let other = seal(&Head::of_new_chain(Uuid::from_u128(8)), &Entry::new("call"), "i").0;
    check(&|it| it.push(other.clone()), (Wrong::OtherChain, 6));
    // A file that ends too early fits together, and so does one of which the beginning is not there.
    assert_eq!(wrong(&whole[..3]), None);
    assert_eq!(wrong(&whole[2..]), None);
    assert_eq!(verify(&[&whole[2..].concat()], Vec::new()).map(|it| (it.first, it.records)), Ok((3, 3)));
}

#[test]
fn an_anchor_shows_what_is_missing_at_the_end() {
    let whole = records(5);
    let last = head_of(&whole[4]);
    let from = "the daemon".to_owned();
    let placed =
        |head: Head| Anchor { hash: head.hash, place: Some((head.chain, head.sequence)), from: from.clone() };
    let check = |lines: &[String], anchor: Anchor, expected: Option<Wrong>| {
        let found = verify(&[&lines.concat()], vec![anchor]).err();
        assert_eq!(found.as_ref().map(|fault| fault.wrong), expected, "{found:?}");
    };
    check(&whole, placed(last), None);
    check(&whole, placed(head_of(&whole[2])), None);
    check(&whole[..3], placed(last), Some(Wrong::Truncated));
    check(&whole[..3], Anchor { place: None, ..placed(last) }, Some(Wrong::Truncated));
    check(&whole, Anchor { hash: Checksum::of(b"x"), ..placed(last) }, Some(Wrong::Replaced));
    check(&whole, placed(Head { chain: Uuid::from_u128(8), ..last }), Some(Wrong::OtherChain));
    let fault = verify(&[&whole[..3].concat()], vec![placed(last)]).expect_err("it is cut");
    let expected =
        "f0:3: the file ends with record 3, and the daemon knows of record 5: 4 to 5 are missing at the end";
    assert_eq!(fault.to_string(), expected);
}

#[test]
fn files_follow_each_other() {
    let whole = records(5);
    let (one, two) = (whole[..2].concat(), whole[2..].concat());
    assert_eq!(verify(&[&one, &two], Vec::new()).map(|it| it.records), Ok(5));
    let fault = verify(&[&two, &one], Vec::new()).expect_err("they are in the wrong order");
    assert_eq!((fault.file.as_str(), fault.line, fault.wrong), ("f1", 1, Wrong::OutOfOrder));
    let fault = verify(&[&one, &whole[3..].concat()], Vec::new()).expect_err("one is missing");
    assert_eq!((fault.file.as_str(), fault.line, fault.wrong), ("f1", 1, Wrong::Missing));
    let torn = format!("{one}half\n");
    let fault = verify(&[&torn, &two], Vec::new()).expect_err("nobody tells of it");
    assert_eq!((fault.file.as_str(), fault.line, fault.wrong), ("f0", 3, Wrong::Torn));
}

#[test]
fn a_torn_line_that_a_record_tells_of_is_known() {
    let whole = records(2);
    let half = &whole[1][..40];
    let told = |sha256: &str, bytes: usize| {
        let torn = serde_json::json!([{ "sha256": sha256, "bytes": bytes }]);
        let entry = Entry::noticed("a line is no record").with("torn", torn);
        seal(&head_of(&whole[0]), &entry, "i").0
    };
    let hash = Checksum::of(half.as_bytes()).hex();
    let text = format!("{}{half}\n{}", whole[0], told(&hash, 40));
    let summary = verify(&[&text], Vec::new()).expect("it is told of");
    assert_eq!((summary.records, summary.notes.len()), (2, 2), "{:?}", summary.notes);
    for (sha256, bytes) in [(hash.as_str(), 41), (&"0".repeat(64), 40)] {
        let text = format!("{}{half}\n{}", whole[0], told(sha256, bytes));
        let fault = verify(&[&text], Vec::new()).expect_err("another one is told of");
        assert_eq!((fault.line, fault.wrong), (2, Wrong::Torn));
    }
}

#[test]
fn a_file_that_was_changed_and_fits_together_is_not_well() {
    let whole = records(2);
    let entry = Entry::tampering("the file was rewritten");
    let (told, head) = seal(&head_of(&whole[1]), &entry, "i");
    let after = seal(&head, &Entry::noticed("nothing of it"), "i").0;
    let fault = verify(&[&[whole.concat(), told, after].concat()], Vec::new()).expect_err("it was changed");
    assert_eq!((fault.line, fault.wrong), (3, Wrong::Tampering));
    assert_eq!(fault.message, "nexusd noticed tampering: the file was rewritten");
}

proptest! {
    /// Whatever byte is changed, the file is not well any more; nothing panics.
    #[test]
    fn no_byte_can_be_changed(at in 0_usize..1_500, to in any::<u8>()) {
        let mut bytes = records(4).concat().into_bytes();
        let at = at % bytes.len();
        let before = std::mem::replace(&mut bytes[at], to);
        let mut verifier = Verifier::new([]);
        let read = verifier.read("f", bytes.as_slice()).expect("memory is read");
        let found = read.and_then(|()| verifier.end());
        prop_assert_eq!(found.is_ok(), before == to);
    }
}
