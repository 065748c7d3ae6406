//! One trace from `nexusctl` to each statement, its id wherever the operation is told of, and
//! collectors that are of no use.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::{
    otlp::{Collector, Manner, Span},
    support::{Begun, Ended, Running, World},
};

/// A daemon that exports to this endpoint.
fn world(endpoint: &str, more: &str) -> Running {
    World::new().more(&format!("[telemetry]\nendpoint = {endpoint:?}\n{more}")).start()
}

/// Runs `nexusctl`, which exports its own span too.
fn traced(world: &Running, collector: &Collector, arguments: &[&str]) -> Ended {
    begin(world, collector, arguments).end()
}

fn begin(world: &Running, collector: &Collector, arguments: &[&str]) -> Begun {
    let mut command = world.daemon.ctl_command(arguments);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint);
    Begun::of(command)
}

/// The spans as a tree: each line a name, indented by its depth, siblings by their starts.
fn tree(spans: &[Span]) -> Vec<String> {
    fn below(spans: &[Span], parent: &str, depth: usize, lines: &mut Vec<String>) {
        for span in spans.iter().filter(|span| span.parent == parent) {
            lines.push(format!("{:depth$}{}", "", span.name));
            below(spans, &span.id, depth + 1, lines);
        }
    }
    let mut lines = Vec::new();
    below(spans, "", 0, &mut lines);
    lines
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    spans.iter().find(|span| span.name == name).expect("there is such a span")
}

#[test]
fn an_apply_is_one_trace() {
    let collector = Collector::start(Manner::Take);
    let mut world = world(&collector.endpoint, "");
    world.tables(1, 1);
    world.migration(
        "0002_slow",
        "-- nexus: no-transaction\ncreate index concurrently t1_id on t1 (id);\nselect pg_sleep(1.2), 'CANARY';\n",
        "drop index t1_id;\n",
    );
    let dbname = world.database.sql("select current_database()").remove(0);
    let client = begin(&world, &collector, &["apply"]);
    let seen = "select query from pg_stat_activity where query like '%pg_sleep(1.2)%' \
                and state = 'active' and application_name like 'nexusd %'";
    world.database.await_row(seen);
    let query = world.database.sql(seen).remove(0);
    client.end().expect(0);
    world.daemon.signal(Signal::SIGTERM);
    assert_eq!(world.daemon.wait(), Some(0));

    let spans = collector.spans();
    let create = format!("CREATE {dbname}");
    assert_eq!(
        tree(&spans),
        [
            "nexusctl apply".to_owned(),
            " nexus.v1.MigrationService/Apply".to_owned(),
            "  operation apply".to_owned(),
            "   apply main".to_owned(),
            "    apply 0001_t1".to_owned(),
            "    apply 0002_slow".to_owned(),
            format!("     {create}"),
            format!("     SELECT {dbname}"),
        ]
    );
    let trace = &spans[0].trace;
    assert!(spans.iter().all(|span| span.trace == *trace && !span.has_failed), "{spans:?}");
    for span in &spans[1..] {
        let parent = spans.iter().find(|it| it.id == span.parent).expect("it has a parent");
        assert!(parent.start <= span.start, "{} begins before {}", span.name, parent.name);
    }
    // Down to the statement, each lasts as long as what is done in it.
    for name in
        ["nexusctl apply", "nexus.v1.MigrationService/Apply", "apply 0002_slow", &format!("SELECT {dbname}")]
    {
        let span = named(&spans, name);
        assert!(
            Duration::from_nanos(span.end - span.start) >= Duration::from_millis(1200),
            "{name} is too short"
        );
    }

    let check = |name: &str, kind: SpanKind, attributes: &[(&str, &str)]| {
        let span = named(&spans, name);
        assert_eq!(span.kind, kind, "{name}");
        for (attribute, value) in attributes {
            assert_eq!(span.attribute(attribute), *value, "{name}: {attribute}: {:?}", span.attributes);
        }
    };
    let (system, namespace) = (("db.system.name", "postgresql"), ("db.namespace", dbname.as_str()));
    let operation = world.database.sql("select operation_id from nexus_journal limit 1").remove(0);
    let operation = ("nexus.operation.id", operation.as_str());
    check("nexusctl apply", SpanKind::Client, &[("nexus.command", "apply")]);
    let method = "nexus.v1.MigrationService/Apply";
    let rpc = [("rpc.system.name", "grpc"), ("rpc.method", method), ("rpc.response.status_code", "OK")];
    check(method, SpanKind::Server, &rpc);
    check("operation apply", SpanKind::Internal, &[operation, ("nexus.operation.databases", "1")]);
    check("apply main", SpanKind::Internal, &[system, namespace, operation, ("nexus.database", "main")]);
    let step = [system, namespace, operation, ("nexus.database", "main"), ("db.operation.name", "apply")];
    check("apply 0001_t1", SpanKind::Client, &step);
    let version =
        [("nexus.version", "0002_slow"), ("nexus.direction", "up"), ("nexus.mode", "non-transactional")];
    check("apply 0002_slow", SpanKind::Internal, &version);
    check(&create, SpanKind::Client, &[system, namespace, ("db.operation.name", "CREATE")]);
    let resource = |name: &str, key: &str| named(&spans, name).resource.get(key).cloned().unwrap_or_default();
    assert_eq!(resource("nexusctl apply", "service.name"), "nexusctl");
    assert_eq!(resource(method, "service.name"), "nexusd");
    assert_eq!(resource(method, "service.version"), env!("CARGO_PKG_VERSION"));
    let instance = world.database.sql("select instance from nexus_journal limit 1").remove(0);
    assert_eq!(resource(method, "service.instance.id"), instance);
    assert!(!format!("{spans:?}").contains("CANARY"), "SQL that nobody asked for");

    let rpc = &named(&spans, method).id;
    assert!(query.starts_with(&format!("/*traceparent='00-{trace}-{rpc}-01'*/ ")), "{query}");
    assert_eq!(
        world.database.sql("select distinct trace_id from nexus_journal"),
        std::slice::from_ref(trace)
    );
    let of_operation: Vec<_> = world.log().into_iter().filter(|line| line["operation"].is_string()).collect();
    assert!(
        of_operation.len() >= 4 && of_operation.iter().all(|line| line["trace_id"] == **trace),
        "{of_operation:?}"
    );
    world.daemon.restart();
    let history = world.ctl(&["history", "--output", "json"]).json();
    assert_eq!(history["attempts"][0]["trace_id"], **trace);
}

