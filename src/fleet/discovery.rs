//! Looking for databases: the server's, one database's schemas, or what a query says.
//!
//! Everything that is found is taken over, or nothing: a look that finds too much, or something that
//! cannot be a database of the fleet, is refused with words, and what was known stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    migration::{Code, Failure},
    postgres::{
        Target,
        discover::{self, DiscoverError, Row},
    },
    selector::{Pattern, is_label_value, is_name},
};

/// How many of the rows that are wrong a refusal names.
const MOST_DETAILS: usize = 20;

/// How databases are looked for.
#[derive(Debug, Clone)]
pub struct Discovery {
    /// What it is called.
    pub id: String,
    /// Where it looks.
    pub target: Target,
    /// What it looks for.
    pub find: Find,
    /// What is not meant, of databases or schemas.
    pub exclude: Vec<Pattern>,
    /// What a database is called: `{name}`, `{dbname}` and `{schema}` are replaced. `None`: what suits
    /// what is looked for.
    pub name: Option<String>,
    /// The schema where what is found does not say one.
    pub schema: String,
    /// How many may be found.
    pub limit: usize,
    /// How long it may take.
    pub timeout: Duration,
}

/// What is looked for.
#[derive(Debug, Clone)]
pub enum Find {
    /// The rows of a query.
    Query(String),
    /// Databases of the server.
    Databases(Vec<Pattern>),
    /// Schemas of the target's database.
    Schemas(Vec<Pattern>),
}

/// A database that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name in the fleet.
    pub name: String,
    /// PostgreSQL's name for it.
    pub dbname: String,
    /// The schema of its migrations.
    pub schema: String,
    /// Labels that the query says.
    pub labels: BTreeMap<String, String>,
}

impl Discovery {
    /// Looks once. The databases are in the order of their names; each name is there once.
    pub async fn look(&self) -> Result<Vec<Found>, Failure> {
        let found = match &self.find {
            // One more tells that there are too many.
            Find::Query(query) => {
                let rows = discover::rows(&self.target, query, self.limit + 1, self.timeout).await;
                rows.map_err(failed)?
            }
            Find::Databases(patterns) => {
                let names = discover::databases(&self.target, self.timeout).await.map_err(failed)?;
                let row = |dbname| Row { dbname: Some(dbname), ..Row::default() };
                self.meant(names, patterns).map(row).collect()
            }
            Find::Schemas(patterns) => {
                let names = discover::schemas(&self.target, self.timeout).await.map_err(failed)?;
                let row = |schema| Row { schema: Some(schema), ..Row::default() };
                self.meant(names, patterns).map(row).collect()
            }
        };
        self.read(found)
    }

    fn meant(&self, names: Vec<String>, patterns: &[Pattern]) -> impl Iterator<Item = String> {
        let is_meant = |name: &String| {
            let is_of = |pattern: &Pattern| pattern.matches(name);
            patterns.iter().any(is_of) && !self.exclude.iter().any(is_of)
        };
        names.into_iter().filter(is_meant)
    }

    /// Makes databases of rows; everything that is wrong with them is told at once.
    fn read(&self, rows: Vec<Row>) -> Result<Vec<Found>, Failure> {
        if rows.len() > self.limit {
            let what = match self.find {
                Find::Query(_) => "query",
                Find::Databases(_) | Find::Schemas(_) => "patterns",
            };
            let limit = self.limit;
            let message =
                format!("more than {limit} databases were found: narrow the {what}, or raise limit");
            return Err(Failure::new(Code::DiscoveryRefused, message));
        }
        let (mut found, mut wrong) = (BTreeMap::new(), Vec::new());
        let mut twice = BTreeSet::new();
        for (index, row) in rows.into_iter().enumerate() {
            match self.database(row) {
                Ok(database) => {
                    if let Some(other) = found.insert(database.name.clone(), database) {
                        twice.insert(other.name);
                    }
                }
                Err(why) => wrong.push(format!("#{}: {why}", index + 1)),
            }
        }
        wrong.extend(twice.into_iter().map(|name| format!("several are called {name:?}; names are unique")));
        if wrong.is_empty() {
            return Ok(found.into_values().collect());
        }
        let message = match wrong.as_slice() {
            [one] => format!("what was found cannot be taken over: {one}"),
            all => format!("what was found cannot be taken over, for {} reasons: {}", all.len(), all[0]),
        };
        wrong.truncate(MOST_DETAILS);
        Err(Failure::new(Code::DiscoveryRefused, message).details(wrong))
    }

