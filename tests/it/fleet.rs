//! Several databases: selections, labels, one that fails beside others that do not.

use nexus::postgres::embedded::Embedded;

use crate::support::{Database, World, await_that};

fn fleet() -> (World, Database, Database) {
    let (second, third) = (Database::new(), Database::new());
    let more = format!(
        "[[database]]\nname = \"orders-eu\"\nurl = {:?}\nlabels = {{ env = \"prod\" }}\n\
         [[database]]\nname = \"orders-us\"\nurl = {:?}\nlabels = {{ env = \"staging\" }}\n",
        second.url, third.url
    );
    (World::new().set("labels = { env = \"prod\" }").more(&more), second, third)
}

#[test]
fn selections_reach_what_they_name() {
    let (world, second, third) = fleet();
    let world = world.start();
    world.tables(1, 2);
    let refused = world.ctl(&["apply"]).expect(1);
    assert!(
        ["NX0051", "main", "orders-eu", "orders-us"].iter().all(|name| refused.contains(name)),
        "{refused}"
    );
    world.ctl(&["apply", "--database", "orders-*", "--selector", "env=staging"]).expect(0);
    assert_eq!((second.rows().len(), third.rows().len()), (0, 2));
    world.ctl(&["apply", "--selector", "env=prod"]).expect(0);
    assert_eq!((world.database.rows().len(), second.rows().len()), (2, 2));
    world.ctl(&["rollback", "--all", "--steps=2", "--yes"]).expect(0);
    assert!([&world.database, &second, &third].iter().all(|database| database.rows().is_empty()));
    let listed = world.ctl(&["databases", "--output", "json"]).json();
    assert_eq!(listed["databases"].as_array().map(Vec::len), Some(3));
}

#[test]
fn one_that_fails_does_not_stop_the_others() {
    let (world, second, third) = fleet();
    let world = world.start();
    world.tables(1, 2);
    second.sql("create table t2 (in_the_way int)");
    let result = world.ctl(&["apply", "--all", "--output", "json"]);
    assert_eq!(result.code, Some(1));
    let result = result.json();
    let outcomes: Vec<_> =
        result["databases"].as_array().expect("a list").iter().map(|it| it["outcome"].clone()).collect();
    assert_eq!(outcomes, ["succeeded", "failed", "succeeded"]);
    assert_eq!(
        result["databases"][1]["done"].as_array().map(Vec::len),
        Some(1),
        "what had succeeded is told"
    );
    assert_eq!(second.rows(), ["0001_t1|f", "0002_t2|t"]);
    assert_eq!((world.database.rows().len(), third.rows().len()), (2, 2));
    let status = world.ctl(&["status", "--check"]).expect(3);
    assert!(status.contains("orders-eu") && status.contains("DIRTY"), "{status}");
}

#[test]
fn schemas_and_tables_of_ones_own() {
    let world = World::new().set("schema = \"tenant one\"\ntable = \"my_migrations\"").start();
    world.database.sql("create schema \"tenant one\"");
    world.tables(1, 2);
    world.ctl(&["apply"]).expect(0);
    let there = "select count(*) from pg_tables where schemaname = 'tenant one'";
    assert_eq!(world.database.sql(there), ["4"], "two of the user's, the rows, the journal");
    assert!(world.database.tables().is_empty());
    world.ctl(&["rollback", "--to=0"]).expect(0);
    assert_eq!(world.database.sql(there), ["2"]);
}

#[test]
fn two_entries_for_one_database_do_not_race() {
    let world = World::new();
    let more = format!("[[database]]\nname = \"again\"\nurl = {:?}\n", world.database.url);
    let world = world.more(&more).start();
    world.tables(1, 20);
    world.ctl(&["apply", "--all"]).expect(0);
    assert_eq!(world.database.sql("select count(*) from nexus_journal"), ["20"]);
}

#[test]
fn entries_with_one_directory_keep_their_own_options() {
    let second = Database::new();
    let world = World::new();
    let more = format!(
        "[[database]]\nname = \"deep\"\nurl = {:?}\nmigrations = {:?}\nrecursive = true\n",
        second.url,
        world.path("migrations").display().to_string()
    );
    let world = world.more(&more).start();
    world.tables(1, 1);
    std::fs::create_dir(world.path("migrations/more")).expect("a directory is made");
    world.migration("more/0002_b", "create table b (id int);", "drop table b;");
    world.ctl(&["apply", "--all"]).expect(0);
    assert_eq!((world.database.rows().len(), second.rows().len()), (1, 2));
}

#[test]
fn a_server_keeps_no_more_connections_than_it_is_allowed() {
    let server = Embedded::start(&[]).expect("PostgreSQL starts");
    let first = Database::on(&server, "tenant_0");
    let mut more = "\n[limits]\nmax_connections_per_server = 4\nidle_connection = \"10m\"\n".to_owned();
    for number in 1..24 {
        // Half of them are databases of their own, half are schemas of one.
        let (url, schema) = if number % 2 == 0 {
            (Database::on(&server, &format!("tenant_{number}")).url, "public".to_owned())
        } else {
            first.sql(&format!("create schema tenant_{number}"));
            (first.url.clone(), format!("tenant_{number}"))
        };
        let entry = format!("[[database]]\nname = \"tenant-{number}\"\nurl = {url:?}\nschema = {schema:?}\n");
        more += &entry;
        more += "migrations = \"migrations\"\n";
    }
    let world = World::on(Database::existing(&server, "tenant_0")).more(&more).start();
    world.tables(1, 1);
    let sessions = || {
        let count = "select count(*) from pg_stat_activity where application_name like 'nexusd%'";
        first.sql(count)[0].parse::<u32>().expect("a number")
    };
    // What ran a migration is closed; what only looked stays warm.
    for (command, least) in [("apply", 0), ("apply", 3), ("status", 3), ("history", 3)] {
        world.ctl(&[command, "--all"]).expect(0);
        // Four for operations, two for looks; a session that was closed takes a moment to end.
        await_that("no more than six sessions", || sessions() <= 6);
        assert!(sessions() >= least, "some stay warm after {command}");
    }
}
