//! A finding with a life.

use jiff::Timestamp;
use uuid::Uuid;

use crate::migration::Finding;

/// One life of one finding of one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Its id, stable over restarts.
    pub id: Uuid,
    /// The database; empty where it is the daemon itself.
    pub database: String,
    /// What is wrong, as it was last seen.
    pub finding: Finding,
    /// Where it is in its life.
    pub state: AlertState,
    /// When it was first seen.
    pub started: Timestamp,
    /// When it began to fire.
    pub fired: Option<Timestamp>,
    /// When it was over.
    pub resolved: Option<Timestamp>,
    /// Who took note of it.
    pub acknowledged: Option<Acknowledgement>,
    /// How often it has come back after it seemed to be over.
    pub flaps: u32,
}

/// Where an alert is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AlertState {
    /// Seen, and not yet for as long as the hold-off: nobody is told.
    Pending,
    /// It stands, and the sinks are told.
    Firing,
    /// It stands, and somebody has taken note of it.
    Acknowledged,
    /// It is over, and the sinks are told.
    Resolved,
}

impl AlertState {
    /// All of them, in the order of a life.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Firing, Self::Acknowledged, Self::Resolved];

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// As in JSON, logs and labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
        }
    }
}

/// That somebody has taken note of an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Until when it stays quiet; `None`: until it is resolved.
    pub until: Option<Timestamp>,
}
