//! The examples of `docs/json-output.md`: made here from values, so that the page cannot go stale.

use std::path::Path;

use prost_types::Timestamp;
use uuid::Uuid;

use super::*;
use crate::{
    cli::{
        render::{audit::example, status::findings},
        report,
    },
    migration::Checksum,
    rpc::{
        client::ClientError,
        proto::{DatabaseOutcome, FindingKind, MigrationState, ScriptSource, StepAction, event::Kind},
    },
};

const PAGE: &str = include_str!("../../../../docs/json-output.md");
const OPERATION: &str = "01a2057a-e634-703b-b949-7edbe9f5581c";
const CHECKSUM: &str = "b3fc0486ab77ea0a61bf2ce1c6b5cdfaf6fd2ed3edd4f5eef1b4ff7f0b0d5a6c";

fn check(command: &str, document: &impl Serialize) {
    let document = serde_json::to_string_pretty(document).expect("it is a document");
    let example = format!("## `{command}`\n");
    let section = PAGE.split(&example).nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap_or_default();
    assert!(section.contains(&format!("```json\n{document}\n```")), "{command} should read:\n{document}");
}

fn at(milliseconds: i32) -> Timestamp {
    Timestamp { seconds: 1_761_819_330, nanos: milliseconds * 1_000_000 }
}

fn step(version: &str, action: StepAction) -> proto::Step {
    proto::Step {
        version: version.into(),
        action: action.into(),
        transactional: true,
        source: ScriptSource::File.into(),
        description: "Creates products table with categories".into(),
        size_bytes: 752,
        ..Default::default()
    }
}

fn failure() -> proto::Failure {
    proto::Failure {
        code: "NX0030".into(),
        message: "Migration failed and was rolled back".into(),
        hint: "correct the SQL and run apply again: nothing of the failed attempt was kept".into(),
        version: "0011_add_carts".into(),
        location: Some(proto::Location {
            file: "0011_add_carts.up.sql".into(),
            line: 7,
            column: 22,
            excerpt: "  total DECIMAL(10,2 NOT NULL,".into(),
        }),
        sqlstate: "42601".into(),
        server_message: "syntax error at or near \"NOT\"".into(),
        ..Default::default()
    }
}

fn refusal() -> proto::Failure {
    proto::Failure {
        code: "NX0051".into(),
        message: "There are several databases and none is selected".into(),
        hint: "name them: --database NAME, --selector key=value, or --all".into(),
        details: vec!["orders".into(), "users".into()],
        ..Default::default()
    }
}

#[test]
fn operations() {
    let mut report = Report::new(report::Verb::Apply, false);
    let result = proto::DatabaseResult {
        database: "orders".into(),
        outcome: DatabaseOutcome::Failed.into(),
        done_before: vec![step("0009_add_stock", StepAction::Apply)],
        done: vec![proto::StepResult {
            step: Some(step("0010_add_products", StepAction::Apply)),
            duration_ms: 12,
        }],
        failure: Some(failure()),
        notices: vec!["0009_add_stock has no down migration".into()],
        duration_ms: 31,
        plan: vec![],
    };
    let kinds = [
        Kind::DatabaseFinished(result),
        Kind::OperationFinished(proto::OperationFinished {
            state: proto::OperationState::Failed.into(),
            why: "Migration failed and was rolled back".into(),
            ..Default::default()
        }),
    ];
    for kind in kinds {
        report.take(&proto::Event {
            operation_id: OPERATION.into(),
            kind: Some(kind),
            ..proto::Event::default()
        });
    }
    check("apply, rollback, recover", &Operation::new(&report, Uuid::nil(), None));
}

