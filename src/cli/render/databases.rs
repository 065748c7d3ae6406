//! The list of databases, and what a reload changed.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};

use crate::{
    cli::render::{
        table::{Fit, table},
        text::{clean, labels},
    },
    rpc::proto::{self, database::Origin},
};

/// How many names of a kind a reload shows.
const MOST_NAMES: usize = 20;

/// Where it stands which databases are protected, where any is.
const PROTECTED: usize = 1;

/// One row per database, and a line that sums up.
pub fn text(databases: &[proto::Database], now: Timestamp, width: Option<u16>) -> String {
    if databases.is_empty() {
        return "no databases\n".to_owned();
    }
    let has_protected = databases.iter().any(|database| database.protected);
    let mut columns = vec![
        ("name", Fit::Whole),
        ("labels", Fit::Cut),
        ("server", Fit::Cut),
        ("schema", Fit::Cut),
        ("reachable", Fit::Whole),
        ("version", Fit::Cut),
        ("#pending", Fit::Whole),
        ("#dirty", Fit::Whole),
        ("from", Fit::Spare),
        ("seen", Fit::Spare),
    ];
    let mut rows: Vec<_> = databases.iter().map(|database| row(database, now)).collect();
    if has_protected {
        columns.insert(PROTECTED, ("protected", Fit::Whole));
        for (row, database) in rows.iter_mut().zip(databases) {
            row.insert(PROTECTED, if database.protected { "yes" } else { "-" }.to_owned());
        }
    }
    format!("{}\n{}\n", table(&columns, rows, width), summary(databases, now))
}

fn row(database: &proto::Database, now: Timestamp) -> Vec<String> {
    let seen = database.observation.as_ref();
    let compared = seen.filter(|seen| seen.compared_at.is_some());
    let counted = |count: fn(&proto::DatabaseObservation) -> u32| {
        compared.map_or_else(|| "?".to_owned(), |seen| count(seen).to_string())
    };
    let origin = match &database.origin {
        Some(Origin::File(place)) => place.clone(),
        Some(Origin::Discovery(id)) => format!("discover {id}"),
        None => String::new(),
    };
    // A schema is one of a database: both are needed to find it.
    let place = format!("{}.{}", database.dbname, database.schema);
    let reachable = match seen {
        None => "?",
        Some(seen) if seen.reachable => "yes",
        Some(_) => "NO",
    };
    let version = match compared.map(|seen| seen.version.as_str()) {
        None => "?",
        Some("") => "-",
        Some(version) => version,
    };
    let ago = seen.and_then(|seen| age(seen.observed_at.as_ref(), now));
    vec![
        clean(&database.name),
        clean(&labels(&database.labels)),
        clean(&database.server),
        clean(&place),
        reachable.to_owned(),
        clean(version),
        counted(|seen| seen.pending),
        counted(|seen| seen.dirty),
        clean(&origin),
        ago.map_or_else(|| "not yet".to_owned(), shown),
    ]
}

/// How many there are and how they stand, and how old that is.
fn summary(databases: &[proto::Database], now: Timestamp) -> String {
    let seen = || databases.iter().filter_map(|database| database.observation.as_ref());
    let count = |is_meant: fn(&&proto::DatabaseObservation) -> bool| seen().filter(is_meant).count();
    let mut parts = vec![many(databases.len())];
    for (number, what) in [
        (count(|seen| !seen.reachable), "unreachable"),
        (count(|seen| seen.dirty > 0), "dirty"),
        (count(|seen| seen.pending > 0), "with pending migrations"),
        (databases.len() - seen().count(), "not seen yet"),
    ] {
        if number > 0 {
            parts.push(format!("{number} {what}"));
        }
    }
    let oldest = seen().filter_map(|seen| age(seen.observed_at.as_ref(), now)).max();
    parts.extend(oldest.map(|oldest| format!("as seen at most {} ago", shown(oldest))));
    parts.join(", ")
}

fn many(count: usize) -> String {
    format!("{count} {}", if count == 1 { "database" } else { "databases" })
}

fn age(time: Option<&prost_types::Timestamp>, now: Timestamp) -> Option<SignedDuration> {
    let time = time.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok())?;
    // A clock that is behind the daemon's makes nothing come from the future.
    Some(now.duration_since(time).max(SignedDuration::ZERO))
}

