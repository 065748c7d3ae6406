//! Strategies and plans, from the flags to the databases: what is refused first, then what is run,
//! in which waves, and what a run that is held to a plan leaves alone.

use nexus::postgres::names::Names;

use crate::support::{Database, Running, World};

const CAREFUL: &str = "\n[[strategy]]\nname = \"careful\"\ncanary = \"s1\"\nwave = 2\n\
                       [[strategy]]\nname = \"quick\"\nwave = \"50%\"\n";

/// A fleet of `count` schemas `s1`, `s2` … of one PostgreSQL database, in which the odd ones have the
/// region `eu`, and every third has none; `main` is not part of it.
fn tenants(count: usize) -> World {
    let database = Database::new();
    (1..=count).fold(World::on(database), |world, number| {
        world.database.sql(&format!("create schema s{number}"));
        let labels = match number {
            number if number.is_multiple_of(3) => "",
            number if number.is_multiple_of(2) => ", region = \"us\"",
            _ => ", region = \"eu\"",
        };
        let more = format!(
            "\n[[database]]\nname = \"s{number}\"\nschema = \"s{number}\"\nurl = {:?}\nlabels = {{ kind = \"tenant\"{labels} }}\n",
            world.database.url
        );
        world.more(&more)
    })
}

const TENANTS: [&str; 2] = ["--selector", "kind=tenant"];

