//! Tests of included files and of discoveries.

use std::fs;

use super::*;

/// Loads a main file with others beside it.
fn load(main: &str, others: &[(&str, &str)]) -> (tempfile::TempDir, Result<Config, ConfigError>) {
    let home = tempfile::tempdir().expect("a directory");
    for (name, text) in others {
        let path = home.path().join(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("a directory is made");
        fs::write(path, text).expect("it is written");
    }
    let main_file = home.path().join("nexus.toml");
    fs::write(&main_file, main).expect("it is written");
    fs::set_permissions(&main_file, fs::Permissions::from_mode(0o600)).expect("its mode is set");
    let loaded = Config::load(Some(&main_file), [], &Overrides::default());
    (home, loaded)
}

const INCLUDE: &str = "include = [\"teams/*.toml\", \"more/**/*.toml\", \"*.toml\"]\n";

fn database(name: &str) -> String {
    format!("[[database]]\nname = \"{name}\"\nurl = \"postgres://u@h/{name}\"\n")
}

#[test]
fn included_files_have_defaults_and_places_of_their_own() {
    let main = format!(
        "{INCLUDE}[defaults]\nlock_wait = \"2s\"\nmigrations = \"sql\"\n[defaults.labels]\nenv = \"prod\"\n{}",
        database("main")
    );
    let own = format!(
        "[defaults]\nlock_wait = \"3s\"\nmigrations = \"own\"\nlabels = {{ team = \"b\" }}\n{}",
        database("b")
    );
    let deep = format!("\n{}migrations = \"../there\"\n", database("c"));
    let a = database("a");
    let others = [
        ("teams/b.toml", own.as_str()),
        ("teams/a.toml", &a),
        ("teams/.hidden.toml", "no TOML"),
        ("more/x/y/c.toml", &deep),
    ];
    let (home, loaded) = load(&main, &others);
    let config = loaded.expect("it is well-formed");
    let names: Vec<_> = config.databases.iter().map(|database| database.name.as_str()).collect();
    assert_eq!(names, ["main", "a", "b", "c"], "the main file's first, itself not included");
    let at = |path: &str| home.path().join(path);
    let migrations: Vec<_> = config.databases.iter().map(|it| it.settings.migrations.clone()).collect();
    assert_eq!(migrations, [at("sql"), at("sql"), at("teams/own"), at("more/x/y/../there")]);
    let waits: Vec<_> = config.databases.iter().map(|it| it.settings.lock_wait.as_secs()).collect();
    assert_eq!(waits, [2, 2, 3, 2]);
    let labels = |index: usize| {
        let labels: Vec<_> = config.databases[index].labels.iter().collect();
        labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
    };
    assert_eq!((labels(1).as_str(), labels(2).as_str()), ("env=prod", "env=prod,team=b"));
    assert_eq!(config.databases[3].place.line, 2);
    assert!(config.sources.contains(&at("teams")) && config.sources.contains(&at("teams/a.toml")));
    assert_eq!(config.warnings, Vec::<String>::new());
    assert!(config.to_masked_toml().contains("# Included "));
}

#[test]
fn what_is_wrong_in_an_included_file_is_told_with_its_place() {
    let check = |main: &str, others: &[(&str, &str)], expected: &[&str]| {
        let error = load(main, others).1.expect_err("it is refused").to_string();
        assert!(expected.iter().all(|part| error.contains(part)), "{error}");
    };
    let main = format!("{INCLUDE}{}", database("main"));
    let again = format!("\n{}", database("main"));
    check(
        &main,
        &[("teams/a.toml", &again)],
        &["teams/a.toml:3:8: ", "nexus.toml:3:8 has this name already"],
    );
    let a = database("a");
    check(
        &main,
        &[("teams/a.toml", &a), ("teams/b.toml", &a)],
        &["teams/b.toml:2:8: database \"a\": ", "teams/a.toml:2:8 has this name already"],
    );
    check(
        &main,
        &[("teams/a.toml", "[log]\n")],
        &["teams/a.toml:1:2: unknown key `log`", "it belongs in the main file"],
    );
    check(&main, &[("teams/a.toml", "[[x]\n")], &["teams/a.toml:1:5: "]);
    check("include = \"teams\"\n", &[], &["nexus.toml:1:11: include: expected a list such as"]);
    check("include = [\"a[\"]\n", &[], &["nexus.toml:1:12: include: \"a[\" is not a glob"]);
    check(&format!("{}\ninclude = [\"x\"]\n", database("a")), &[], &["it belongs in the top of the file"]);
    let (_home, nothing) = load("include = [\"none/*.toml\"]\n", &[]);
    let warnings = nothing.expect("it is well-formed").warnings;
    assert!(
        warnings[0].ends_with("nexus.toml:1:11: include: no file matches \"none/*.toml\""),
        "{warnings:?}"
    );
}

const TENANTS: &str = "[[discover]]\nurl = \"postgres://u:hunter2@h/shop\"\n";

#[test]
fn discoveries() {
    let text = format!(
        "[defaults]\nlock_wait = \"2s\"\n{TENANTS}query = \"select 1 as name; \"\n\
         {TENANTS}id = \"t\"\nschemas = [\"t_*\"]\nexclude = [\"t_x\"]\nname = \"{{dbname}}-{{schema}}\"\n\
         labels = {{ a = \"b\" }}\nevery = \"5m\"\nlimit = 7\ntimeout = \"1s\"\nlock_wait = \"9s\"\n"
    );
    let config = parse(&text).expect("it is well-formed");
    let [query, schemas] = config.discoveries.as_slice() else { unreachable!("there are two") };
    assert_eq!((query.id.as_str(), &query.find), ("discover-1", &Find::Query("select 1 as name".into())));
    assert_eq!((query.every.as_secs(), query.limit, query.settings.lock_wait.as_secs()), (60, 5_000, 2));
    assert_eq!((schemas.id.as_str(), &schemas.find), ("t", &Find::Schemas(vec!["t_*".into()])));
    assert_eq!((schemas.every.as_secs(), schemas.limit, schemas.settings.lock_wait.as_secs()), (300, 7, 9));
    let printed = config.to_masked_toml();
    assert!(!printed.contains("hunter2"), "{printed}");
    let again = Config::parse(&printed, None, [], &Overrides::default()).expect("it is one itself");
    assert_eq!((&again.discoveries[1].find, &again.discoveries[1].name), (&schemas.find, &schemas.name));
    let text = format!("{TENANTS}query = \"select 'postgres://u:hunter2@h/x' as name\"\n");
    let printed = parse(&text).expect("it is well-formed").to_masked_toml();
    assert!(!printed.contains("hunter2") && printed.contains("query = "), "{printed}");
    for key in discover::KEYS {
        assert!(EXAMPLE.contains(&format!("{key} = ")) || EXAMPLE.contains(&format!("#{key} = ")), "{key}");
    }
}

#[test]
fn discoveries_that_are_refused() {
    let check = |lines: &str, expected: &str| {
        let message = refusal(&format!("{TENANTS}{lines}\n"));
        let first = message.lines().find(|line| line.starts_with("etc/")).unwrap_or_default().to_owned();
        assert_eq!(first.strip_prefix("etc/nexus.toml:"), Some(expected), "{lines}");
    };
    let of = "discover \"discover-1\": ";
    check("", &format!("1:1: {of}what to look for is missing: give query, databases or schemas"));
    check(
        "schemas = [\"a\"]\nquery = \"select 1\"",
        &format!("3:11: {of}query and schemas are both given; keep one"),
    );
    check("schemas = []", &format!("3:11: {of}schemas: at least one name or glob is needed"));
    check(
        "schemas = [\"a[\"]",
        &format!("3:12: {of}schemas: \"a[\" is not a glob: unclosed character class; missing ']'"),
    );
    check(
        "query = \"select 1\"\nexclude = [\"a\"]",
        &format!("4:11: {of}exclude goes with databases or schemas: a query leaves out by itself"),
    );
    check(
        "schemas = [\"a\"]\nname = \"{dbname}\"",
        &format!("4:8: {of}name: every database would have this name; it needs {{schema}}"),
    );
    check(
        "databases = [\"a\"]\nname = \"{name}-{dbname}\"",
        &format!("4:8: {of}name: {{name}} is a column of a query"),
    );
    check(
        "databases = [\"a\"]\nname = \"a b\"",
        &format!(
            "4:8: {of}name: expected a name of letters, digits, `_`, `.` and `-`, with {{name}}, {{dbname}} or \
             {{schema}} in it, found \"a b\""
        ),
    );
    check(
        "databases = [\"a\"]\nlimit = 10001",
        &format!("4:9: {of}limit: expected a whole number from 1 to 10000, found \"10001\""),
    );
    check(
        "databases = [\"a\"]\nevry = \"1m\"",
        &format!("4:1: {of}unknown key `evry`; did you mean `every`?"),
    );
    let twice =
        refusal(&format!("{TENANTS}id = \"t\"\nschemas = [\"a\"]\n{TENANTS}id = \"t\"\nschemas = [\"a\"]\n"));
    assert!(twice.contains("discover \"t\": another one has this id; ids are unique"), "{twice}");
}

#[test]
fn what_needs_a_restart() {
    let running = parse(&format!("[limits]\nmax_parallel = 3\n{ORDERS}")).expect("it is well-formed");
    let check = |text: &str, expected: &[&str], is_same: bool| {
        let config = parse(text).expect("it is well-formed");
        assert_eq!(config.needing_a_restart(&running), expected, "{text}");
        assert_eq!(config.has_the_same_fleet(&running), is_same, "{text}");
    };
    check(&format!("[limits]\nmax_parallel = 3\n{ORDERS}"), &[], true);
    // The place is shown with each database.
    check(&format!("\n[limits]\nmax_parallel = 3\n{ORDERS}"), &[], false);
    check(&format!("[limits]\nmax_parallel = 3\n{ORDERS}schema = \"s\"\n"), &[], false);
    check(&format!("[limits]\nmax_parallel = 4\n{ORDERS}"), &["[limits]"], true);
    let sink = "[[alerts.webhook]]\nurl = \"http://h/x\"\n";
    check(&format!("[limits]\nmax_parallel = 3\n{ORDERS}{sink}"), &["[alerts]"], true);
}

#[test]
fn another_file_to_be_watched_is_another_fleet() {
    let main = format!("include = [\"teams/*.toml\"]\n{}", database("main"));
    let (home, loaded) = load(&main, &[("teams/.none", ""), ("more/.none", "")]);
    let before = loaded.expect("it is well-formed");
    let main_file = home.path().join("nexus.toml");
    let again = || Config::load(Some(&main_file), [], &Overrides::default()).expect("it is well-formed");
    assert!(again().has_the_same_fleet(&before));
    fs::write(&main_file, main.replace("teams/*.toml", "more/*.toml")).expect("it is written");
    assert!(!again().has_the_same_fleet(&before), "nothing is in either, and another one is watched");
}