/// A length of time, for a person: its two greatest units are enough.
fn shown(age: SignedDuration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// What a reload changed.
pub fn reloaded(answer: &proto::ReloadInventoryResponse) -> String {
    let mut text = String::new();
    for (what, names) in
        [("added", &answer.added), ("changed", &answer.changed), ("removed", &answer.removed)]
    {
        if !names.is_empty() {
            let shown: Vec<_> = names.iter().take(MOST_NAMES).map(|name| clean(name)).collect();
            let more = names.len().saturating_sub(MOST_NAMES);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let _ = writeln!(text, "{what} {}: {}{more}", names.len(), shown.join(", "));
        }
    }
    if text.is_empty() {
        text.push_str("nothing has changed\n");
    }
    let _ = writeln!(text, "{}", many(usize::try_from(answer.databases).unwrap_or(usize::MAX)));
    if !answer.restart.is_empty() {
        let sections: Vec<_> = answer.restart.iter().map(|section| clean(section)).collect();
        let _ = writeln!(text, "changed, which takes effect with a restart: {}", sections.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::table::width;

    const NOW: i64 = 1_761_819_330;

    fn database(name: &str, observation: Option<proto::DatabaseObservation>) -> proto::Database {
        proto::Database {
            name: name.into(),
            labels: [("env".into(), "staging".into())].into(),
            server: "127.0.0.1:42009".into(),
            dbname: "shop".into(),
            schema: "public".into(),
            table: "schema_migrations".into(),
            migrations: "/srv/shop/migrations".into(),
            origin: Some(Origin::Discovery("tenants".into())),
            observation,
            protected: false,
        }
    }

    fn seen(age: i64, reachable: bool, pending: u32) -> proto::DatabaseObservation {
        let at = Some(prost_types::Timestamp { seconds: NOW - age, nanos: 0 });
        let version = "0010_add_products".to_owned();
        proto::DatabaseObservation {
            observed_at: at,
            reachable,
            compared_at: at,
            version,
            pending,
            ..Default::default()
        }
    }

    #[test]
    fn tables_fit_and_sum_up() {
        let databases = [
            database("shop-1", Some(seen(3, true, 2))),
            database("shop-2", Some(seen(4000, false, 0))),
            database("shop-3", None),
        ];
        let now = Timestamp::from_second(NOW).expect("a time");
        let whole = text(&databases, now, None);
        let lines: Vec<_> = whole.lines().collect();
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        assert_eq!(
            words(lines[2]),
            "shop-1 env=staging 127.0.0.1:42009 shop.public yes 0010_add_products 2 0 discover tenants 3s"
        );
        assert!(lines[3].contains("  NO  ") && lines[3].ends_with("  1h 6m"), "{whole}");
        assert!(words(lines[4]).ends_with("? ? ? ? discover tenants not yet"), "{whole}");
        let expected = "3 databases, 1 unreachable, 1 with pending migrations, 1 not seen yet, \
                        as seen at most 1h 6m ago";
        assert_eq!(lines.last(), Some(&expected), "{whole}");
        let narrow = text(&databases, now, Some(100));
        let table: Vec<_> = narrow.lines().take(5).collect();
        assert!(width(&table.join("\n")) <= 100 && !narrow.contains("discover tenants"), "{narrow}");
        let guarded = proto::Database { protected: true, ..database("shop-4", None) };
        let shown = text(&[databases[0].clone(), guarded], now, None);
        let cells: Vec<_> = shown.lines().map(|line| line.split_whitespace().nth(1)).collect();
        assert_eq!((cells[0], cells[2], cells[3]), (Some("protected"), Some("-"), Some("yes")), "{shown}");
        let thousands: Vec<_> = (0..3_000)
            .map(|number| database(&format!("tenant-{number:04}"), Some(seen(1, true, 0))))
            .collect();
        let shown = text(&thousands, now, Some(120));
        assert_eq!(shown.lines().count(), 2 + 3_000 + 2);
        assert!(shown.ends_with("\n3000 databases, as seen at most 1s ago\n"));
    }

    #[test]
    fn reloads() {
        let mut answer = proto::ReloadInventoryResponse { databases: 1, ..Default::default() };
        assert_eq!(reloaded(&answer), "nothing has changed\n1 database\n");
        answer.added = (0..22).map(|number| format!("t{number}")).collect();
        answer.removed = vec!["old".into()];
        answer.restart = vec!["[server]".into()];
        let text = reloaded(&answer);
        assert!(text.starts_with("added 22: t0, t1, "), "{text}");
        assert!(text.contains(", t19 and 2 more\nremoved 1: old\n"), "{text}");
        assert!(text.ends_with("changed, which takes effect with a restart: [server]\n"), "{text}");
    }
}
