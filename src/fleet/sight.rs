//! What a caller may see and do, by the names of databases: operations, alerts and audits remember those
//! also when their databases are gone. Of what is gone nobody knows the labels any more, so that it is
//! theirs to whom every database is granted.

use std::{borrow::Cow, sync::Arc};

use crate::{
    access::Permit,
    engine::Verb,
    fleet::{
        Fleet, Request,
        inventory::{Inventory, Member},
        operation::{Command, Operation, Record},
        selector::{Need, Selection},
    },
    migration::{
        Code, Failure,
        plan::{Extent, RollbackRequest},
    },
};

/// What a caller may see, of the databases that there are now.
pub struct Sight {
    inventory: Arc<Inventory>,
    permit: Permit,
}

impl Sight {
    /// Whether nothing is hidden.
    pub fn sees_everything(&self) -> bool {
        self.permit.sees_everything()
    }

    /// Whether a database, or what is told of it, may be known. What is told of none is of the daemon as a
    /// whole.
    pub fn sees(&self, database: &str) -> bool {
        self.permit.sees_everything()
            || self.inventory.get(database).is_some_and(|member| self.permit.sees(&member.facts()))
    }

    /// Refuses databases on which the request's role is not granted.
    pub fn require<'a>(&self, databases: impl IntoIterator<Item = &'a String>) -> Result<(), Failure> {
        if self.permit.is_everywhere() {
            return Ok(());
        }
        let (mut known, mut hidden) = (Vec::new(), 0);
        for name in databases {
            match self.inventory.get(name).map(|member| member.facts()).filter(|it| self.permit.sees(it)) {
                Some(facts) => known.push(facts),
                None => hidden += 1,
            }
        }
        self.permit.require(known)?;
        if hidden == 0 {
            return Ok(());
        }
        let message = format!("It is about {hidden} databases more, which are not granted to you");
        Err(Failure::new(Code::NotGranted, message))
    }

    /// What may be known of an operation: the databases that the caller may see, and nothing that names
    /// the others.
    pub fn of<'a>(&self, record: &'a Record) -> Cow<'a, Record> {
        if record.databases.keys().all(|name| self.sees(name)) {
            return Cow::Borrowed(record);
        }
        let mut record = record.clone();
        record.databases.retain(|name, _| self.sees(name));
        for (wave, number) in record.waves.iter_mut().zip(1..) {
            wave.wave.databases.retain(|name| self.sees(name));
            if wave.wave.databases.is_empty() && !wave.wave.is_canary {
                // The value of a label that only hidden databases have.
                wave.wave.name = format!("wave {number}");
            }
        }
        if let Some(approval) = &mut record.approval {
            approval.protected.retain(|name| self.sees(name));
        }
        (record.why, record.selection) = (String::new(), Selection::default());
        Cow::Owned(record)
    }
}

impl Fleet {
    /// What a caller may see now.
    pub fn sight(&self, permit: &Permit) -> Sight {
        Sight { inventory: self.inventory(), permit: permit.clone() }
    }

    /// The one operation whose id begins so, of those that the caller may see something of.
    pub fn operation(&self, id: &str, permit: &Permit) -> Result<Arc<Operation>, Failure> {
        let sight = self.sight(permit);
        let is_there = |operation: &Operation| {
            sight.sees_everything()
                || operation.look(|record| record.databases.keys().any(|name| sight.sees(name)))
        };
        self.operations().find(id, is_there)
    }

    /// The operation, where the caller may do to all of its databases what it does.
    pub(super) fn permitted(
        &self,
        operation: Arc<Operation>,
        permit: &Permit,
    ) -> Result<Arc<Operation>, Failure> {
        let sight = self.sight(permit);
        operation.look(|record| sight.require(record.databases.keys()))?;
        Ok(operation)
    }

    /// Refuses to go on with a rollback that goes further than the caller may.
    pub(super) fn refuse_too_far(
        &self,
        operation: &Operation,
        command: Command,
        permit: &Permit,
    ) -> Result<(), Failure> {
        if !matches!(command, Command::Resume | Command::Retry | Command::Approve) {
            return Ok(());
        }
        let Verb::Rollback(request) = operation.verb() else { return Ok(()) };
        let inventory = self.inventory();
        let limit = operation.look(|record| {
            let members = record.databases.keys().filter_map(|name| inventory.get(name));
            permit.max_rollback_steps(members.map(|member| member.facts()))
        });
        within(&request, limit)
    }

    /// A verb within what the caller may roll back: further is refused, here where it is known, else when
    /// it is planned. Whoever only asks for a plan is shown any.
    pub fn within_limits(&self, request: &Request, mut verb: Verb) -> Result<Verb, Failure> {
        let Verb::Rollback(rollback) = &mut verb else { return Ok(verb) };
        if request.permit.is_for_reading() {
            return Ok(verb);
        }
        let members = self.inventory().select(&request.selection, Need::Named, &request.permit)?;
        let limit = request.permit.max_rollback_steps(members.iter().map(|member| member.facts()));
        let Some(limit) = limit else { return Ok(verb) };
        match &rollback.extent {
            Extent::Steps(steps) if *steps > i64::from(limit) => {
                let message = format!(
                    "{} may roll back {} at once, and {steps} are asked for",
                    request.requested_by,
                    migrations(limit)
                );
                return Err(Failure::new(Code::RollbackTooFar, message));
            }
            Extent::Steps(_) => {}
            Extent::To(_) | Extent::Exactly { .. } => rollback.most = Some(limit),
        }
        Ok(verb)
    }
}

/// Refuses to begin a rollback that goes further than the caller may on these databases: those that are
/// meant may have become others since the request was read.
pub(super) fn refuse_further(request: &Request, members: &[Arc<Member>], verb: &Verb) -> Result<(), Failure> {
    let Verb::Rollback(rollback) = verb else { return Ok(()) };
    within(rollback, request.permit.max_rollback_steps(members.iter().map(|member| member.facts())))
}

/// Refuses a rollback that goes further than a limit.
fn within(rollback: &RollbackRequest, limit: Option<u32>) -> Result<(), Failure> {
    let Some(limit) = limit else { return Ok(()) };
    let most = match rollback.extent {
        Extent::Steps(steps) => u32::try_from(steps).ok(),
        Extent::To(_) | Extent::Exactly { .. } => rollback.most,
    };
    if most.is_some_and(|most| most <= limit) {
        return Ok(());
    }
    let message = format!("The operation rolls back further than {} at once", migrations(limit));
    Err(Failure::new(Code::RollbackTooFar, message))
}

fn migrations(count: u32) -> String {
    if count == 1 { "1 migration".to_owned() } else { format!("{count} migrations") }
}
