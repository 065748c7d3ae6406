//! A database for the engine's own functions, without a daemon.

use std::time::Duration;

use nexus::{
    engine::{self, Durability},
    migration::plan::Policy,
    postgres::{
        Pool, Target, look,
        names::Names,
        session::{Limits, startup_settings},
    },
};

/// The schema of a database, as a daemon would know it.
pub(crate) fn database(url: &str, schema: &str) -> engine::Database {
    let names = Names::new(schema, "schema_migrations");
    let limits = Limits {
        lock_timeout: Duration::from_secs(5),
        statement_timeout: Duration::ZERO,
        idle_in_transaction_timeout: Duration::from_mins(1),
        connect_timeout: Duration::from_secs(5),
    };
    let target = Target::parse(&url.to_owned().into()).expect("the URL is right");
    engine::Database {
        name: "main".to_owned(),
        dbname: target.dbname().to_owned(),
        pool: Pool::new(target.clone(), startup_settings(&limits, &names), 1),
        looks: Pool::new(target, look::startup_settings(), 1),
        keeps_looks: true,
        notifies: false,
        names,
        is_protected: false,
        policy: Policy::default(),
        limits,
        lock_wait: Duration::ZERO,
        lock_retries: 0,
        durability: Durability::Run,
    }
}
