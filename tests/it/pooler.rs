//! pgbouncer in transaction mode: session locks do not hold there, so Nexus refuses it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    servers::{Server, free_port},
    support::{World, await_that, server},
};

fn start(home: &Path, port: u16, ignore_options: bool) -> Server {
    let more = if ignore_options { "ignore_startup_parameters = options,extra_float_digits\n" } else { "" };
    let url = server().url("postgres");
    let credentials = url.split("://").nth(1).and_then(|rest| rest.split('@').next());
    let (user, password) = credentials.and_then(|both| both.split_once(':')).expect("the URL has both");
    let configuration = format!(
        "[databases]\n* = host=127.0.0.1 port={server} user={user} password={password}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir =\npool_mode = transaction\nauth_type = any\n{more}",
        server = server().port(),
    );
    let path = home.join("pgbouncer.ini");
    fs::write(&path, configuration).expect("the configuration is written");
    for readable in [home, &path] {
        fs::set_permissions(readable, fs::Permissions::from_mode(0o755)).expect("it is made readable");
    }
    // Debian keeps it where an ordinary user's PATH does not look.
    let path_of_all = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("pgbouncer");
    command.env("PATH", path_of_all);
    if nix::unistd::geteuid().is_root() {
        command.args(["-u", "nobody"]);
    }
    let child = command.arg(&path).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let bouncer = Server(child.expect("pgbouncer is installed: see make test"));
    await_that("pgbouncer answers", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    bouncer
}

#[test]
fn a_pooler_in_transaction_mode_is_refused() {
    for ignore_options in [false, true] {
        let port = free_port();
        let world = World::new();
        let bouncer_home = tempfile::tempdir().expect("a directory is made");
        let _bouncer = start(bouncer_home.path(), port, ignore_options);
        let world = world.reached_at(port).start();
        world.tables(1, 1);
        let told = world.ctl(&["apply"]).expect(1);
        assert!(told.contains("NX0044") && told.contains("pooler"), "{told}");
        assert!(world.database.rows().is_empty());
        let locks = world.database.sql("select count(*) from pg_locks where locktype = 'advisory' and database = (select oid from pg_database where datname = current_database())");
        assert_eq!(locks, ["0"], "no lock is left behind");
    }
}
