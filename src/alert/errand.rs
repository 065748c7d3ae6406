//! What one daemon asks of the one that looks after the alerts, as JSON.

use serde::{Deserialize, Serialize};

use crate::{
    alert::{
        life::Life,
        store::{self, Kept, KeptAcknowledgement},
    },
    control::failures::KeptFailure,
    migration::{Acknowledgement, Alert, Code, Failure},
};

#[derive(Serialize, Deserialize)]
struct Asked {
    acknowledge: Acknowledge,
}

#[derive(Serialize, Deserialize)]
struct Acknowledge {
    id: String,
    #[serde(flatten)]
    acknowledgement: KeptAcknowledgement,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Alert(Kept),
    Failure(KeptFailure),
}

/// Asks that note is taken of an alert.
pub(super) fn ask(id: &str, acknowledgement: Acknowledgement) -> String {
    let acknowledge = Acknowledge { id: id.to_owned(), acknowledgement: acknowledgement.into() };
    json(&Asked { acknowledge })
}

/// What is asked; `None` where it is about something else.
pub(super) fn asked(document: &str) -> Option<(String, Acknowledgement)> {
    let Asked { acknowledge } = serde_json::from_str(document).ok()?;
    Some((acknowledge.id, acknowledge.acknowledgement.into()))
}

/// Answers.
pub(super) fn answer(taken: Result<Alert, Failure>) -> String {
    json(&match taken {
        Ok(alert) => Answer::Alert(store::keep(&Life::of(alert))),
        Err(failure) => Answer::Failure(KeptFailure::from(&failure)),
    })
}

/// Reads an answer.
pub(super) fn read(answer: &str) -> Result<Alert, Failure> {
    let unreadable = || Failure::new(Code::Internal, "The answer of the nexusd that leads cannot be read");
    match serde_json::from_str(answer) {
        Ok(Answer::Alert(kept)) => store::revive(kept).map(|life| life.alert).ok_or_else(unreadable),
        Ok(Answer::Failure(failure)) => Err(failure.into()),
        Err(_) => Err(unreadable()),
    }
}

fn json(of: &impl Serialize) -> String {
    serde_json::to_string(of).expect("texts and numbers are always JSON")
}