#[test]
fn a_failure_is_told_in_its_spans() {
    let collector = Collector::start(Manner::Take);
    let world = world(&collector.endpoint, "sql_text = true\n");
    world.migration("0001_bad", "create table a (id int);\nselect 1 / 0;\n", "drop table a;\n");
    let shown = traced(&world, &collector, &["apply"]).expect(1);
    assert!(shown.contains("0001_bad.up.sql:2"), "{shown}");
    let spans = collector.spans_with("operation apply");
    for name in ["nexusctl apply", "operation apply", "apply main", "apply 0001_bad"] {
        assert!(named(&spans, name).has_failed, "{name}");
    }
    let step = named(&spans, "apply 0001_bad");
    assert_eq!(step.attribute("db.response.status_code"), "22012");
    assert_eq!(step.attribute("error.type"), "NX0030");

    world.migration(
        "0001_bad",
        "-- nexus: no-transaction\ncreate table a (id int);\nselect 'password=CANARY', 1 / 0;\n",
        "drop table a;\n",
    );
    let shown = traced(&world, &collector, &["apply"]).expect(1);
    assert!(shown.contains("0001_bad.up.sql:3:"), "{shown}");
    let dbname = world.database.sql("select current_database()").remove(0);
    let name = format!("SELECT {dbname}");
    let spans = collector.spans_with(&name);
    let statement = named(&spans, &name);
    assert!(statement.has_failed);
    assert_eq!(statement.attribute("db.response.status_code"), "22012");
    assert_eq!(statement.attribute("error.type"), "22012");
    let text = statement.attribute("db.query.text");
    assert!(
        text.starts_with("select 'password=") && text.contains("1 / 0") && !text.contains("CANARY"),
        "{text}"
    );
}

