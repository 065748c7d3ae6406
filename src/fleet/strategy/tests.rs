//! Layouts, refusals and halts, by tables, and what holds of every layout.

use proptest::{
    prelude::{Just, any, prop},
    prop_assert, prop_assert_eq, prop_oneof, proptest,
    strategy::Strategy as _,
};

use super::*;

fn targets(described: &str) -> Vec<Target> {
    let target = |text: &str| {
        let (name, region) = text.split_once(':').map_or((text, None), |(name, region)| (name, Some(region)));
        let labels = region.map(|region| ("region".to_owned(), region.to_owned()));
        Target { name: name.to_owned(), labels: labels.into_iter().collect() }
    };
    described.split_whitespace().map(target).collect()
}

fn named(names: &[&str]) -> Canary {
    Canary::Names(names.iter().map(|&name| name.to_owned()).collect())
}

fn by_region() -> WaveSize {
    WaveSize::ByLabel("region".to_owned())
}

#[test]
fn layouts() {
    let check = |canary: Option<Canary>, wave: WaveSize, described: &str, expected: &[&str]| {
        let strategy = Strategy { canary, wave, ..Strategy::default() };
        let laid_out = waves(&strategy, &targets(described)).map(|waves| {
            let text = |wave: Wave| format!("{}: {}", wave.name, wave.databases.join(" "));
            waves.into_iter().map(text).collect::<Vec<_>>()
        });
        assert_eq!(
            laid_out.as_deref(),
            Ok(&expected.iter().map(|&text| text.into()).collect::<Vec<_>>()[..])
        );
    };
    check(None, WaveSize::All, "c a b", &["wave 1: a b c"]);
    check(None, WaveSize::All, "", &[]);
    check(Some(Canary::Count(1)), WaveSize::All, "c a b", &["canary: a", "wave 1: b c"]);
    check(Some(Canary::Count(9)), WaveSize::All, "c a b", &["canary: a b c"]);
    check(Some(named(&["c"])), WaveSize::Count(1), "c a b", &["canary: c", "wave 1: a", "wave 2: b"]);
    check(Some(named(&["c", "b", "c"])), WaveSize::All, "c a b", &["canary: b c", "wave 1: a"]);
    check(None, WaveSize::Count(2), "e d c b a", &["wave 1: a b", "wave 2: c d", "wave 3: e"]);
    check(None, WaveSize::Count(usize::MAX), "a b", &["wave 1: a b"]);
    // Of all targets, rounded up: 10% of 3 is one, 34% of 6 is three.
    check(None, WaveSize::Percent(10), "a b c", &["wave 1: a", "wave 2: b", "wave 3: c"]);
    check(None, WaveSize::Percent(34), "a b c d e f", &["wave 1: a b c", "wave 2: d e f"]);
    check(
        Some(Canary::Count(1)),
        WaveSize::Percent(50),
        "a b c d",
        &["canary: a", "wave 1: b c", "wave 2: d"],
    );
    check(None, WaveSize::Percent(100), "a b", &["wave 1: a b"]);
    let regions = "d:us a:us b:eu c e";
    check(None, by_region(), regions, &["region=eu: b", "region=us: a d", "without region: c e"]);
    check(
        Some(named(&["b", "c"])),
        by_region(),
        regions,
        &["canary: b c", "region=us: a d", "without region: e"],
    );
    check(Some(named(&["a"])), by_region(), "a:eu", &["canary: a"]);
}

#[test]
fn refusals() {
    let check = |strategy: Strategy, message: &str| {
        let refusal = waves(&strategy, &targets("a b:eu c"));
        assert_eq!(refusal.as_ref().map_err(|refusal| refusal.code), Err(Code::BadStrategy), "{strategy:?}");
        assert_eq!(refusal.map_err(|refusal| refusal.message), Err(message.to_owned()));
    };
    let of = |wave| Strategy { wave, ..Strategy::default() };
    check(of(WaveSize::Count(0)), "A wave of 0 databases never ends");
    check(of(WaveSize::Percent(0)), "A wave of 0 databases never ends");
    check(of(WaveSize::Percent(101)), "A wave cannot be more than 100% of the databases");
    check(
        of(WaveSize::ByLabel("regoin".into())),
        "None of the databases that are meant has the label regoin",
    );
    let of = |canary| Strategy { canary, ..Strategy::default() };
    check(of(Some(Canary::Count(0))), "A canary of 0 databases is none: leave it out");
    check(of(Some(named(&["a", "z"]))), "The canary z is not among the 3 databases that are meant");
    let of = |max_failures| Strategy { max_failures, ..Strategy::default() };
    check(of(FailureLimit::Percent(200)), "No more than 100% of the databases can fail");
    let pause = Strategy { pause: Pause::Manual, ..Strategy::default() };
    check(pause, "There is nothing to pause between: without canary and waves all databases are one wave");
    let gate = |sql: Option<&str>, limit| {
        let gate = Gate { sql: sql.map(Into::into), no_alerts: false, wait: Duration::ZERO, limit };
        Strategy { gate: Some(gate), ..Strategy::default() }
    };
    check(gate(None, Gate::LIMIT), "The gate asks nothing");
    check(gate(Some(" "), Gate::LIMIT), "The gate's SQL is empty");
    check(gate(Some("select true"), Duration::ZERO), "A gate with a limit of 0 can never hold");
}

