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
        ("table", Fit::Spare),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_terminal_is_not_exceeded() {
        let database = proto::Database {
            name: "shop-staging".into(),
            labels: [("env".into(), "staging".into())].into(),
            server: "127.0.0.1:42009".into(),
            dbname: "shop-staging".into(),
            schema: "public".into(),
            table: "schema_migrations".into(),
            migrations: "/srv/shop/migrations".into(),
        };
        let shown = text(&[database], Some(80));
        assert!(crate::cli::render::table::width(&shown) <= 80, "{shown}");
        let row = shown.lines().nth(2).unwrap_or_default();
        assert!(row.starts_with("shop-staging  env=staging  127."), "{shown}");
        assert!(row.ends_with("  /srv/shop/migrations"), "{shown}");
    }
}
