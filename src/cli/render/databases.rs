//! The list of databases.

use crate::{
    cli::render::{
        table::{Fit, table},
        text::{clean, labels},
    },
    rpc::proto,
};

/// One row per database.
pub fn text(databases: &[proto::Database], width: Option<u16>) -> String {
    if databases.is_empty() {
        return "no databases\n".to_owned();
    }
    let columns = [
        ("name", Fit::Whole),
        ("labels", Fit::Cut),
        ("server", Fit::Cut),
        ("database", Fit::Cut),
        ("table", Fit::Cut),
        ("migrations", Fit::Wrap),
    ];
    let rows = databases.iter().map(|database| {
        let place = format!("{}.{}", database.schema, database.table);
        [
            &database.name,
            &labels(&database.labels),
            &database.server,
            &database.dbname,
            &place,
            &database.migrations,
        ]
        .map(|text| clean(text))
        .to_vec()
    });
    table(&columns, rows.collect(), width)
}
