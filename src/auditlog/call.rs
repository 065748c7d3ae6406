//! One call of an RPC that changes something, from the question to its end.
//!
//! A service makes a [`Call`] of what it was asked. Whoever decides that it is done says so, before anything
//! is changed ([`Call::allow`]): that is the start record. Where it never came to that, the answer is a
//! refusal; else it is the result.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    access::{Caller, Origin, Permit},
    auditlog::{Asked, AuditLog, Entry},
    migration::{Code, Failure},
};

/// What was decided to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// The operation that it is, or that it is about.
    pub operation: Option<Uuid>,
    /// The databases that are meant, resolved.
    pub databases: Vec<String>,
}

/// One call.
pub struct Call {
    /// Where it is recorded; `None`: it changes nothing, and is not recorded.
    log: Option<AuditLog>,
    id: Uuid,
    /// Who asked for what.
    fields: Map<String, Value>,
    likeness: String,
    is_known: bool,
    state: Mutex<State>,
}

/// How far a call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Asked,
    Allowed,
    Ended,
}

impl AuditLog {
    /// A call that a permit was given for.
    pub fn call(&self, permit: &Permit, asked: &Asked) -> Arc<Call> {
        Arc::new(Call::of(Some(self.clone()), permit.caller(), permit.rpc(), asked))
    }

    /// A call that was refused before anybody read what was asked. Nobody's name is known where it was
    /// refused because of that.
    pub fn refused(&self, rpc: &str, caller: Option<&Caller>, from: Origin, failure: &Failure) {
        let nobody = Caller { name: String::new(), proof: crate::access::Proof::None, from };
        Call::of(Some(self.clone()), caller.unwrap_or(&nobody), rpc, &Asked::default())
            .answered(Err(failure));
    }
}

impl Call {
    /// One that is not recorded: it changes nothing, or somebody else has recorded it.
    pub fn unrecorded() -> Arc<Self> {
        Arc::new(Self::of(None, &Caller::daemon(), "", &Asked::default()))
    }

    fn of(log: Option<AuditLog>, caller: &Caller, rpc: &str, asked: &Asked) -> Self {
        let (caller, asked) = (caller.clone().called(&asked.claimed), asked.fields());
        let who = Entry::new("call")
            .with("rpc", rpc)
            .with("who", caller.name.as_str())
            .with("method", caller.proof.method())
            .with("proof", caller.proof.to_string())
            .with("from", caller.from.to_string());
        let place = match caller.from {
            // Each connection has another port.
            Origin::Tcp(address) => address.ip().to_string(),
            Origin::Unix(_) => "unix".to_owned(),
            Origin::Daemon => "daemon".to_owned(),
        };
        // The ids of requests differ, and a reason may be anything.
        let alike = asked.iter().filter(|(key, _)| *key != "request_id" && *key != "reason");
        let alike: Map<_, _> = alike.map(|(key, value)| (key.clone(), value.clone())).collect();
        Self {
            log,
            id: Uuid::now_v7(),
            likeness: format!("{place} {} {rpc} {}", caller.proof, Value::Object(alike)),
            fields: who.with_all(&asked).redacted(),
            is_known: caller.is_proven(),
            state: Mutex::new(State::Asked),
        }
    }

    /// Records that it is done now, and comes back when the disk has that. Refused where it cannot be
    /// recorded: then nothing may be changed.
    pub async fn allow(&self, allowed: &Allowed) -> Result<(), Failure> {
        let Some(log) = &self.log else { return Ok(()) };
        // Whoever asked may go away while the disk is waited for: the record comes all the same.
        *self.state() = State::Allowed;
        let written = log.write_now(self.allowed(allowed)).await;
        if written.is_err() {
            *self.state() = State::Asked;
        }
        written
    }

    /// The same for what only stops others: that is never refused. It is recorded as soon as that can be.
    pub fn allow_in_any_case(&self, allowed: &Allowed) {
        let Some(log) = &self.log else { return };
        log.write(self.allowed(allowed));
        *self.state() = State::Allowed;
    }

    /// It has begun an operation, whose end is recorded by whoever comes to it.
    pub fn begun(&self) {
        let was = std::mem::replace(&mut *self.state(), State::Ended);
        if was == State::Asked {
            // The same request was begun before, or asks only what would be done.
            self.record(|_| self.allowed(&Allowed::default()).with("result", "nothing was begun"));
        }
    }

    /// It has come to its end. What was never allowed was refused.
    pub fn answered(&self, result: Result<(), &Failure>) {
        let was = std::mem::replace(&mut *self.state(), State::Ended);
        match (was, result) {
            (State::Ended, _) => {}
            (State::Asked, Ok(())) => {
                self.record(|_| self.allowed(&Allowed::default()).with("result", "nothing was changed"));
            }
            (State::Asked, Err(failure)) => {
                self.undone(failure.code.as_str(), |entry| {
                    failed(entry.with("decision", "refused"), failure)
                });
            }
            (State::Allowed, Ok(())) => self.record(|entry| entry.with("result", "ok")),
            (State::Allowed, Err(failure)) => {
                let result = if may_be_done(failure) { "unknown" } else { "failed" };
                self.record(|entry| failed(entry.with("result", result), failure));
            }
        }
    }

    fn allowed(&self, allowed: &Allowed) -> Entry {
        let Allowed { operation, databases } = allowed;
        let entry = Entry::new("call").with_all(&self.fields).with("decision", "allowed");
        let entry = entry.with("call", self.id.to_string()).with("databases", databases.clone());
        let operation = operation.map(|id| id.to_string()).unwrap_or_default();
        entry.with("operation", operation)
    }

    /// Records that nothing was done, or counts it.
    fn undone(&self, why: &str, decision: impl FnOnce(Entry) -> Entry) {
        let Some(log) = &self.log else { return };
        let entry = Entry::new("call").with_all(&self.fields).with("call", self.id.to_string());
        log.refuse(decision(entry), format!("{} {why}", self.likeness), self.is_known);
    }

    fn record(&self, result: impl FnOnce(Entry) -> Entry) {
        let Some(log) = &self.log else { return };
        let rpc = self.fields.get("rpc").cloned().unwrap_or_default();
        log.write(result(Entry::new("result").with("call", self.id.to_string()).with("rpc", rpc)));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // Whoever asked went away before there was an answer.
        let state = *self.state();
        match state {
            State::Asked => self.undone("gone", |entry| {
                entry
                    .with("decision", "none")
                    .with("message", "whoever asked went away before it was decided")
            }),
            State::Allowed => self.record(|entry| entry.with("result", "unknown")),
            State::Ended => {}
        }
    }
}

/// Whether what was ordered may have been done although it was answered with a failure: what could not be
/// kept, whose owner did not answer, or whose commit was not heard of.
fn may_be_done(failure: &Failure) -> bool {
    matches!(failure.code, Code::ControlUnavailable | Code::OwnerSilent | Code::ConnectionLost)
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why something failed, as it may be written down.
pub(super) fn failed(entry: Entry, failure: &Failure) -> Entry {
    let entry = entry.with("code", failure.code.as_str()).with("message", failure.message.as_str());
    entry.with("version", failure.version.clone().unwrap_or_default())
}