    fn database(&self, row: Row) -> Result<Found, String> {
        let Row { name, dbname, schema, labels } = row;
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let name = given(name);
        let dbname = given(dbname).unwrap_or_else(|| self.target.dbname().to_owned());
        let schema = given(schema).unwrap_or_else(|| self.schema.clone());
        let template = match (&self.name, &self.find) {
            (Some(template), _) => template.as_str(),
            (None, Find::Databases(_)) => "{dbname}",
            (None, Find::Schemas(_)) => "{dbname}-{schema}",
            (None, Find::Query(_)) => "{name}",
        };
        if template.contains("{name}") && name.is_none() {
            return Err("it has no name: give the query a column name, or the entry a name".to_owned());
        }
        // What is put in and looks like a placeholder is no name in the end.
        let name = template
            .replace("{name}", name.as_deref().unwrap_or_default())
            .replace("{dbname}", &dbname)
            .replace("{schema}", &schema);
        if !is_name(&name) {
            return Err(format!(
                "{name:?} is not a name of letters, digits, `_`, `.` and `-`; exclude it, or name it by a query"
            ));
        }
        let labels: BTreeMap<_, _> = labels.into_iter().collect();
        for (key, value) in &labels {
            if !is_name(key) || !is_label_value(value) {
                return Err(format!("{name}: the label {key:?} is not one, or has a comma in its value"));
            }
        }
        Ok(Found { name, dbname, schema, labels })
    }
}

fn failed(error: DiscoverError) -> Failure {
    match error {
        DiscoverError::Connect(error) => Failure::from(&error),
        DiscoverError::Sql(fault) => {
            let message = format!("the databases could not be looked for: {}", fault.message);
            let mut failure = Failure::new(Code::DiscoveryFailed, message);
            failure.server_message = Some(fault.message);
            failure.server_hint = fault.hint;
            failure.sqlstate = Some(fault.sqlstate);
            failure
        }
        DiscoverError::Lost => Failure::new(Code::ConnectionLost, "the connection was lost"),
        DiscoverError::Late(_) => Failure::new(Code::DiscoveryFailed, error.to_string())
            .hint("make the query faster, or raise timeout in the [[discover]] entry"),
        DiscoverError::UnknownColumn(_) => Failure::new(Code::DiscoveryFailed, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: Option<&str>, dbname: Option<&str>, schema: Option<&str>) -> Row {
        let own = |text: Option<&str>| text.map(str::to_owned);
        Row { name: own(name), dbname: own(dbname), schema: own(schema), labels: Vec::new() }
    }

    #[test]
    fn rows_become_databases_or_are_refused() {
        let url = "postgres://u@h/shop".to_owned().into();
        let discovery = |name: Option<&str>, find| Discovery {
            id: "tenants".to_owned(),
            target: Target::parse(&url).expect("the URL is right"),
            find,
            exclude: Vec::new(),
            name: name.map(str::to_owned),
            schema: "public".to_owned(),
            limit: 3,
            timeout: Duration::from_secs(1),
        };
        let query = || Find::Query(String::new());
        let read = |name: Option<&str>, find: Find, rows: &[Row]| {
            let found = discovery(name, find).read(rows.to_vec());
            found.map(|found| {
                found.iter().map(|it| format!("{} {}.{}", it.name, it.dbname, it.schema)).collect::<Vec<_>>()
            })
        };
        let check = |name, find, rows: &[Row], expected: &[&str]| {
            assert_eq!(read(name, find, rows).expect("it is taken"), expected);
        };
        let two = [row(Some("b"), None, None), row(Some("a"), Some("d"), Some("s"))];
        check(None, query(), &two, &["a d.s", "b shop.public"]);
        check(Some("{dbname}-{schema}"), query(), &[row(None, Some("d"), Some("s"))], &["d-s d.s"]);
        check(None, Find::Schemas(Vec::new()), &[row(None, None, Some("t1"))], &["shop-t1 shop.t1"]);
        check(None, Find::Databases(Vec::new()), &[row(None, Some("t1"), None)], &["t1 t1.public"]);
        check(None, query(), &[], &[]);
        let refused = |name: &[Option<&str>], expected: &str| {
            let rows: Vec<_> = name.iter().map(|name| row(*name, None, None)).collect();
            let failure = read(None, query(), &rows).expect_err("it is refused");
            assert!(failure.message.contains(expected), "{failure}");
        };
        refused(&[None], "#1: it has no name");
        refused(&[Some("a b")], "#1: \"a b\" is not a name");
        refused(&[Some("a"), Some("a")], "several are called \"a\"");
        refused(&[Some("a"), None, Some("b c")], "for 2 reasons: #2: it has no name");
        refused(&[Some("a"); 4], "more than 3 databases were found: narrow the query");
    }
}
