//! The control database's own schema, which Nexus creates and upgrades like any other database's.

use std::{sync::Arc, time::Duration};

use uuid::Uuid;

use crate::{
    control::Settings,
    engine::{self, Before, Database, Durability, Run, Stop, Verb},
    migration::{
        Code, EventKind, EventSink, Failure, TraceContext,
        plan::{ApplyRequest, Policy},
    },
    postgres::{
        Pool,
        connect::Connection,
        executor::Author,
        look,
        names::Names,
        quote_ident,
        session::{Limits, startup_settings},
    },
    source::embedded::{Embedded, Own},
};

macro_rules! own {
    ($($version:literal),*) => {
        &[$(Own {
            version: $version,
            up: include_str!(concat!("migrations/", $version, ".up.sql")),
            down: include_str!(concat!("migrations/", $version, ".down.sql")),
        }),*]
    };
}

/// The migrations of the control schema, oldest first.
const MIGRATIONS: Embedded = Embedded(own!["0001_operations", "0002_leader", "0003_audit_log"]);

/// The tracking table of the control schema.
const TABLE: &str = "schema_migrations";

/// Makes the schema where it is missing, and brings it to what this program needs. Several daemons
/// may do so at once: the database's lock decides.
pub(super) async fn upgrade(settings: &Settings, connection: &Connection) -> Result<(), Failure> {
    let schema = quote_ident(&settings.schema);
    // Asked first: a role that may not make schemas can work in one that is there.
    let sql = format!(
        "do $nexus$ begin if not exists (select from pg_catalog.pg_namespace where nspname = {name}) \
         then create schema if not exists {schema}; end if; end $nexus$",
        name = crate::postgres::quote_literal(&settings.schema)
    );
    connection.client.batch_execute(&sql).await.map_err(|error| super::failure_of(settings, &error))?;
    let database = database(settings);
    let run = Run {
        catalog: Arc::new(MIGRATIONS.catalog()),
        reader: Arc::new(MIGRATIONS),
        author: Author {
            operation: Uuid::now_v7(),
            requested_by: "nexusd".to_owned(),
            instance: settings.instance.clone(),
            trace: TraceContext { trace: fastrand::u128(1..), span: fastrand::u64(1..), sampled: false },
        },
        events: Arc::new(Told),
        stop: Stop::default(),
        before: Before::Nowhere,
        takes_over: false,
        basis: None,
        only: None,
        witness: engine::no_witness(),
        database: Arc::new(database),
    };
    let report = engine::run(&run, &Verb::Apply(ApplyRequest::default())).await;
    report.result.map(drop).map_err(|failure| {
        let server = failure.server_message.as_deref().map(|said| format!(": {said}")).unwrap_or_default();
        let message = format!("The control schema {schema} cannot be brought up to date: {failure}{server}");
        Failure::new(Code::ControlUnavailable, message).hint(failure.remedy())
    })
}

fn database(settings: &Settings) -> Database {
    let names = Names::new(&settings.schema, TABLE);
    let limits = Limits {
        lock_timeout: Duration::from_secs(5),
        statement_timeout: Duration::from_mins(1),
        idle_in_transaction_timeout: Duration::from_mins(1),
        connect_timeout: super::PATIENCE,
    };
    let pool = |startup| Pool::new(settings.target.clone(), startup, 1);
    Database {
        name: "control".to_owned(),
        dbname: settings.target.dbname().to_owned(),
        pool: pool(startup_settings(&limits, &names)),
        looks: pool(look::startup_settings()),
        keeps_looks: false,
        notifies: false,
        names,
        is_protected: false,
        policy: Policy::default(),
        limits,
        lock_wait: Duration::from_secs(30),
        lock_retries: 5,
        durability: Durability::Run,
    }
}

/// What happens to the control schema is told in the daemon's own log: no operation of a user's is
/// about it.
struct Told;

impl EventSink for Told {
    fn emit(&self, _: &str, kind: EventKind) {
        match kind {
            EventKind::StepFinished(done) => {
                tracing::info!(version = %done.step.version, "the control schema was upgraded");
            }
            EventKind::Notice { message, .. } => tracing::info!(message, "about the control schema"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::{ScriptReader as _, Version, header::Header, version::Naming};

    #[test]
    fn the_schema_of_its_own_is_written_as_a_users_has_to_be() {
        let catalog = MIGRATIONS.catalog();
        assert_eq!(catalog.migrations().len(), MIGRATIONS.0.len());
        for (migration, own) in catalog.migrations().iter().zip(MIGRATIONS.0) {
            assert!(Version::parse(own.version, Naming::Strict).is_ok(), "{}", own.version);
            for (script, text) in [(Some(&migration.up), own.up), (migration.down.as_ref(), own.down)] {
                assert!(Header::parse(text).is_ok(), "{}", own.version);
                let mut read = String::new();
                let mut opened = MIGRATIONS.open(script.expect("each has both")).expect("it is there");
                opened.read_to_string(&mut read).expect("it is text");
                assert_eq!(read, text);
            }
        }
    }
}