#[test]
fn an_error_stands_where_it_arose_behind_the_comment() {
    let world = World::new().start();
    let check = |header: &str, line: u32| {
        world.migration("0001_bad", &format!("{header}select 1 as \"é\", nowhere;\n"), "select 1;\n");
        let told = world.ctl(&["apply", "--output", "json"]);
        let failure = &told.json()["databases"][0]["failure"];
        let place = &failure["location"];
        assert_eq!(
            (place["line"].as_u64(), place["column"].as_u64()),
            (Some(line.into()), Some(18)),
            "{failure}"
        );
    };
    check("", 1);
    check("-- nexus: no-transaction\n", 2);
}

#[test]
fn the_trace_is_known_where_nothing_is_exported() {
    let world = World::new().start();
    world.tables(1, 1);
    let traces = || world.database.sql("select trace_id from nexus_journal order by id");
    let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let mut command = world.daemon.ctl_command(&["apply"]);
    command.env("TRACEPARENT", format!("00-{trace}-{span}-01"));
    Begun::of(command).end().expect(0);
    assert_eq!(traces(), [trace]);
    // Without a caller's, each command begins a trace of its own.
    world.tables(2, 1);
    world.ctl(&["apply"]).expect(0);
    world.tables(3, 1);
    world.ctl(&["apply"]).expect(0);
    let traces = traces();
    assert!(traces.iter().all(|trace| trace.len() == 32), "{traces:?}");
    assert!(traces[1] != traces[0] && traces[2] != traces[1], "{traces:?}");
    let lines = world.logged("Migration applied successfully");
    assert_eq!(
        lines.iter().map(|line| line["trace_id"].as_str().expect("it has one")).collect::<Vec<_>>(),
        traces
    );
}

#[test]
fn the_sampling_of_the_configuration_and_of_the_caller_hold() {
    let collector = Collector::start(Manner::Take);
    let world = world(&collector.endpoint, "sample_ratio = 0\n");
    world.tables(1, 1);
    traced(&world, &collector, &["apply"]).expect(0);
    let trace = world.database.sql("select trace_id from nexus_journal").remove(0);
    let mut daemon = world.daemon;
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait(), Some(0));
    assert_eq!(tree(&collector.spans()), ["nexusctl apply"]);
    assert_eq!(collector.spans()[0].trace, trace);
}

#[test]
fn a_collector_that_is_of_no_use_delays_nothing() {
    let plain = apply_with(None);
    let reached = World::new().start();
    let hanging = Collector::start(Manner::Hang);
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is bound");
        format!("http://{}", listener.local_addr().expect("it has an address"))
    };
    // Takes connections and never says a word.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is bound");
    let silent = format!("http://{}", silent.local_addr().expect("it has an address"));
    for endpoint in [&hanging.endpoint, &closed, &silent] {
        // The machine may be busy: the fastest of several tells what has to be waited for.
        let fastest = (0..5).map(|_| databases_with(&reached, endpoint)).min().unwrap_or_default();
        assert!(fastest < Duration::from_millis(600), "nexusctl took {fastest:?} with {endpoint}");
        let took = apply_with(Some(endpoint));
        assert!(took < plain * 3 + Duration::from_secs(1), "{took:?} with {endpoint}, {plain:?} without");
    }
}

/// Runs a `nexusctl` that exports, too; says how long that took.
fn databases_with(world: &Running, endpoint: &str) -> Duration {
    let started = Instant::now();
    let mut command = world.daemon.ctl_command(&["databases"]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
    Begun::of(command).end().expect(0);
    started.elapsed()
}

/// Applies 300 migrations; says how long that took. The daemon's end is bounded.
fn apply_with(endpoint: Option<&str>) -> Duration {
    let world = world(endpoint.unwrap_or_default(), "");
    world.tables(1, 300);
    let started = Instant::now();
    world.ctl(&["apply"]).expect(0);
    let took = started.elapsed();
    let mut daemon = world.daemon;
    let ending = Instant::now();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait(), Some(0));
    assert!(ending.elapsed() < Duration::from_secs(5), "the end took {:?}", ending.elapsed());
    took
}
