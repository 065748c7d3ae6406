//! `nexusctl` without a daemon: its own files, its checksums, its exit codes.

use std::{fs, net::TcpListener, path::Path, process::Command as Process};

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

fn nexusctl(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nexusctl"));
    command.current_dir(directory).env_remove("NEXUS_SERVER");
    command
}

fn project() -> TempDir {
    let project = TempDir::new().expect("a temporary directory");
    fs::create_dir(project.path().join("migrations")).expect("it is ours");
    project
}

/// Runs it; gives the exit code, stdout and stderr.
fn run(command: &mut Command) -> (i32, String, String) {
    let output = command.output().expect("nexusctl starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("no signal"), text(output.stdout), text(output.stderr))
}

/// An address where nothing listens.
fn closed_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").to_string()
}

#[test]
fn new_writes_the_next_pair() {
    let project = project();
    let (code, stdout, stderr) = run(nexusctl(project.path()).args(["new", "Create users"]));
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(stdout, "migrations/0001_create_users.up.sql\nmigrations/0001_create_users.down.sql\n");
    fs::write(project.path().join("migrations/0010_add_products.up.sql"), "SELECT 1;").expect("it is ours");
    let (_, stdout, _) = run(nexusctl(project.path()).args(["new", "add-orders", "-o", "json"]));
    let document: Value = serde_json::from_str(&stdout).expect("one document");
    assert_eq!(document["version"], "0011_add_orders");
    let up = fs::read_to_string(project.path().join("migrations/0011_add_orders.up.sql")).expect("written");
    assert!(
        up.starts_with("-- 0011_add_orders.up.sql\n-- Migration: add orders\n-- Version: 0011\n"),
        "{up}"
    );
}

#[test]
fn new_follows_the_digits_in_use() {
    let project = project();
    fs::write(project.path().join("migrations/000041_x.up.sql"), "SELECT 1;").expect("it is ours");
    let (_, stdout, _) = run(nexusctl(project.path()).args(["new", "y"]));
    assert!(stdout.starts_with("migrations/000042_y.up.sql\n"), "{stdout}");
    fs::write(project.path().join("migrations/20240101000000_z.up.sql"), "SELECT 1;").expect("it is ours");
    let (_, stdout, _) = run(nexusctl(project.path()).args(["new", "stamped"]));
    let number = stdout.trim_start_matches("migrations/").split('_').next().expect("a number");
    assert_eq!(number.len(), 14, "{stdout}");
    assert!(number.starts_with("20"), "{stdout}");
}

#[test]
fn new_refuses_what_it_cannot_name_and_where_it_cannot_write() {
    let project = project();
    for name in ["../x", "0010_add", "a.b", ""] {
        let (code, stdout, stderr) = run(nexusctl(project.path()).args(["new", name]));
        assert_eq!((code, stdout.as_str()), (2, ""), "{name:?}: {stderr}");
    }
    assert_eq!(fs::read_dir(project.path().join("migrations")).expect("it is there").count(), 0);
    let (code, _, stderr) = run(nexusctl(project.path()).args(["new", "x", "--dir", "nowhere"]));
    assert_eq!(code, 1);
    assert!(stderr.starts_with("error: Cannot read the directory nowhere: "), "{stderr}");
    assert!(stderr.contains("\n  hint: create it"), "{stderr}");
}

#[test]
fn checksum_is_sha256sum() {
    let project = project();
    let names =
        ["0002_b.up.sql", "0010_a.up.sql", "0010_a.down.sql", "with\\back.up.sql", "with\nline.up.sql"];
    for (index, name) in names.iter().enumerate() {
        let text = format!("-- {index}\r\nSELECT 'é';\n");
        fs::write(project.path().join("migrations").join(name), text).expect("it is ours");
    }
    let files = names.map(|name| format!("migrations/{name}"));
    let sha256sum = |files: &[String]| {
        let output = Process::new("sha256sum").args(files).current_dir(project.path()).output();
        output.expect("coreutils are installed").stdout
    };
    let all = nexusctl(project.path()).arg("checksum").args(&files).output().expect("nexusctl starts");
    assert_eq!(String::from_utf8(all.stdout), String::from_utf8(sha256sum(&files)));
    let ups = nexusctl(project.path()).arg("checksum").output().expect("nexusctl starts");
    assert_eq!(String::from_utf8(ups.stdout), String::from_utf8(sha256sum(&files[..2])), "in their order");
    let (code, stdout, _) = run(nexusctl(project.path()).args(["checksum", "-"]).write_stdin(""));
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  -\n";
    assert_eq!((code, stdout.as_str()), (0, empty));
}

#[test]
fn a_file_that_cannot_be_read_does_not_stop_the_others() {
    let project = project();
    fs::write(project.path().join("a"), "a").expect("it is ours");
    let (code, stdout, stderr) = run(nexusctl(project.path()).args(["checksum", "gone", "a"]));
    assert_eq!(code, 1);
    assert!(stdout.ends_with("  a\n"), "{stdout}");
    assert_eq!(stderr, "error: Cannot read gone: No such file or directory (os error 2)\n");
}

