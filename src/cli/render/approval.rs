//! What is to be approved, and what was decided.

use std::fmt::Write as _;

use crate::{
    cli::render::{
        plan,
        text::{clean, sentence, time},
    },
    rpc::proto::{self, ApprovalDecision, OperationState},
};

/// Where an approval stands, in a line; empty where none is taken.
pub(super) fn line(operation: &proto::Operation) -> String {
    let Some(approval) = &operation.approval else { return String::new() };
    let by = clean(&approval.decided_by);
    let at = time(approval.decided_at.as_ref());
    let reason =
        if approval.reason.is_empty() { String::new() } else { format!(": {}", sentence(&approval.reason)) };
    match approval.decision() {
        ApprovalDecision::Approved => format!("approved by {by}, {at}{reason}"),
        ApprovalDecision::Rejected => format!("rejected by {by}, {at}{reason}"),
        ApprovalDecision::Unspecified if operation.state() == OperationState::AwaitingApproval => {
            let (asked, role) = (clean(&approval.asked_by), clean(&approval.role));
            let until = time(approval.expires_at.as_ref());
            format!("by somebody other than {asked} who is {role} on every database, until {until}")
        }
        ApprovalDecision::Unspecified => "none was given".to_owned(),
    }
}

/// The protected databases that would be changed.
pub(super) fn protected(operation: &proto::Operation) -> String {
    let names = operation.approval.iter().flat_map(|approval| &approval.protected);
    names.map(|name| clean(name)).collect::<Vec<_>>().join(", ")
}

/// What waits for an approval: each database's steps, in their waves, and the digest; empty where nothing
/// does.
pub(super) fn waiting(operation: &proto::Operation, width: Option<u16>) -> String {
    let Some(approval) = &operation.approval else { return String::new() };
    if operation.state() != OperationState::AwaitingApproval || operation.databases.is_empty() {
        return String::new();
    }
    if !operation.repair.is_empty() {
        // It has no steps: it changes a row.
        let names: Vec<_> = operation.databases.iter().map(|database| clean(&database.name)).collect();
        let (repair, digest) = (clean(&operation.repair), clean(&approval.plan_digest));
        return format!("\n{}: {repair}\n\ndigest: {digest}\n", names.join(", "));
    }
    let databases = operation.databases.iter().map(|database| proto::DatabaseResult {
        database: database.name.clone(),
        plan: database.planned.clone(),
        ..Default::default()
    });
    let waves = operation.waves.iter().map(|wave| {
        let of_wave = operation.databases.iter().filter(|database| database.wave == wave.name);
        proto::Wave {
            name: wave.name.clone(),
            is_canary: wave.is_canary,
            databases: of_wave.map(|database| database.name.clone()).collect(),
        }
    });
    let whole = proto::PlanResponse {
        databases: databases.collect(),
        waves: waves.collect(),
        digest: approval.plan_digest.clone(),
        strategy: operation.strategy.clone(),
    };
    let mut text = String::new();
    let _ = write!(text, "\n{}", plan::fleet(&whole, width));
    text
}
