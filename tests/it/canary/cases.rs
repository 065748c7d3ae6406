//! What goes wrong, with a secret in the middle of it: migrations that fail, configurations that are refused.

use super::scan::Scan;

/// A migration that fails.
pub(super) struct Failing {
    pub(super) what: &'static str,
    pub(super) up: String,
    /// Part of what the operator is told: it failed for the reason that is meant.
    pub(super) told: &'static str,
}

/// What a script itself says of a row, for the one who runs it: in the answer, and nowhere else.
pub(super) const RAISED: &str = "a row's value that the script raises";

/// The values of rows that the failures quote: what `people` holds.
pub(super) struct Rows {
    pub(super) number: String,
    pub(super) mail: String,
    pub(super) word: String,
    pub(super) raised: String,
}

impl Rows {
    pub(super) fn plant(scan: &mut Scan) -> Self {
        Self {
            number: scan.plant("a row's value that is quoted in messages and queries"),
            mail: scan.plant("a row's value in DETAIL"),
            word: scan.plant("a row's value in CONTEXT"),
            raised: scan.plant(RAISED),
        }
    }

    pub(super) fn table(&self) -> String {
        let Self { number, mail, word, raised } = self;
        format!(
            "create table people (id int, number text, mail text, word text, raised text); \
             insert into people values (1, '{number}', '{mail}', '{word}', '{raised}'), \
               (2, '{number}', '{mail}', '{word}', '{raised}'); \
             create role canary_there; create foreign data wrapper canary_wrapper; \
             create server canary_server foreign data wrapper canary_wrapper;"
        )
    }
}

/// Migrations that fail by the values of rows.
pub(super) fn by_rows() -> Vec<Failing> {
    let of = |what, up: &str, told| Failing { what, up: up.to_owned(), told };
    let dynamic = |what, sql: &str, told| Failing {
        what,
        up: format!(
            "do $$ declare v text; w text; begin select number, word into v, w from people limit 1; execute {sql}; end $$;\n"
        ),
        told,
    };
    vec![
        of("message of a cast", "alter table people alter number type int using number::int;\n", "22P02"),
        of("DETAIL of a unique index", "create unique index on people (mail);\n", "23505"),
        of("DETAIL of a check", "alter table people add check (mail is null);\n", "23514"),
        of(
            "DETAIL of not null",
            "insert into people select 3, mail from people;\nalter table people alter word set not null;\n",
            "23502",
        ),
        of(
            "DETAIL of a failing row",
            "alter table people alter id set not null;\ninsert into people select null, mail, word from people;\n",
            "23502",
        ),
        of(
            "message, DETAIL and HINT that are raised",
            "do $$ declare v text; begin select raised into v from people limit 1;\n\
             raise exception 'bad customer %', v using detail = 'detail ' || v, hint = 'hint ' || v; end $$;\n",
            "P0001",
        ),
        of(
            "a notice and a warning before a failure",
            "do $$ declare v text; begin select word into v from people limit 1;\n\
             raise notice 'saw %', v; raise warning 'saw %', v; end $$;\nselect 1 / 0;\n",
            "22012",
        ),
        dynamic("internal query with a value", "format('select %L::int', w)", "22P02"),
        dynamic("near a syntax error in an internal query", "'select 1 ' || v || ' x'", "42601"),
        dynamic("a name in an internal query", "'select ' || v", "42703"),
        dynamic("a table's name in an internal query", "'select * from ' || v", "42P01"),
        dynamic("a schema's name in a utility statement", "'create table ' || v || '.t (id int)'", "3F000"),
        of(
            "CONTEXT of a function in a function",
            "create function f(t text) returns int language plpgsql as $$ begin execute format('select %L::int', t); return 1; end $$;\n\
             select f(word) from people;\n",
            "22P02",
        ),
        of(
            "part-way, outside of a transaction",
            "-- nexus: no-transaction\ncreate index concurrently if not exists people_id on people (id);\ncreate unique index concurrently people_mail on people (mail);\n",
            "23505",
        ),
    ]
}