#[test]
fn one_operation() {
    use proto::{OperationDatabaseState as Database, OperationState};
    let count = |state: Database, count| proto::OperationDatabaseCount { state: state.into(), count };
    let wave = |name: &str, is_canary, counts| proto::OperationWave {
        name: name.into(),
        is_canary,
        is_settled: false,
        counts: vec![counts],
    };
    let operation = proto::Operation {
        id: OPERATION.into(),
        verb: "apply".into(),
        requested_by: "ana@laptop".into(),
        reason: "CHG-123".into(),
        selection: Some(proto::Selection { databases: vec!["orders-*".into()], ..Default::default() }),
        state: OperationState::Halted.into(),
        why: "1 of 1 databases failed in canary; orders-eu: Migration failed and was rolled back".into(),
        attempt: 1,
        waves: vec![
            wave("canary", true, count(Database::Failed, 1)),
            wave("wave 1", false, count(Database::Waiting, 40)),
        ],
        counts: vec![count(Database::Waiting, 40), count(Database::Failed, 1)],
        databases: vec![proto::OperationDatabase {
            name: "orders-eu".into(),
            wave: "canary".into(),
            state: Database::Failed.into(),
            catalog_digest: CHECKSUM.into(),
            planned: vec![step("0010_add_products", StepAction::Apply)],
            done: vec![proto::OperationStep {
                version: "0010_add_products".into(),
                action: StepAction::Apply.into(),
            }],
            applied: vec!["0010_add_products".into()],
            failure: Some(failure()),
            started_at: Some(at(124)),
            ended_at: Some(at(155)),
            ..Default::default()
        }],
        created_at: Some(at(123)),
        changed_at: Some(at(156)),
        ended_at: Some(at(156)),
        strategy: "a canary of 1, then one wave".into(),
        repair: String::new(),
        approval: Some(proto::OperationApproval {
            asked_by: "ana".into(),
            asked_at: Some(at(120)),
            expires_at: Some(Timestamp { seconds: 1_761_822_930, nanos: 120_000_000 }),
            plan_digest: format!("{}-{}", "1a2b".repeat(8), "3c4d".repeat(4)),
            role: "operator".into(),
            protected: vec!["orders-eu".into()],
            decision: proto::ApprovalDecision::Approved.into(),
            decided_by: "bo".into(),
            decided_at: Some(at(122)),
            reason: "seen".into(),
        }),
    };
    check("operation show", &OneOperation::from(&operation));
    let mut report = Report::new(report::Verb::Apply, false);
    report.operation_id = OPERATION.into();
    report.targets = Some(vec!["orders-eu".into(), "orders-us".into()]);
    check("apply, rollback, recover --detach", &Begun::from(&report));
}

#[test]
fn plans() {
    let mut step = step("0010_add_products", StepAction::Rollback);
    step.rollback_impact = "Products are no longer listed".into();
    step.data_loss = "All products".into();
    let plan = proto::DatabaseResult {
        database: "orders".into(),
        outcome: DatabaseOutcome::Planned.into(),
        plan: vec![step],
        duration_ms: 4,
        ..Default::default()
    };
    let wave = proto::Wave { name: "canary".into(), is_canary: true, databases: vec!["orders".into()] };
    let plan = proto::PlanResponse {
        databases: vec![plan],
        waves: vec![wave],
        strategy: "a canary of 1, then one wave".into(),
        digest: "b94d27b9934d3e08a52e52d7da7dabfa-1f3a77c009dec2b4".into(),
    };
    check("plan", &Plans::from(&plan));
}

#[test]
fn states() {
    let migration = |version: &str, state, findings: &[FindingKind]| proto::MigrationStatus {
        version: version.into(),
        state: i32::from(state),
        applied_at: (state != MigrationState::Pending).then(|| at(123)),
        checksum: CHECKSUM.into(),
        findings: findings.iter().map(|&kind| kind.into()).collect(),
        explanation: String::new(),
    };
    let orders = proto::DatabaseStatus {
        database: "orders".into(),
        labels: [("env".into(), "prod".into())].into(),
        current_version: "0009_add_stock".into(),
        migrations: vec![
            migration("0009_add_stock", MigrationState::Applied, &[FindingKind::NoDown]),
            migration("0010_add_products", MigrationState::Pending, &[]),
        ],
        applied: 1,
        pending: 1,
        ..Default::default()
    };
    let databases = [orders];
    let findings = findings(&databases);
    let answer = proto::StatusResponse { databases: databases.into(), store: proto::Store::Memory.into() };
    check("status", &Status::new(&answer, &findings));
}

