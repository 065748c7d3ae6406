//! A grant: a role on some databases.

use crate::{
    access::Role,
    selector::{Facts, Pattern, Selector},
};

/// The glob that means every database.
pub const EVERY: &str = "*";

/// A role on some databases.
#[derive(Debug, Clone)]
pub struct Grant {
    role: Role,
    databases: Vec<Pattern>,
    selectors: Vec<Selector>,
    is_everywhere: bool,
    max_rollback_steps: Option<u32>,
}

/// What is wrong with a grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// It does not say on which databases.
    #[error("it says no databases: databases = [\"*\"] means every one")]
    Nothing,
    /// One of its names is no glob.
    #[error("{0:?} is not a name or a glob: {1}")]
    Glob(String, String),
    /// One of its selectors cannot be read.
    #[error(transparent)]
    Selector(#[from] crate::selector::SelectorError),
}

impl Grant {
    /// A role on the databases that one of the globs and all of the selectors match, as in a request.
    /// An operator rolls back at most `max_rollback_steps` migrations of a database at once; `None` is
    /// without a limit, as it is for an admin in any case.
    pub fn new(
        role: Role,
        databases: &[String],
        selectors: &[String],
        max_rollback_steps: Option<u32>,
    ) -> Result<Self, GrantError> {
        if databases.is_empty() && selectors.is_empty() {
            return Err(GrantError::Nothing);
        }
        let glob =
            |text: &String| Pattern::parse(text).map_err(|wrong| GrantError::Glob(text.clone(), wrong));
        let selector = |text: &String| Selector::parse(text).map_err(GrantError::Selector);
        Ok(Self {
            role,
            is_everywhere: selectors.is_empty() && databases.iter().any(|glob| glob == EVERY),
            databases: databases.iter().map(glob).collect::<Result<_, _>>()?,
            selectors: selectors.iter().map(selector).collect::<Result<_, _>>()?,
            max_rollback_steps: max_rollback_steps.filter(|_| role < Role::Admin),
        })
    }

    /// A role on every database, without a limit.
    pub fn everywhere(role: Role) -> Self {
        Self {
            role,
            databases: Vec::new(),
            selectors: Vec::new(),
            is_everywhere: true,
            max_rollback_steps: None,
        }
    }

    /// The role.
    pub fn role(&self) -> Role {
        self.role
    }

    /// How many migrations of a database are rolled back at once, at most; `None` is without a limit.
    pub fn max_rollback_steps(&self) -> Option<u32> {
        self.max_rollback_steps
    }

    /// Whether it is on every database, those that are yet to come included.
    pub fn is_everywhere(&self) -> bool {
        self.is_everywhere
    }

    /// Whether it is on this database.
    pub fn covers(&self, facts: &Facts<'_>) -> bool {
        self.is_everywhere
            || (self.databases.is_empty() || self.databases.iter().any(|glob| glob.matches(facts.name)))
                && self.selectors.iter().all(|selector| selector.matches(facts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_grant_covers() {
        let labels = [("env".to_owned(), "prod".to_owned())].into();
        let facts =
            Facts { name: "orders-eu", server: "h:1", schema: "public", dbname: "orders", labels: &labels };
        let check = |databases: &[&str], selectors: &[&str], expected: Result<(bool, bool), &str>| {
            let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
            let grant = Grant::new(Role::Viewer, &owned(databases), &owned(selectors), None);
            let is = grant.map(|grant| (grant.covers(&facts), grant.is_everywhere()));
            let is = is.map_err(|error| error.to_string());
            assert_eq!(is, expected.map_err(str::to_owned), "{databases:?} {selectors:?}");
        };
        check(&["*"], &[], Ok((true, true)));
        check(&["orders-*", "x"], &[], Ok((true, false)));
        check(&["billing"], &[], Ok((false, false)));
        check(&[], &["env=prod"], Ok((true, false)));
        check(&["*"], &["env=prod", "name!~orders-*"], Ok((false, false)));
        check(&["billing"], &["env=prod"], Ok((false, false)));
        check(&[], &[], Err("it says no databases: databases = [\"*\"] means every one"));
        assert!(Grant::new(Role::Admin, &["a[".to_owned()], &[], None).is_err());
        assert!(Grant::new(Role::Admin, &[], &["env".to_owned()], None).is_err());
    }

    #[test]
    fn an_admin_has_no_limit() {
        let limit =
            |role| Grant::new(role, &[EVERY.to_owned()], &[], Some(1)).map(|it| it.max_rollback_steps());
        assert_eq!(limit(Role::Operator), Ok(Some(1)));
        assert_eq!(limit(Role::Admin), Ok(None));
    }
}