/// Migrations that fail with a password in their own text.
pub(super) fn by_text(scan: &mut Scan) -> Vec<Failing> {
    let mut of = |what, up: &str, told| {
        let password = scan.plant(what);
        Failing { what, up: up.replace("{}", &password), told }
    };
    vec![
        of("CREATE ROLE … PASSWORD, the role exists", "create role canary_there password '{}';\n", "42710"),
        of(
            "ALTER ROLE … PASSWORD, no such role",
            "select 1;\nalter role canary_nobody with login password E'{}';\n",
            "42704",
        ),
        of(
            "CREATE ROLE … PASSWORD, a wrong option",
            "create role canary_new password '{}' superpowers;\n",
            "42601",
        ),
        of("ALTER ROLE … PASSWORD, no quotes", "alter role canary_there password {};\n", "42601"),
        of(
            "CREATE USER … PASSWORD, dollar-quoted",
            "create user canary_new password $x${}$x$ valid never;\n",
            "42601",
        ),
        of(
            "CREATE ROLE … PASSWORD, the quote is not closed",
            "create role canary_new password '{};\n",
            "NX0018",
        ),
        of(
            "CREATE ROLE … PASSWORD, outside of a transaction",
            "-- nexus: no-transaction\ncreate role canary_there password '{}';\n",
            "42710",
        ),
        of(
            "CREATE USER MAPPING, there is one",
            "create user mapping for canary_there server canary_server options (user 'a', password '{}');\n\
             create user mapping for canary_there server canary_server options (user 'a', password '{}');\n",
            "42710",
        ),
        of(
            "CREATE USER MAPPING, a syntax error",
            "create user mapping for canary_there server canary_server options (user 'a', password '{}' x);\n",
            "42601",
        ),
        of(
            "CREATE SUBSCRIPTION, nobody answers",
            "-- nexus: no-transaction\ncreate subscription canary connection 'host=127.0.0.1 port=1 user=a password={}' publication p;\n",
            "08006",
        ),
        of(
            "CREATE SUBSCRIPTION, a password with a space",
            "-- nexus: no-transaction\ncreate subscription canary connection 'host=127.0.0.1 password=my {}' publication p;\n",
            "42601",
        ),
        of(
            "CREATE SUBSCRIPTION, quoted twice",
            "-- nexus: no-transaction\ncreate subscription canary connection 'host=127.0.0.1 password=''{}''' publicatoin p;\n",
            "42601",
        ),
        of(
            "CREATE SUBSCRIPTION, a URL",
            "-- nexus: no-transaction\ncreate subscription canary connection 'postgres://a:{}@127.0.0.1:1/x' publicatoin p;\n",
            "42601",
        ),
        of("a directive that is none", "-- nexus: frobnicate password={}\nselect 1;\n", "NX0013"),
    ]
}

/// Configurations that are refused: what stands in the place of the good one's `[[database]]`.
pub(super) fn bad_configurations(scan: &mut Scan) -> Vec<(&'static str, String)> {
    let mut of = |what, toml: &str| (what, toml.replace("{}", &scan.plant(what)));
    let database = |line: &str| format!("[[database]]\nname = \"a\"\n{line}\n");
    vec![
        of("a URL whose port is none", &database("url = \"postgres://u:{}@h:port/db\"")),
        of("a URL without its scheme", &database("url = \"{}\"")),
        of("a URL that is not closed", &database("url = \"postgres://u:{}@h/db")),
        of("a URL without quotes", &database("url = postgres://u:{}@h/db")),
        of("a URL in a list", &database("url = [\"postgres://u:{}@h/db\"]")),
        of("a URL with a raw slash", &database("url = \"postgres://u:x/{}?@h:p/db\"")),
        of("url_env that is a URL", &database("url_env = \"postgres://u:{}@h/db\"")),
        of("url_file that is a URL", &database("url_file = \"postgres://u:{}@h/db\"")),
        of("a service", &database("url = \"host=h service=x password={}\"")),
        of("a service in a URL", &database("url = \"postgres://u:{}@h/db?service=x\"")),
        of("an unknown parameter", &database("url = \"postgres://u@h/db?pasword={}\"")),
        of("a list of pairs with a stray word", &database("url = \"host=h password=my {}\"")),
        of("an unknown key", &database("url = \"postgres://u@h/db\"\npasword = \"{}\"")),
        of("a key that is not closed", &database("url = \"postgres://u@h/db\"\ntoken = \"{}")),
        of("[control] url", "[control]\nurl = \"mysql://u:{}@h/db\"\n"),
        of("a webhook's URL", "[[alerts.webhook]]\nurl = \"https://u:{}@h:port/x\"\n"),
        of("an Alertmanager's URL", "[[alerts.alertmanager]]\nurl = \"ftp://u:{}@h/x\"\n"),
        of("a webhook's secret in the file", "[[alerts.webhook]]\nurl = \"https://h/x\"\nsecret = \"{}\"\n"),
        of("[telemetry] endpoint", "[telemetry]\nendpoint = \"http://u:{}@127.0.0.1:4317\"\n"),
        of("[[discover]] url", "[[discover]]\nurl = \"postgres://u:{}@h:port/db\"\nquery = \"select 1\"\n"),
        of("a file of grants that is a URL", "[access]\nfile = \"https://u:{}@h/x\"\n"),
    ]
}
