//! What one request may do: who asks, what is granted to them, and the role that it takes.

use std::sync::Arc;

use crate::{
    access::{Caller, Grant, Origin, Proof, Role, Rule, Scope},
    migration::{Code, Failure},
    selector::Facts,
};

/// How many names a refusal lists.
const MOST_NAMES: usize = 20;

/// What one request may do.
#[derive(Debug, Clone)]
pub struct Permit {
    caller: Caller,
    grants: Arc<[Grant]>,
    least: Role,
    /// The RPC's path; empty where there is none.
    rpc: &'static str,
}

impl Permit {
    /// The permit of a request under a rule. Refused where the caller has its role on nothing, or not on
    /// everything where that is what it takes. Of the databases it is asked later.
    pub fn new(caller: Caller, grants: Arc<[Grant]>, rule: &Rule) -> Result<Self, Failure> {
        let permit = Self { caller, grants, least: rule.least.unwrap_or(Role::Viewer), rpc: rule.path };
        let is_enough = match rule.scope {
            Scope::Nothing | Scope::Databases => permit.granting().next().is_some(),
            Scope::Everything => permit.is_everywhere(),
        };
        if is_enough { Ok(permit) } else { Err(permit.denied(rule)) }
    }

    /// The same for what takes at least this role.
    #[must_use]
    pub fn at_least(self, role: Role) -> Self {
        Self { least: self.least.max(role), ..self }
    }

    /// Nothing at all: for what takes no role, from whoever asks.
    pub fn nothing(from: Origin) -> Self {
        let caller = Caller { name: String::new(), proof: Proof::None, from };
        Self { caller, grants: Arc::new([]), least: Role::Viewer, rpc: "" }
    }

    /// The daemon's own, for what its configuration says.
    pub fn of_the_daemon() -> Self {
        Self::everything(Caller::daemon())
    }

    /// Everything, on every database.
    pub fn everything(caller: Caller) -> Self {
        Self { caller, grants: Arc::new([Grant::everywhere(Role::Admin)]), least: Role::Admin, rpc: "" }
    }

