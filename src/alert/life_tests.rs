//! The life of alerts, second by second.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;

use crate::{
    alert::{
        life::{Audience, Life, Lives, Rules},
        store,
    },
    migration::{
        Acknowledgement, AlertState, Code, Finding, FindingKind, Observation, Severity,
        event::InventoryChange,
    },
};

const RULES: Rules = Rules { hold: Duration::from_secs(10), flap_window: Duration::from_secs(400) };
const DRIFT: FindingKind = FindingKind::ChecksumDrift;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_761_819_330 + second).expect("a time")
}

fn audience() -> Audience {
    Audience { name: "chat".into(), least: Severity::Warning }
}

fn lives(kept: Vec<Life>) -> Lives {
    Lives::new(RULES, vec![audience()], kept)
}

fn seen(second: i64, findings: &[FindingKind], unknown: &[FindingKind]) -> Observation {
    let finding = |kind: &FindingKind| Finding::new(*kind, "0001_a", format!("{kind} at {second}"));
    Observation {
        database: "orders".into(),
        time: at(second),
        counts: None,
        newest: None,
        findings: findings.iter().map(finding).collect(),
        unknown: unknown.to_vec(),
    }
}

/// What happens at a second.
enum Then {
    /// A look that sees the drift.
    Seen,
    /// A look that does not.
    Gone,
    /// A look that can say nothing of it.
    Unknown,
    /// Nothing but time.
    Tick,
    /// Somebody takes note of it, until a second.
    Noted(Option<i64>),
    /// The sink is told all there is to tell.
    Told,
    /// The daemon is started again.
    Restarted,
}

/// Plays a life and notes each change of its state, and what the sink would be told.
fn check(script: &[(i64, Then)], expected: &[&str]) {
    let mut lives = lives(Vec::new());
    let mut history = Vec::new();
    for (second, then) in script {
        let second = *second;
        let outcome = match then {
            Then::Seen => lives.observe(&seen(second, &[DRIFT], &[])),
            Then::Gone => lives.observe(&seen(second, &[], &[])),
            Then::Unknown => lives.observe(&seen(second, &[FindingKind::DatabaseUnreachable], &[DRIFT])),
            Then::Tick => lives.tick(at(second)),
            Then::Noted(until) => {
                let id = lives.list()[0].id.to_string();
                let acknowledgement =
                    Acknowledgement { by: "eve".into(), reason: "known".into(), until: until.map(at) };
                let alert = lives.acknowledge(&id[..30], acknowledgement, at(second)).expect("it stands");
                history.push(format!("{second} {}", alert.state.name()));
                continue;
            }
            Then::Told => {
                for telling in lives.due(&audience()) {
                    history.push(format!("{second} told {}", telling.alert.state.name()));
                    lives.delivered(&audience(), &telling);
                }
                continue;
            }
            Then::Restarted => {
                let directory = tempfile::tempdir().expect("a directory");
                let path = directory.path().join("logs/alerts.json");
                let bytes = store::encode(lives.all()).expect("it is JSON");
                store::write(&path, &bytes).expect("it is written");
                let before: Vec<_> = lives.all().cloned().collect();
                lives = self::lives(store::read(&path));
                assert_eq!(lives.all().cloned().collect::<Vec<_>>(), before, "nothing is lost");
                continue;
            }
        };
        let changed = outcome.changed.iter().filter(|alert| alert.finding.kind == DRIFT);
        history.extend(changed.map(|alert| match alert.flaps {
            0 => format!("{second} {}", alert.state.name()),
            flaps => format!("{second} {} flaps {flaps}", alert.state.name()),
        }));
    }
    assert_eq!(history, expected);
}

#[test]
fn a_life_without_events() {
    use Then::{Gone, Seen, Tick, Told};
    let told = [(0, Seen), (9, Tick), (10, Tick), (10, Told), (30, Seen), (31, Told), (60, Gone), (60, Told)];
    check(&told, &["0 pending", "10 firing", "10 told firing", "60 resolved", "60 told resolved"]);
    // It is over before it fires: nobody hears of it.
    check(&[(0, Seen), (5, Gone), (5, Told), (11, Tick)], &["0 pending", "5 resolved"]);
    // The sink was away: it hears of the end only, and once.
    check(
        &[(0, Seen), (10, Tick), (60, Gone), (61, Told), (62, Told)],
        &["0 pending", "10 firing", "60 resolved", "61 told resolved"],
    );
}

#[test]
fn what_cannot_be_seen_stays() {
    use Then::{Gone, Seen, Tick, Unknown};
    check(
        &[(0, Seen), (10, Tick), (30, Unknown), (90, Unknown), (120, Gone)],
        &["0 pending", "10 firing", "120 resolved"],
    );
    check(&[(0, Seen), (5, Unknown), (10, Tick)], &["0 pending", "10 firing"]);
}