#[test]
fn journal() {
    let attempt = proto::Attempt {
        database: "orders".into(),
        id: 7,
        operation_id: OPERATION.into(),
        version: "0011_add_carts".into(),
        direction: "up".into(),
        mode: "transactional".into(),
        outcome: "rolled_back".into(),
        statements_done: 0,
        statements_total: 2,
        started_at: Some(at(123)),
        finished_at: Some(at(135)),
        duration_ms: 12,
        sqlstate: "42601".into(),
        message: "syntax error at or near \"NOT\"".into(),
        requested_by: "eve@build-1".into(),
        instance: "build-1/4711".into(),
        checksum: CHECKSUM.into(),
        trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
    };
    check("history", &History::from(&proto::HistoryResponse { attempts: vec![attempt], failures: vec![] }));
}

#[test]
fn findings_with_a_life() {
    let alert = proto::Alert {
        id: OPERATION.into(),
        finding: Some(proto::Finding {
            database: "orders".into(),
            kind: FindingKind::ChecksumDrift.into(),
            severity: proto::Severity::Critical.into(),
            subject: "0010_add_products".into(),
            message: "The file is not what was applied".into(),
            evidence: vec![format!("stored checksum: {CHECKSUM}")],
            remedy: "Restore the file as it was applied".into(),
        }),
        state: proto::AlertState::Acknowledged.into(),
        started_at: Some(at(123)),
        fired_at: Some(Timestamp { seconds: 1_761_819_340, nanos: 123_000_000 }),
        acknowledged_by: "eve@build-1".into(),
        acknowledged_reason: "the file is being restored".into(),
        ..Default::default()
    };
    check("alerts", &Alerts::from([alert].as_slice()));
}

#[test]
fn answers() {
    let database = proto::Database {
        name: "orders".into(),
        labels: [("env".into(), "prod".into())].into(),
        server: "db-1:5432".into(),
        dbname: "orders".into(),
        schema: "public".into(),
        migrations: "migrations".into(),
        table: "schema_migrations".into(),
        origin: Some(proto::database::Origin::File("nexus.toml:12".into())),
        protected: true,
        observation: Some(proto::DatabaseObservation {
            observed_at: Some(at(0)),
            reachable: true,
            unreachable_reason: String::new(),
            compared_at: Some(at(0)),
            version: "0010_add_products".into(),
            applied: 2,
            pending: 0,
            dirty: 0,
        }),
    };
    check("databases", &Databases::from(vec![database]));
    let reloaded = proto::ReloadInventoryResponse {
        added: vec!["shop-tenant_6".into()],
        changed: Vec::new(),
        removed: vec!["shop-tenant_2".into()],
        databases: 5,
        failures: Vec::new(),
        restart: vec!["[server]".into()],
    };
    check("reload", &Reloaded::from(reloaded));
    let repaired = proto::RepairResponse {
        database: "orders".into(),
        message: "0010_add_products is no longer dirty".into(),
        operation_id: OPERATION.into(),
        awaiting_approval: false,
    };
    check("repair", &Repaired::from(repaired));
    let version = proto::GetVersionResponse {
        version: "0.1.0".into(),
        instance: "build-1/4711".into(),
        uptime_seconds: 3_600,
        store: proto::Store::ControlDatabase.into(),
        leader: "build-1/4711".into(),
        control_failure: String::new(),
    };
    let address = "http://127.0.0.1:7421".to_owned();
    check("health", &Health { address: address.clone(), serving: true });
    check("version", &Versions::new(address, Ok(&version)));
    let [up, down] = ["up", "down"].map(|direction| format!("migrations/0010_add_products.{direction}.sql"));
    check("new", &Created::new("0010_add_products", Path::new(&up), Path::new(&down)));
    check("checksum", &Checksums::from([(Path::new(&up), Checksum::of(b"SELECT 1;\n"))].as_slice()));
    let refused = ClientError::Refused(Box::new(refusal()));
    check("audit run, audit show", &Audited::from(&example()));
    let listed = proto::ListAuditsResponse {
        audits: vec![proto::Audit { databases: Vec::new(), ..example() }],
        schedules: vec![proto::AuditSchedule {
            name: "nightly".into(),
            schedule: "30 3 * * *".into(),
            time_zone: "Europe/Berlin".into(),
            next_at: Some(at(0)),
        }],
    };
    check("audit list", &Audits::from(&listed));
    check("errors", &Refused { error: (&refused.failure()).into() });
}
