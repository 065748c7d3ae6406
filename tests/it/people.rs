//! Daemons that let in only whom they know, and the people whom they know.

use std::path::Path;

use serde_json::Value;

use crate::support::{Daemon, Database, Ended, World, await_that, private};

/// A world with a file of those who are let in.
pub(crate) fn guarded(entries: &str) -> World {
    let world = World::new();
    private(&world.path("access.toml"), entries);
    let access = format!("[access]\nfile = {:?}\n", world.path("access.toml").display().to_string());
    world.more(&access)
}

pub(crate) fn token(world_path: &Path, name: &str, more: &[&str]) -> String {
    let out = world_path.join(format!("{name}.token"));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_nexusctl"));
    command.args(["token", "create", "--name", name, "--out"]).arg(&out).args(more);
    let made = Ended::of(&command.output().expect("nexusctl runs"));
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    made.stdout
}

/// A fleet of `main`, which is protected, and `shop`, which is not; and the people about it: `ana` and `bo`
/// are operators of everything, `ana-2` is another token of ana's, `cy` is a viewer, `dee` an operator of
/// `main` only, and `eve` and `fay` are admins.
pub(crate) struct People {
    home: tempfile::TempDir,
    pub(crate) shop: Database,
}

impl People {
    /// The people, and their world with more lines in its `[access]`.
    pub(crate) fn new(access: &str) -> (Self, World) {
        let (home, shop) = (tempfile::tempdir().expect("a directory is made"), Database::new());
        let mut entries = String::new();
        for (name, role, databases) in [
            ("ana", "operator", "*"),
            ("ana-2", "operator", "*"),
            ("bo", "operator", "*"),
            ("cy", "viewer", "*"),
            ("dee", "operator", "main"),
            ("eve", "admin", "*"),
            ("fay", "admin", "*"),
        ] {
            entries += &token(home.path(), name, &["--role", role, "-d", databases]);
        }
        let entries = entries.replace("\"ana-2\"", "\"Ana\"");
        let world = guarded(&entries).more(access).set("protected = true");
        let migrations = world.path("migrations").display().to_string();
        let more =
            format!("[[database]]\nname = \"shop\"\nurl = {:?}\nmigrations = {migrations:?}\n", shop.url);
        let world = world.more(&more);
        world.tables(1, 2);
        (Self { home, shop }, world)
    }

    pub(crate) fn command(&self, daemon: &Daemon, who: &str, arguments: &[&str]) -> std::process::Command {
        let mut command = daemon.ctl_command(arguments);
        command
            .env("NEXUS_SERVER", format!("http://{}", daemon.grpc))
            .env("NEXUS_TOKEN_FILE", self.home.path().join(format!("{who}.token")));
        command
    }

    pub(crate) fn run(&self, daemon: &Daemon, who: &str, arguments: &[&str]) -> Ended {
        Ended::of(&self.command(daemon, who, arguments).output().expect("nexusctl runs"))
    }

    /// Has somebody ask for something; returns the id of the operation, which waits.
    pub(crate) fn ask(&self, daemon: &Daemon, who: &str, arguments: &[&str]) -> String {
        let asked = self.run(daemon, who, &[arguments, &["--detach", "-o", "json"]].concat()).json();
        assert_eq!(asked["awaiting_approval"], true, "{asked}");
        asked["operation_id"].as_str().expect("an id").to_owned()
    }

    pub(crate) fn show(&self, daemon: &Daemon, id: &str) -> Value {
        self.run(daemon, "cy", &["operation", "show", id, "-o", "json"]).json()
    }

    pub(crate) fn state(&self, daemon: &Daemon, id: &str) -> String {
        self.show(daemon, id)["state"].as_str().unwrap_or_default().to_owned()
    }

    /// Approves, and waits for the end.
    pub(crate) fn approve(&self, daemon: &Daemon, who: &str, id: &str) {
        self.run(daemon, who, &["operation", "approve", "-y", id]).expect(0);
        await_that("it is over", || self.state(daemon, id) == "succeeded");
    }
}
