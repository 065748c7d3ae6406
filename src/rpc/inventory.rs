//! How the inventory is told: each database with what was seen of it last, and what a reload changed.

use crate::{
    fleet::{
        ReloadFault, Reloaded,
        inventory::{Inventory, Member, Origin, Rows, Seen},
    },
    migration::FindingKind,
    rpc::{
        convert::{failure, timestamp},
        proto,
    },
};

/// Tells a database of an inventory.
pub(super) fn database(inventory: &Inventory, member: &Member) -> proto::Database {
    let origin = inventory.origin(member.name()).map(|origin| match origin {
        Origin::File(place) => proto::database::Origin::File(place.clone()),
        Origin::Discovery(id) => proto::database::Origin::Discovery(id.clone()),
    });
    proto::Database {
        name: member.name().to_owned(),
        labels: member.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        server: member.server.clone(),
        dbname: member.database.dbname.clone(),
        schema: member.database.names.schema.clone(),
        migrations: member.migrations.display().to_string(),
        table: member.database.names.table.clone(),
        origin,
        observation: observation(&member.seen()),
        protected: member.database.is_protected,
    }
}

fn observation(seen: &Seen) -> Option<proto::DatabaseObservation> {
    let last = seen.last.as_ref()?;
    let unreachable = last.findings.iter().find(|finding| finding.kind == FindingKind::DatabaseUnreachable);
    let mut told = proto::DatabaseObservation {
        observed_at: Some(timestamp(last.time)),
        reachable: unreachable.is_none(),
        unreachable_reason: unreachable.map(|finding| finding.message.clone()).unwrap_or_default(),
        ..Default::default()
    };
    if let Some(Rows { at, counts, newest }) = &seen.rows {
        told.compared_at = Some(timestamp(*at));
        told.version = newest.as_ref().map(ToString::to_string).unwrap_or_default();
        (told.applied, told.pending, told.dirty) = (counts.applied, counts.pending, counts.dirty);
    }
    Some(told)
}

/// Tells what a reload changed.
pub(super) fn reloaded(reloaded: Reloaded) -> proto::ReloadInventoryResponse {
    let Reloaded { change, faults, restart } = reloaded;
    let fault = |ReloadFault { subject, failure: why }: &ReloadFault| proto::DiscoveryFailure {
        discovery: subject.clone(),
        failure: Some(failure(why)),
    };
    proto::ReloadInventoryResponse {
        added: change.added,
        changed: change.changed,
        removed: change.removed,
        databases: u32::try_from(change.databases.len()).unwrap_or(u32::MAX),
        failures: faults.iter().map(fault).collect(),
        restart: restart.into_iter().map(str::to_owned).collect(),
    }
}
