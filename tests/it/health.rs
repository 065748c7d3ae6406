//! `nexusctl health`, as probes run it.

use nix::sys::signal::Signal;

use crate::support::{World, await_that};

#[test]
fn tells_whether_the_daemon_takes_requests() {
    let mut world = World::new().start();
    assert!(world.ctl(&["health"]).expect(0).contains("takes requests"));
    assert_eq!(world.ctl(&["health", "--output", "json"]).json()["serving"], true);

    // While it lets a step end it answers, and takes no more.
    world.migration("0001_slow", "select pg_sleep(3);", "select 1;");
    let mut apply = world.daemon.ctl_command(&["apply"]).spawn().expect("nexusctl runs");
    world.database.await_row("select 1 from pg_stat_activity where query like '%pg_sleep(3)%' and state = 'active' and pid <> pg_backend_pid()");
    world.daemon.signal(Signal::SIGTERM);
    await_that("the daemon says that it stops", || world.ctl(&["health"]).code == Some(1));
    let told = world.ctl(&["health"]).expect(1);
    assert!(told.contains("takes no requests: it is starting or stopping"), "{told}");

    let _ = apply.wait().expect("nexusctl ends");
    assert_eq!(world.daemon.wait(), Some(0));
    world.ctl(&["health"]).expect(4);
}
