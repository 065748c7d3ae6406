//! The one table of what an RPC takes. An RPC that is not in it is refused.

use crate::access::{
    Role::{self, Admin, Operator, Viewer},
    Scope::{Databases, Everything, Nothing},
};

/// What an RPC takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Its path, as HTTP/2 has it: `/package.Service/Method`.
    pub path: &'static str,
    /// The least role; `None`: whoever reaches it, without saying who they are.
    pub least: Option<Role>,
    /// On what.
    pub scope: Scope,
}

/// On what a role has to be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// On anything: the request is about no database.
    Nothing,
    /// On each database that the request is about; that is asked where these are resolved.
    Databases,
    /// On every database: the request is about the daemon as a whole.
    Everything,
}

const fn rule(path: &'static str, least: Role, scope: Scope) -> Rule {
    Rule { path, least: Some(least), scope }
}

const fn open(path: &'static str) -> Rule {
    Rule { path, least: None, scope: Nothing }
}

/// What `/metrics` takes: its labels name every database.
pub const METRICS: Rule = rule("/metrics", Viewer, Everything);

/// What each RPC takes.
pub const RULES: &[Rule] = &[
    rule("/nexus.v1.MigrationService/Apply", Operator, Databases),
    rule("/nexus.v1.MigrationService/Rollback", Operator, Databases),
    rule("/nexus.v1.MigrationService/Recover", Operator, Databases),
    rule("/nexus.v1.MigrationService/Repair", Admin, Databases),
    rule("/nexus.v1.MigrationService/Plan", Viewer, Databases),
    rule("/nexus.v1.MigrationService/Status", Viewer, Databases),
    rule("/nexus.v1.MigrationService/History", Viewer, Databases),
    rule("/nexus.v1.FleetService/ListDatabases", Viewer, Databases),
    rule("/nexus.v1.FleetService/ReloadInventory", Admin, Everything),
    rule("/nexus.v1.FleetService/GetVersion", Viewer, Nothing),
    rule("/nexus.v1.OperationService/ListOperations", Viewer, Databases),
    rule("/nexus.v1.OperationService/GetOperation", Viewer, Databases),
    rule("/nexus.v1.OperationService/WatchOperation", Viewer, Databases),
    rule("/nexus.v1.OperationService/PauseOperation", Operator, Databases),
    rule("/nexus.v1.OperationService/ResumeOperation", Operator, Databases),
    rule("/nexus.v1.OperationService/CancelOperation", Operator, Databases),
    rule("/nexus.v1.OperationService/RetryOperation", Operator, Databases),
    // Of the operation's own role, and of who asked for it, the fleet asks.
    rule("/nexus.v1.OperationService/ApproveOperation", Operator, Databases),
    rule("/nexus.v1.OperationService/RejectOperation", Operator, Databases),
    rule("/nexus.v1.AuditService/RunAudit", Viewer, Databases),
    rule("/nexus.v1.AuditService/ListAudits", Viewer, Databases),
    rule("/nexus.v1.AuditService/GetAudit", Viewer, Databases),
    rule("/nexus.v1.AuditLogService/GetAuditLogHead", Viewer, Nothing),
    rule("/nexus.v1.AlertService/ListAlerts", Viewer, Databases),
    rule("/nexus.v1.AlertService/WatchAlerts", Viewer, Databases),
    rule("/nexus.v1.AlertService/AcknowledgeAlert", Operator, Databases),
    // A probe has no credential, and hears no more than whether the daemon takes requests.
    open("/grpc.health.v1.Health/Check"),
    open("/grpc.health.v1.Health/Watch"),
    rule("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Viewer, Nothing),
];

/// What an RPC takes; `None` where nothing says so: then nobody may.
pub fn of(path: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.path == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rpc_has_one_rule() {
        let mut paths: Vec<_> = RULES.iter().map(|rule| rule.path).collect();
        paths.sort_unstable();
        assert!(paths.windows(2).all(|pair| pair[0] != pair[1]));
        assert_eq!(of("/nexus.v1.MigrationService/Repair").and_then(|rule| rule.least), Some(Admin));
        assert_eq!(of("/nexus.v1.MigrationService/Drop"), None);
        assert_eq!(of("/nexus.v1.MigrationService/repair"), None);
    }
}