    /// Who asks.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The path of the RPC that it is for; empty where the daemon itself is at work.
    pub fn rpc(&self) -> &'static str {
        self.rpc
    }

    /// Who asks, by the name that counts: where nothing is proven, what they say of themselves.
    pub fn requested_by(&self, claimed: &str) -> String {
        self.caller.clone().called(claimed).name
    }

    /// The role that it takes.
    pub fn least(&self) -> Role {
        self.least
    }

    /// Whether the request changes nothing.
    pub fn is_for_reading(&self) -> bool {
        self.least == Role::Viewer
    }

    /// Whether the request's role is granted on every database.
    pub fn is_everywhere(&self) -> bool {
        self.granting().any(Grant::is_everywhere)
    }

    /// Whether the caller may know of a database: whether anything is granted to them on it.
    pub fn sees(&self, facts: &Facts<'_>) -> bool {
        self.grants.iter().any(|grant| grant.covers(facts))
    }

    /// Whether anything is granted to the caller on every database.
    pub fn sees_everything(&self) -> bool {
        self.grants.iter().any(Grant::is_everywhere)
    }

    /// Whether the request's role is granted on a database.
    pub fn allows(&self, facts: &Facts<'_>) -> bool {
        self.granting().any(|grant| grant.covers(facts))
    }

    /// Refuses databases on which the request's role is not granted.
    pub fn require<'a>(&self, databases: impl IntoIterator<Item = Facts<'a>>) -> Result<(), Failure> {
        let mut denied: Vec<_> = databases
            .into_iter()
            .filter(|facts| !self.allows(facts))
            .map(|facts| facts.name.to_owned())
            .collect();
        if denied.is_empty() {
            return Ok(());
        }
        let message = match denied.as_slice() {
            [name] => format!("{} is not {} on {name}", self.name(), self.least),
            names => format!("{} is not {} on {} of the databases", self.name(), self.least, names.len()),
        };
        let more = denied.len().saturating_sub(MOST_NAMES);
        denied.truncate(MOST_NAMES);
        denied.extend((more > 0).then(|| format!("and {more} more")));
        Err(Failure::new(Code::NotGranted, message).details(denied))
    }

    /// How many migrations of each of these databases may be rolled back at once; `None` is without a
    /// limit.
    pub fn max_rollback_steps<'a>(&self, databases: impl IntoIterator<Item = Facts<'a>>) -> Option<u32> {
        let of_one = |facts: Facts<'a>| {
            let limits = self.granting().filter(|grant| grant.covers(&facts)).map(Grant::max_rollback_steps);
            // The widest of the grants counts; without any there is nothing to roll back.
            limits.reduce(|a, b| a.zip(b).map(|(a, b)| a.max(b))).unwrap_or(Some(0))
        };
        databases.into_iter().filter_map(of_one).min()
    }

    /// The grants that the request's role takes.
    fn granting(&self) -> impl Iterator<Item = &Grant> {
        self.grants.iter().filter(|grant| grant.role() >= self.least)
    }

    fn name(&self) -> &str {
        if self.caller.name.is_empty() { "Somebody" } else { &self.caller.name }
    }

    fn denied(&self, rule: &Rule) -> Failure {
        let method = rule.path.rsplit('/').next().unwrap_or(rule.path);
        let is_elsewhere = self.granting().next().is_some();
        let on = if is_elsewhere { "on every database" } else { "on at least one database" };
        let message = format!("{} may not {method}: it takes the role {} {on}", self.name(), self.least);
        Failure::new(Code::RoleTooLow, message)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::access::rule;

    fn grant(role: Role, glob: &str, steps: Option<u32>) -> Grant {
        Grant::new(role, &[glob.to_owned()], &[], steps).expect("it is a grant")
    }

    fn permit(grants: &[Grant], method: &str) -> Result<Permit, Failure> {
        let proof = Proof::Token { id: "1a2b".into() };
        let caller = Caller { name: "ci".into(), proof, from: Origin::Unix(None) };
        let path = rule::RULES.iter().find(|rule| rule.path.ends_with(method)).expect("there is such a rule");
        Permit::new(caller, grants.into(), path)
    }

    #[test]
    fn a_role_has_to_be_granted_on_something() {
        let check = |grants: &[Grant], method: &str, expected: bool| {
            let permit = permit(grants, method);
            assert_eq!(permit.is_ok(), expected, "{grants:?} {method}");
            let code = permit.err().map(|failure| failure.code);
            assert_eq!(code, (!expected).then_some(Code::RoleTooLow), "{method}");
        };
        let (viewer, operator) = (grant(Role::Viewer, "*", None), grant(Role::Operator, "dev-*", None));
        let (admin, all) = (grant(Role::Admin, "dev-*", None), grant(Role::Admin, "*", None));
        check(&[], "/GetVersion", false);
        check(std::slice::from_ref(&viewer), "/Status", true);
        check(std::slice::from_ref(&viewer), "/Apply", false);
        check(&[viewer.clone(), operator.clone()], "/Apply", true);
        check(&[operator], "/Repair", false);
        check(std::slice::from_ref(&admin), "/Repair", true);
        check(&[viewer, admin], "/ReloadInventory", false);
        check(&[all], "/ReloadInventory", true);
    }

    #[test]
    fn databases_are_asked_one_by_one() {
        let labels = BTreeMap::new();
        let facts = |name| Facts { name, server: "h:1", schema: "public", dbname: name, labels: &labels };
        let grants = [
            grant(Role::Viewer, "*-eu", None),
            grant(Role::Operator, "dev-*", Some(2)),
            grant(Role::Admin, "dev-1", None),
        ];
        let apply = permit(&grants, "/Apply").expect("it is granted somewhere");
        let seen = ["dev-1", "shop-eu", "shop-us"]
            .map(|name| (apply.sees(&facts(name)), apply.allows(&facts(name))));
        assert_eq!(seen, [(true, true), (true, false), (false, false)]);
        assert!(apply.require(["dev-1", "dev-2"].map(facts)).is_ok());
        let failure = apply.require(["dev-1", "shop-eu"].map(facts)).expect_err("it is not granted");
        assert_eq!(
            (failure.code, failure.message.as_str()),
            (Code::NotGranted, "ci is not operator on shop-eu")
        );
        assert_eq!(apply.max_rollback_steps(["dev-1"].map(facts)), None);
        assert_eq!(apply.max_rollback_steps(["dev-1", "dev-2"].map(facts)), Some(2));
        assert_eq!(apply.max_rollback_steps(["shop-eu", "dev-2"].map(facts)), Some(0));
        assert!(Permit::of_the_daemon().require([facts("shop-us")]).is_ok());
    }
}
