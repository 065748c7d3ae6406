//! The status of many databases: it is told without opening them where that is certain, and only there.

use nexus::postgres::embedded::Embedded;

use crate::support::{Database, Running, World, await_that};

/// Four databases of one server, none of whose connections is kept but one's; nobody else is there, and no
/// poll comes in between.
fn fleet(server: &Embedded) -> (Running, Vec<Database>) {
    let others: Vec<_> = ["b", "c", "d"].map(|name| Database::on(server, name)).into();
    let more = String::from("\n[watch]\npoll = \"1h\"\n[limits]\nmax_connections_per_server = 2\n");
    let more = others.iter().zip(["b", "c", "d"]).fold(more, |more, (database, name)| {
        format!(
            "{more}\n[[database]]\nname = \"{name}\"\nurl = {:?}\nmigrations = \"migrations\"\n",
            database.url
        )
    });
    let world = World::on(Database::on(server, "a")).more(&more).start();
    world.tables(1, 3);
    world.ctl(&["apply", "--all"]).expect(0);
    world.ctl(&["rollback", "-d", "c", "--yes"]).expect(0);
    (world, others)
}

fn status(world: &Running) -> String {
    world.ctl(&["status", "--all"]).expect(0)
}

#[test]
fn what_nobody_can_have_written_to_is_not_opened_and_what_somebody_has_is() {
    let server = Embedded::start(&[("autovacuum", "off")]).expect("PostgreSQL starts");
    let (world, others) = fleet(&server);
    let [b, c, _] = others.as_slice() else { unreachable!("there are three") };
    let sessions = || {
        let sql =
            "select datname, sessions from pg_stat_database where datname in ('b', 'c', 'd') order by 1";
        world.database.sql(sql)
    };
    let read = status(&world);
    await_that("a status that opens nothing", || {
        let before = sessions();
        assert_eq!(status(&world), read);
        sessions() == before
    });
    assert!(read.contains("4 databases: 3 ✓ Clean, 1 · Pending"), "{read}");
    // Whoever wants all of it has it read.
    let before = sessions();
    let whole = world.ctl(&["status", "--all", "--output", "json"]).json();
    assert_ne!(sessions(), before);
    let counts: Vec<_> =
        whole["databases"].as_array().expect("a list").iter().map(|it| &it["applied"]).collect();
    assert_eq!(counts, [3, 2, 3, 3]);

    // A session counts what it wrote only when it is idle; what is committed is seen all the same.
    let written = std::thread::scope(|scope| {
        let sql = "begin; update schema_migrations set dirty = true where version = '0002_t2'; commit; \
                      select pg_sleep(600)";
        let writer = scope.spawn(|| b.try_sql(sql));
        b.await_row("select 1 from schema_migrations where dirty");
        let shown = world.ctl(&["status", "--all"]).expect(0);
        let end = "select pg_terminate_backend(pid) from pg_stat_activity where query like 'begin; update%'";
        world.database.sql(end);
        (shown, writer.join().expect("it ends").is_err())
    });
    assert!(written.0.contains("1 ⚠️  DIRTY") && written.1, "{}", written.0);
    b.sql("update schema_migrations set dirty = false");
    assert_eq!(status(&world), read);
    // What was written is seen at once, however it was.
    c.sql("insert into schema_migrations (version, checksum) select '0003_t3', 'other'");
    let shown = status(&world);
    assert!(shown.contains("4 databases: 3 ✓ Clean, 1") && !shown.contains("Pending"), "{shown}");
    // A migration that is new is pending everywhere, though nothing was written.
    world.tables(4, 1);
    assert!(status(&world).contains("Pending"));
}
