//! The discoveries of a configuration: each is looked for on its period, and what it finds is taken over
//! or refused.

use std::{collections::BTreeMap, sync::Weak};

use jiff::Timestamp;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    config::DiscoverConfig,
    daemon::{
        inventories::{Inventories, MOST_NAMES, State},
        wire::{self, Wanted},
    },
    fleet::discovery::Found,
    migration::{Code, Failure},
    postgres::Target,
};

/// One discovery.
pub(super) struct Looked {
    pub(super) config: DiscoverConfig,
    /// What it found when it last found something that could be taken over.
    pub(super) last: Option<Vec<Wanted>>,
    /// The same, as other daemons are told of it.
    pub(super) found: Option<Vec<Found>>,
    /// When it was last asked to be looked for.
    pub(super) asked: Option<Timestamp>,
    pub(super) fault: Option<Failure>,
    /// The number of the look that was taken over last: one that began before it, and ended after it, tells
    /// nothing new.
    pub(super) look: u64,
    /// Ends its period.
    pub(super) _stop: DropGuard,
}

/// Looks once for the databases of an entry.
pub(super) async fn look(entry: &DiscoverConfig) -> Result<Vec<Found>, Failure> {
    let wrong = |error: anyhow::Error| Failure::new(Code::DiscoveryRefused, format!("{error:#}"));
    let discovery = wire::discovery(entry).map_err(wrong)?;
    // On the heap only while it lasts.
    Box::pin(discovery.look()).await
}

/// Takes over what an entry has found, unless a name of it is another one's: then, as after a failure,
/// what it found before stays. An entry that has changed in the meantime is not meant any more, nor is a
/// look that a later one has overtaken.
pub(super) fn take(
    state: &mut State,
    number: u64,
    entry: &DiscoverConfig,
    found: Result<Vec<Found>, Failure>,
    asked: Option<Timestamp>,
) {
    let taken = found.and_then(|found| Ok((wanted(state, entry, found.clone())?, found)));
    let known = state.discoveries.get_mut(&entry.id);
    let Some(looked) = known.filter(|looked| looked.config.is_same(entry)) else { return };
    // Also where a later look has overtaken this one: it tells what was asked.
    looked.asked = looked.asked.max(asked);
    if looked.look >= number {
        return;
    }
    looked.look = number;
    match taken {
        Ok((wanted, found)) => {
            looked.fault = None;
            (looked.last, looked.found) = (Some(wanted), Some(found));
        }
        Err(mut failure) => {
            // Where it is written now: lines move.
            let place = &looked.config.place;
            failure.message = format!("{place}: discover {:?}: {}", entry.id, failure.message);
            if looked.fault.as_ref() != Some(&failure) {
                tracing::error!(%failure, "a discovery failed: what it found last stays");
            }
            looked.fault = Some(failure);
        }
    }
}

fn wanted(state: &State, entry: &DiscoverConfig, found: Vec<Found>) -> Result<Vec<Wanted>, Failure> {
    // A table that is filled anew, or a right that was taken away, is no reason to forget a fleet.
    let last = state.discoveries.get(&entry.id).and_then(|looked| looked.last.as_ref());
    if let Some(last) = last.filter(|last| found.is_empty() && !last.is_empty() && !entry.allow_empty) {
        let message = format!(
            "nothing was found, where there were {}; if that is meant: allow_empty = true",
            last.len()
        );
        return Err(Failure::new(Code::DiscoveryRefused, message));
    }
    let others = names_of_others(state, &entry.id);
    let twice = found.iter().filter_map(|it| Some((&it.name, others.get(it.name.as_str())?)));
    let details: Vec<_> = twice
        .take(MOST_NAMES)
        .map(|(name, other)| format!("{name:?} is the name of a database of {other} already"))
        .collect();
    if let Some(first) = details.first() {
        let message = format!("what was found cannot be taken over: {first}; names are unique");
        return Err(Failure::new(Code::DiscoveryRefused, message).details(details));
    }
    let target = Target::parse(&entry.url).map_err(|error| Failure::from(&error))?;
    Ok(found.into_iter().map(|found| Wanted::found(entry, &target, found)).collect())
}

/// The names that an entry may not give, and whose they are.
fn names_of_others<'a>(state: &'a State, id: &str) -> BTreeMap<&'a str, String> {
    let named = state.current.databases.iter().map(|it| (it.name.as_str(), it.place.to_string()));
    let others = state.discoveries.iter().filter(|(other, _)| *other != id);
    let found = others.flat_map(|(id, looked)| {
        let databases = looked.last.iter().flatten();
        databases.map(move |database| (database.name(), format!("discover {id:?}")))
    });
    found.chain(named).collect()
}

/// Looks for the databases of one entry on its period, until it is another one or gone.
pub(super) async fn keep(inventories: Weak<Inventories>, entry: DiscoverConfig, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(entry.every) => {}
            () = stop.cancelled() => return,
        }
        let Some(inventories) = inventories.upgrade() else { return };
        if !inventories.leads() {
            continue;
        }
        tokio::select! {
            () = inventories.refresh(&entry) => {}
            () = stop.cancelled() => return,
        }
    }
}