#[test]
fn a_clock_that_is_put_back_does_not_keep_an_alert_from_firing() {
    use Then::{Seen, Tick};
    check(&[(3_600, Seen), (0, Tick), (9, Tick), (10, Tick)], &["3600 pending", "10 firing"]);
}

#[test]
fn flapping_is_damped() {
    use Then::{Gone, Seen, Tick, Told};
    // Once it came back: a quarter of the window must pass before its end is believed; it comes back
    // in that time, twice, and nobody hears of it.
    let script = [
        (0, Seen),
        (10, Tick),
        (10, Told),
        (30, Gone),
        (30, Told),
        (60, Seen),
        (60, Told),
        (90, Gone),
        (120, Seen),
        (150, Gone),
        (180, Seen),
        (180, Told),
        (210, Gone),
        (509, Tick),
        (510, Tick),
        (510, Told),
    ];
    let expected = [
        "0 pending",
        "10 firing",
        "10 told firing",
        "30 resolved",
        "30 told resolved",
        "60 firing flaps 1",
        "60 told firing",
        "510 resolved flaps 3",
        "510 told resolved",
    ];
    check(&script, &expected);
    // After the window it is another one, and the end of the first is not lost.
    check(
        &[(0, Seen), (10, Tick), (30, Gone), (431, Seen), (441, Tick), (442, Told)],
        &[
            "0 pending",
            "10 firing",
            "30 resolved",
            "431 pending",
            "441 firing",
            "442 told resolved",
            "442 told firing",
        ],
    );
}

#[test]
fn nobody_is_told_of_what_is_acknowledged() {
    use Then::{Gone, Noted, Seen, Tick, Told};
    check(
        &[(0, Seen), (10, Tick), (11, Noted(None)), (12, Told), (60, Seen), (90, Gone), (90, Told)],
        &["0 pending", "10 firing", "11 acknowledged", "90 resolved", "90 told resolved"],
    );
    check(
        &[(0, Seen), (10, Tick), (10, Told), (11, Noted(Some(100))), (99, Tick), (100, Tick), (100, Told)],
        &["0 pending", "10 firing", "10 told firing", "11 acknowledged", "100 firing", "100 told firing"],
    );
}

#[test]
fn a_restart_repeats_nothing_and_loses_nothing() {
    use Then::{Gone, Noted, Restarted, Seen, Tick, Told};
    check(
        &[(0, Seen), (10, Tick), (10, Told), (11, Restarted), (12, Seen), (12, Told), (60, Gone), (60, Told)],
        &["0 pending", "10 firing", "10 told firing", "60 resolved", "60 told resolved"],
    );
    check(
        &[
            (0, Seen),
            (5, Restarted),
            (10, Tick),
            (10, Restarted),
            (10, Told),
            (11, Noted(Some(50))),
            (12, Restarted),
        ],
        &["0 pending", "10 firing", "10 told firing", "11 acknowledged"],
    );
    check(
        &[(0, Seen), (10, Tick), (11, Noted(Some(50))), (12, Restarted), (12, Told), (50, Tick), (50, Told)],
        &["0 pending", "10 firing", "11 acknowledged", "50 firing", "50 told firing"],
    );
    check(
        &[(0, Seen), (10, Tick), (30, Gone), (431, Seen), (432, Restarted), (432, Told)],
        &["0 pending", "10 firing", "30 resolved", "431 pending", "432 told resolved"],
    );
}

#[test]
fn what_is_only_worth_knowing_is_no_alert() {
    let mut lives = lives(Vec::new());
    lives.observe(&seen(0, &[FindingKind::NoDown, FindingKind::LineEndings], &[]));
    assert!(lives.list().is_empty());
}

#[test]
fn a_sink_hears_of_what_is_grave_enough_and_a_new_one_not_of_the_past() {
    let mut lives = lives(Vec::new());
    lives.observe(&seen(0, &[DRIFT, FindingKind::MissingFile], &[]));
    lives.tick(at(10));
    let critical = Audience { name: "pager".into(), least: Severity::Critical };
    let kinds = |audience| {
        let due = lives.due(audience);
        due.into_iter().map(|telling| telling.alert.finding.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&critical), [DRIFT]);
    assert_eq!(kinds(&audience()).len(), 2);
    lives.observe(&seen(20, &[], &[]));
    assert!(lives.due(&critical).is_empty(), "it was never told of the beginning");
}

#[test]
fn the_past_is_forgotten_and_what_was_never_told_is_counted() {
    let mut lives = lives(Vec::new());
    let mut many = seen(0, &[], &[]);
    many.findings = (0..2_200).map(|n| Finding::new(DRIFT, format!("{n:04}_a"), "x")).collect();
    lives.observe(&many);
    lives.tick(at(10));
    lives.observe(&seen(20, &[], &[]));
    let outcome = lives.tick(at(21));
    assert_eq!(lives.list().len(), 2_000);
    assert_eq!(outcome.dropped, vec!["chat"; 200]);
    lives.tick(at(20 + 25 * 3_600));
    assert!(lives.list().is_empty());
}