#[test]
fn halts() {
    use FailureLimit::{Count, Percent, Wave as InWave};
    // A wave that is or is not the canary; failures in it, in all, of so many targets; whether that
    // halts within the wave, and after it.
    let check = |max_failures, is_canary, (in_wave, in_all, targets), expected: (bool, bool)| {
        let strategy = Strategy { max_failures, ..Strategy::default() };
        let wave = Wave { name: String::new(), is_canary, databases: Vec::new() };
        let failures = Failures { in_wave, in_all, targets };
        let halts = (strategy.halts_within(&wave, failures), strategy.halts_after(&wave, failures));
        assert_eq!(halts, expected, "{max_failures:?}, canary {is_canary}, {failures:?}");
    };
    for limit in [InWave, Count(0), Count(5), Percent(0), Percent(100)] {
        check(limit, false, (0, 0, 10), (false, false));
        check(limit, true, (0, 0, 10), (false, false));
        check(limit, true, (1, 1, 10), (true, true));
    }
    check(InWave, false, (3, 3, 10), (false, true));
    check(InWave, false, (0, 3, 10), (false, false));
    check(Count(0), false, (1, 1, 10), (true, true));
    check(Count(2), false, (2, 2, 10), (false, false));
    check(Count(2), false, (1, 3, 10), (true, true));
    check(Percent(10), false, (1, 1, 10), (false, false));
    check(Percent(10), false, (1, 2, 10), (true, true));
    check(Percent(10), false, (1, 1, 9), (true, true));
    check(Percent(100), false, (10, 10, 10), (false, false));
}

#[test]
fn words() {
    let check = |strategy: Strategy, expected: &str| assert_eq!(strategy.to_string(), expected);
    check(Strategy::default(), "one wave");
    let gate = Gate { sql: None, no_alerts: true, wait: Duration::ZERO, limit: Gate::LIMIT };
    let whole = Strategy {
        name: Some("careful".into()),
        canary: Some(Canary::Count(1)),
        wave: WaveSize::Percent(10),
        parallel: NonZeroUsize::new(4),
        pause: Pause::For(Duration::from_mins(5)),
        max_failures: FailureLimit::Count(2),
        on_failure: OnFailure::RollBack,
        gate: Some(gate.clone()),
    };
    check(
        whole,
        "a canary of 1, then waves of 10%; 4 at once; 5m between waves; at most 2 may fail; \
         on failure what was applied is rolled back; gate: no open alerts (asked after 0s, for 1m at most)",
    );
    let other = Strategy {
        canary: Some(named(&["a", "b"])),
        wave: by_region(),
        pause: Pause::Manual,
        max_failures: FailureLimit::Percent(5),
        gate: Some(Gate { sql: Some("select true ".into()), wait: Duration::from_secs(3), ..gate }),
        ..Strategy::default()
    };
    check(
        other,
        "the canary a, b, then a wave for each region; after each wave it is paused until it is resumed; \
         at most 5% may fail; gate: select true, and no open alerts (asked after 3s, for 1m at most)",
    );
}

proptest! {
    #[test]
    fn each_target_is_in_one_wave_and_the_canary_comes_first(
        names in proptest::collection::btree_map("[a-f]{1,3}", proptest::option::of("[x-z]"), 1..40),
        canary in proptest::option::of(1_usize..6),
        size in prop_oneof![
            Just(WaveSize::All),
            (1_u8..=100).prop_map(WaveSize::Percent),
            (1_usize..50).prop_map(WaveSize::Count),
            Just(WaveSize::ByLabel("region".into())),
        ],
        shuffle in any::<prop::sample::Index>(),
    ) {
        let mut targets: Vec<_> = names.iter().map(|(name, region)| Target {
            name: name.clone(),
            labels: region.iter().map(|region| ("region".to_owned(), region.clone())).collect(),
        }).collect();
        let strategy = Strategy { canary: canary.map(Canary::Count), wave: size.clone(), ..Strategy::default() };
        let Ok(laid_out) = waves(&strategy, &targets) else {
            let canaries = canary.unwrap_or_default();
            prop_assert!(targets.iter().skip(canaries).all(|target| target.labels.is_empty()));
            return Ok(());
        };
        let middle = shuffle.index(targets.len());
        targets.rotate_left(middle);
        prop_assert_eq!(waves(&strategy, &targets), Ok(laid_out.clone()));
        let mut found: Vec<_> = laid_out.iter().flat_map(|wave| wave.databases.clone()).collect();
        found.sort();
        prop_assert_eq!(found, names.keys().cloned().collect::<Vec<_>>());
        for (number, wave) in laid_out.iter().enumerate() {
            prop_assert!(!wave.databases.is_empty());
            prop_assert!(wave.databases.is_sorted());
            prop_assert_eq!(wave.is_canary, number == 0 && canary.is_some());
        }
        if let Some(canary) = canary {
            let first: Vec<_> = names.keys().take(canary).cloned().collect();
            prop_assert_eq!(&laid_out[0].databases, &first);
        }
        if let WaveSize::Count(count) = size {
            let others = &laid_out[usize::from(canary.is_some())..];
            prop_assert!(others.iter().rev().skip(1).all(|wave| wave.databases.len() == count));
        }
    }
}