#[test]
fn wrong_usage_exits_2() {
    let project = project();
    for line in [
        "",
        "applly",
        "rollback --steps two",
        "apply --all -d orders",
        "apply -l prod",
        "apply -l env=",
        "apply -l =prod",
        "repair forget 0010_x",
        "repair forget 0010_x --reason=",
        "--server ftp://x status",
        "--server host:port status",
    ] {
        let (code, stdout, stderr) = run(nexusctl(project.path()).args(line.split_whitespace()));
        assert_eq!((code, stdout.as_str()), (2, ""), "{line:?}: {stderr}");
        assert!(!stderr.is_empty(), "{line:?}");
    }
    let (code, _, stderr) = run(nexusctl(project.path()).args(["status", "--timeout", "banana"]));
    assert_eq!(code, 2);
    let expected = "'banana' for '--timeout <DURATION>': expected a time longer than 0, such as 500ms";
    assert!(stderr.contains(expected), "{stderr}");
    let (code, _, stderr) = run(nexusctl(project.path()).arg("databases").env("NEXUS_SERVER", "ftp://x"));
    assert_eq!(code, 2);
    assert!(stderr.contains("expected host:port, https://host:port"), "{stderr}");
}

#[test]
fn an_unreachable_daemon_exits_4_and_names_the_address() {
    let project = project();
    let address = closed_port();
    let commands = [
        "apply",
        "rollback",
        "recover",
        "plan",
        "status --check",
        "history",
        "databases",
        "repair forget 1 --reason x",
    ];
    for line in commands {
        let args = line.split_whitespace();
        let (code, stdout, stderr) = run(nexusctl(project.path()).args(["--server", &address]).args(args));
        assert_eq!((code, stdout.as_str()), (4, ""), "{line}: {stderr}");
        let what = format!("error: Cannot reach nexusd at http://{address}: Connection refused");
        assert!(stderr.starts_with(&what), "{line}: {stderr}");
        assert!(stderr.contains("\n  hint: is nexusd running there?"), "{line}: {stderr}");
    }
    let (code, _, stderr) = run(nexusctl(project.path()).args(["--server", "unix:gone.sock", "status"]));
    assert_eq!(code, 4);
    assert!(stderr.starts_with("error: Cannot reach nexusd at unix:gone.sock: No such file"), "{stderr}");
}

#[test]
fn a_failure_is_a_document_too() {
    let project = project();
    let address = closed_port();
    let (code, stdout, _) = run(nexusctl(project.path()).args(["--server", &address, "apply", "-o", "json"]));
    assert_eq!(code, 4);
    let document: Value = serde_json::from_str(&stdout).expect("one document");
    let message = document["error"]["message"].as_str().expect("a message");
    assert!(message.contains(&address), "{message}");
}

#[test]
fn a_silent_listener_is_given_up() {
    let project = project();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    // It takes the connection and never says a word: the keep-alive notices.
    let (code, _, stderr) =
        run(nexusctl(project.path()).args(["--server", &address, "--timeout", "200ms", "databases"]));
    assert_eq!(code, 4, "{stderr}");
    drop(listener);
}

#[test]
fn the_version_is_told_without_a_daemon() {
    let project = project();
    let address = closed_port();
    let (code, stdout, stderr) = run(nexusctl(project.path()).args(["--server", &address, "version"]));
    assert_eq!((code, stdout), (0, format!("nexusctl {}\n", env!("CARGO_PKG_VERSION"))));
    assert!(stderr.contains("Connection refused"), "{stderr}");
}

#[test]
fn options_may_come_before_the_command() {
    let project = project();
    let address = closed_port();
    for line in ["--database x -y apply", "-l env=prod status", "--all history"] {
        let args = line.split_whitespace();
        let (code, _, stderr) = run(nexusctl(project.path()).args(["--server", &address]).args(args));
        assert_eq!(code, 4, "{line}: {stderr}");
    }
}

#[test]
fn help_leaves_out_what_means_nothing() {
    let project = project();
    let help = |command: &str| run(nexusctl(project.path()).args([command, "--help"])).1;
    for command in ["new", "checksum", "completions", "version", "health"] {
        let help = help(command);
        for option in ["--yes", "--request-id", "--database", "--selector", "--all"] {
            assert!(!help.contains(option), "{command}: {option}: {help}");
        }
    }
    assert!(help("status").contains("--selector") && !help("status").contains("--request-id"));
    assert!(help("apply").contains("--request-id"));
}

#[test]
fn completions_know_the_commands() {
    let project = project();
    for shell in ["bash", "zsh", "fish"] {
        let (code, stdout, _) = run(nexusctl(project.path()).args(["completions", shell]));
        assert_eq!(code, 0);
        assert!(stdout.contains("rollback") && stdout.contains("mark-applied"), "{shell}");
    }
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let project = project();
    let script = format!(
        "{} completions bash | head -c 1 >/dev/null; echo ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_nexusctl")
    );
    let output = Process::new("bash").args(["-c", &script]).current_dir(project.path()).output();
    let output = output.expect("bash is installed");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