fn with<'a>(verb: &'a str, flags: &[&'a str]) -> Vec<&'a str> {
    [&[verb], &TENANTS[..], flags].concat()
}

/// How many versions each of the schemas has.
fn rows(world: &Running, schemas: &[&str]) -> Vec<String> {
    let count = |schema: &&str| {
        let table = format!("{schema}.schema_migrations");
        match world.database.sql(&format!("select to_regclass('{table}') is not null"))[0].as_str() {
            "t" => world.database.sql(&format!("select count(*) from {table} where not dirty")).remove(0),
            _ => "-".to_owned(),
        }
    };
    schemas.iter().map(count).collect()
}

fn digest(world: &Running, flags: &[&str]) -> String {
    let plan = world.ctl(&[with("plan", flags), vec!["-o", "json"]].concat()).json();
    plan["digest"].as_str().expect("there is a digest").to_owned()
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_begun() {
    let world = tenants(3).more(CAREFUL).start();
    world.tables(1, 1);
    let check = |flags: &[&str], code: i32, said: &[&str]| {
        let refused = world.ctl(&with("apply", flags)).expect(code);
        assert!(said.iter().all(|said| refused.contains(said)), "{flags:?}: {refused}");
        assert_eq!(rows(&world, &["s1", "s2", "s3"]), ["-", "-", "-"], "{flags:?}");
    };
    check(&["--wave", "0"], 2, &["invalid value '0' for '--wave"]);
    check(&["--wave", "0%"], 2, &["a part from 1% to 100%"]);
    check(&["--max-failures", "200%"], 2, &["a part from 0% to 100%"]);
    check(&["--canary", "0"], 2, &["a number of databases of at least 1"]);
    check(&["--parallel", "0"], 2, &["0 is not in 1.."]);
    check(&["--plan", "xyz"], 2, &["32 hexadecimal digits, a hyphen, and 16 more"]);
    check(&["--canary", "s9"], 1, &["NX0082", "canary s9 is not among the 3 databases"]);
    check(&["--wave", "by-label=regoin"], 1, &["NX0082", "has the label regoin", "region"]);
    check(&["--pause", "manual"], 1, &["NX0082", "nothing to pause between"]);
    check(&["--gate-wait", "5s"], 1, &["NX0082", "There is no gate to wait for"]);
    check(&["--gate", " "], 1, &["NX0082", "The gate's SQL is empty"]);
    check(&["--strategy", "carefull"], 1, &["NX0083", "No strategy carefull", "careful", "quick"]);
    check(&["--selector", "region=mars"], 1, &["NX0050", "matches no database"]);
    let digest = digest(&world, &[]);
    check(&["--plan", &digest, "--dry-run"], 2, &["cannot be used with"]);
    let refused = world.ctl(&with("rollback", &["--yes", "--on-failure", "rollback"])).expect(1);
    assert!(refused.contains("NX0082") && refused.contains("Only what an apply did"), "{refused}");
    // The flags are put over the named strategy: the canary is its.
    check(&["--strategy", "careful", "--canary", "s8"], 1, &["NX0082", "canary s8"]);
}

#[test]
fn a_configuration_with_a_wrong_strategy_names_the_place() {
    let world = World::new().more("\n[[strategy]]\nname = \"a\"\nwave = \"0%\"\n");
    let refused = world.check_config().expect(1);
    assert!(
        refused.contains("nexus.toml:") && refused.contains("strategy \"a\": wave: expected"),
        "{refused}"
    );
    let shown = World::new().more(CAREFUL).check_config().expect(0);
    assert!(shown.contains("[[strategy]]\nname = \"careful\"\ncanary = \"s1\"\nwave = 2\n"), "{shown}");
}

#[test]
fn a_plan_shows_the_waves_and_its_digest() {
    let world = tenants(5).more(CAREFUL).start();
    world.tables(1, 1);
    let shown = world.ctl(&with("plan", &["--strategy", "careful"])).expect(0);
    let heads: Vec<_> = shown.lines().filter(|line| !line.starts_with(' ') && !line.is_empty()).collect();
    let expected = [
        "canary: 1 database",
        "s1: 1 step",
        "wave 1: 2 databases",
        "s2: 1 step",
        "s3: 1 step",
        "wave 2: 2 databases",
        "s4: 1 step",
        "s5: 1 step",
        "strategy: the canary s1, then waves of 2",
    ];
    assert_eq!(heads[..9], expected, "{shown}");
    assert!(heads[9].starts_with("digest: ") && heads[9].len() == 8 + 49, "{shown}");
    // The same plan has the same digest; what is different has another.
    let one = digest(&world, &["--strategy", "careful"]);
    assert_eq!(one, digest(&world, &["--strategy", "careful"]));
    assert_eq!(one, digest(&world, &["--canary", "s1", "--wave", "2"]));
    assert_ne!(one, digest(&world, &["--canary", "s2", "--wave", "2"]));
    assert_ne!(one, digest(&world, &["--strategy", "careful", "--parallel", "1"]));
    let waves =
        world.ctl(&[with("plan", &["--wave", "by-label=region"]), vec!["-o", "json"]].concat()).json();
    let names: Vec<_> = waves["waves"].as_array().expect("a list").iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["region=eu", "region=us", "without region"]);
    // Without a plan for each there is no digest.
    world.database.sql("create table s2.schema_migrations (version bigint, dirty bool)");
    let shown = world.ctl(&with("plan", &[])).expect(1);
    assert!(!shown.contains("digest") && shown.contains("NX0028"), "{shown}");
    let refused = world.ctl(&with("apply", &["--plan", &one, "--strategy", "careful"])).expect(1);
    assert!(refused.contains("NX0084") && refused.contains("no plan for some databases"), "{refused}");
}

#[test]
fn a_run_that_is_held_to_a_plan_does_it_or_nothing() {
    let world = tenants(3).start();
    world.tables(1, 1);
    let schemas = ["s1", "s2", "s3"];
    let then = digest(&world, &["--wave", "1"]);
    let refused = |flags: &[&str], said: &str| {
        let refused = world.ctl(&with("apply", &[&["--plan", &then], flags].concat())).expect(1);
        assert!(refused.contains("NX0084") && refused.contains(said), "{flags:?}: {refused}");
    };
    let before = rows(&world, &schemas);
    refused(&[], "the strategy is not the plan's");
    refused(&["--wave", "1", "--database", "s1"], "the databases that are meant are not those of the plan");
    world.tables(2, 1);
    refused(&["--wave", "1"], "the migration files are not those of the plan");
    world.remove("0002_t2.up.sql");
    world.remove("0002_t2.down.sql");
    let elsewhere = world.ctl(&["apply", "--database", "s2"]);
    elsewhere.expect(0);
    refused(&["--wave", "1"], "the applied migrations are not those of the plan");
    world.ctl(&["rollback", "--database", "s2", "--yes"]).expect(0);
    assert_eq!(before, ["-", "-", "-"]);
    assert_eq!(rows(&world, &schemas), ["-", "0", "-"]);
    // What is planned is there again, and so the plan holds: as often as it is asked for by one id.
    let id = "018f3c5e-7a2b-7c3d-8e4f-0123456789ab";
    let held = ["--plan", &then, "--wave", "1", "--request-id", id];
    world.ctl(&with("apply", &held)).expect(0);
    assert_eq!(rows(&world, &schemas), ["1", "1", "1"]);
    world.ctl(&with("apply", &held)).expect(0);
    refused(&["--wave", "1"], "the applied migrations are not those of the plan");
    // A rollback is held likewise.
    let then = digest_of(&world, &["plan", "rollback"]);
    let other = world.ctl(&with("rollback", &["--yes", "--to", "0", "--plan", &"0".repeat(32)]));
    other.expect(2);
    world.ctl(&with("rollback", &["--yes", "--plan", &then])).expect(0);
    assert_eq!(rows(&world, &schemas), ["0", "0", "0"]);
}

fn digest_of(world: &Running, verb: &[&str]) -> String {
    let plan = world.ctl(&[verb, &TENANTS[..], &["-o", "json"]].concat()).json();
    plan["digest"].as_str().expect("there is a digest").to_owned()
}

#[test]
fn a_database_that_moves_while_the_run_waits_for_it_is_left_alone() {
    let world = tenants(3).start();
    world.tables(1, 1);
    world.ctl(&with("apply", &[])).expect(0);
    world.tables(2, 1);
    let then = digest(&world, &[]);
    let dbname = world.database.sql("select current_database()").remove(0);
    let key = Names::new("s2", "schema_migrations").lock_key(&dbname);
    let held = world.database.hold(&format!("select pg_advisory_lock({key})"));
    let apply = world.daemon.ctl_begin(&with("apply", &["--plan", &then]));
    // The plan is made sure of, and the run waits for the lock of one database.
    world.database.await_row("select 1 from s3.schema_migrations where version = '0002_t2' and not dirty");
    crate::support::await_that("the wait for the lock", || {
        world.logged("Waiting for the migration lock").iter().any(|line| line["database"] == "s2")
    });
    world.database.sql("update s2.schema_migrations set applied_at = applied_at - interval '1 day'");
    drop(held);
    let told = apply.end().expect(1);
    assert!(told.contains("s2") && told.contains("NX0084"), "{told}");
    assert!(told.contains("the applied migrations are not those of the plan"), "{told}");
    assert_eq!(rows(&world, &["s1", "s2", "s3"]), ["2", "1", "2"]);
    assert_eq!(world.database.sql("select to_regclass('s2.t2') is null"), ["t"]);
}

#[test]
fn a_canary_that_fails_is_all_that_is_touched() {
    let world = tenants(5).more(CAREFUL).start();
    world.tables(1, 1);
    world.database.sql("create table s1.t1 (in_the_way int)");
    let told = world.ctl(&with("apply", &["--strategy", "careful"]));
    assert_ne!(told.code, Some(0), "{told:?}");
    assert_eq!(rows(&world, &["s1", "s2", "s3", "s4", "s5"]), ["0", "-", "-", "-", "-"]);
}

#[test]
fn gates_are_asked_after_each_wave() {
    let world = tenants(3).start();
    world.tables(1, 1);
    let schemas = ["s1", "s2", "s3"];
    let gate = |sql: &str| {
        let flags = ["--canary", "s1", "--gate", sql, "--gate-limit", "1s", "--output", "json"];
        world.ctl(&with("apply", &flags))
    };
    // It does not hold: what is beyond the canary is not begun.
    let told = gate("select count(*) > 5 from t1");
    assert_ne!(told.code, Some(0), "{told:?}");
    assert_eq!(rows(&world, &schemas), ["1", "-", "-"]);
    world.ctl(&["rollback", "--database", "s1", "--yes"]).expect(0);
    // It holds, and is asked on the schema of each database.
    let told = gate("select count(*) = 0 from t1");
    assert_eq!(told.code, Some(0), "{told:?}");
    assert_eq!(rows(&world, &schemas), ["1", "1", "1"]);
}