#[test]
fn there_are_only_so_many() {
    let mut lives = lives(Vec::new());
    let mut many = seen(0, &[], &[]);
    many.findings = (0..10_002).map(|n| Finding::new(DRIFT, format!("{n:05}_a"), "x")).collect();
    assert_eq!(lives.observe(&many).refused, 2);
    assert_eq!(lives.list().len(), 10_000);
}

#[test]
fn a_database_that_is_no_longer_configured_has_no_alerts() {
    let mut lives = lives(Vec::new());
    lives.observe(&seen(0, &[DRIFT], &[]));
    lives.tick(at(10));
    let inventory = |database: &str, is_complete| InventoryChange {
        databases: BTreeSet::from([database.to_owned()]),
        is_complete,
        ..InventoryChange::default()
    };
    assert!(lives.leave(&inventory("orders", true), at(11)).is_empty());
    assert!(lives.leave(&inventory("other", false), at(11)).is_empty());
    let resolved = lives.leave(&inventory("other", true), at(12));
    assert_eq!(resolved.len(), 1);
    assert_eq!(resolved[0].state, AlertState::Resolved);
}

#[test]
fn acknowledgements_that_are_refused() {
    let mut lives = lives(Vec::new());
    lives.observe(&seen(0, &[DRIFT, FindingKind::Dirty], &[]));
    let ids: Vec<_> = lives.list().iter().map(|alert| alert.id.to_string()).collect();
    let mut refusal = |id: &str, reason: &str, until: Option<i64>| {
        let note = Acknowledgement { by: "eve".into(), reason: reason.into(), until: until.map(at) };
        let failure = lives.acknowledge(id, note, at(11)).expect_err("it is refused");
        (failure.code, failure.message, failure.details.len())
    };
    assert_eq!(refusal("", "x", None), (Code::UnknownAlert, "There is no alert \"\"".into(), 0));
    assert_eq!(refusal("zz", "x", None).0, Code::UnknownAlert);
    let several = refusal(&ids[0][..2], "x", None);
    assert_eq!((several.0, several.2), (Code::BadRequest, 2));
    assert_eq!(refusal(&ids[0], " ", None).1, "An acknowledgement needs a reason");
    assert_eq!(refusal(&ids[0], "x", Some(11)).1, "The acknowledgement would be over already");
    assert_eq!(refusal(&ids[0], "x", None).1, "The alert is pending: only a firing one is taken note of");
}

#[test]
fn a_file_that_makes_no_sense_is_put_aside() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("alerts.json");
    assert!(store::read(&path).is_empty(), "there is none");
    for text in ["", "{", "{\"version\": 2, \"alerts\": []}", "{\"version\": 1, \"alerts\": [{}]}"] {
        std::fs::write(&path, text).expect("it is written");
        assert!(store::read(&path).is_empty());
        assert!(!path.exists(), "{text}");
        let aside = std::fs::read_to_string(directory.path().join("alerts.json.unreadable"));
        assert_eq!(aside.expect("it is kept"), text);
    }
    std::fs::create_dir(&path).expect("a directory in its place");
    assert!(store::read(&path).is_empty());
    assert!(store::write(std::path::Path::new("/proc/none/alerts.json"), b"{}").is_err());
}

#[test]
fn the_file_is_its_owners() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("alerts.json");
    for text in ["one", "two"] {
        store::write(&path, text.as_bytes()).expect("it is written");
        let metadata = std::fs::metadata(&path).expect("it is there");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(std::fs::read_to_string(&path).expect("it is read"), "two");
    assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 1, "nothing else is left");
}

#[test]
fn what_another_daemon_kept_is_gone_on_with() {
    let mut ours = lives(Vec::new());
    ours.observe(&seen(0, &[DRIFT, FindingKind::Dirty], &[]));
    ours.tick(at(10));
    let kept: Vec<Life> = ours.all().cloned().collect();
    // Told, and then this daemon could not keep that any more.
    for telling in ours.due(&audience()) {
        ours.delivered(&audience(), &telling);
    }
    assert!(ours.replace(kept.clone()).is_empty(), "nothing is another");
    assert!(ours.due(&audience()).is_empty(), "nothing is told twice");
    // Another one has seen the end of both, and forgotten one.
    let mut theirs = lives(kept);
    theirs.observe(&seen(20, &[], &[]));
    let kept = theirs.all().filter(|life| life.alert.finding.kind == DRIFT).cloned().collect();
    let changed = ours.replace(kept);
    assert_eq!(changed.iter().map(|alert| alert.state).collect::<Vec<_>>(), [AlertState::Resolved]);
    assert_eq!((ours.list().len(), ours.due(&audience()).len()), (1, 1), "its end is to be told");
}
