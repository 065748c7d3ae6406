//! The forms in which the domain's types are kept, field by field.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use uuid::Uuid;

use crate::{
    engine::{Repair, RepairAction, Verb},
    fleet::{
        operation::Command,
        selector::Selection,
        strategy::{Canary, FailureLimit, Gate, OnFailure, Pause, Strategy, WaveSize},
    },
    migration::{
        DatabaseState, GateOutcome, OperationState, StepAction, Version,
        plan::{ApplyRequest, Extent, RollbackRequest, Source},
    },
};

#[derive(Serialize, Deserialize)]
#[serde(remote = "Command", rename_all = "snake_case")]
pub(super) enum CommandForm {
    Pause,
    Resume,
    Cancel,
    Retry,
    Approve,
    Reject,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Verb", rename_all = "snake_case")]
pub(super) enum VerbForm {
    Apply(#[serde(with = "ApplyForm")] ApplyRequest),
    Rollback(#[serde(with = "rollback")] RollbackRequest),
    Recover { resume: bool },
    Repair(#[serde(with = "RepairForm")] Repair),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Repair")]
pub(super) struct RepairForm {
    #[serde(with = "RepairActionForm")]
    action: RepairAction,
    version: String,
    reason: String,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "RepairAction", rename_all = "snake_case")]
pub(super) enum RepairActionForm {
    ClearDirty,
    Forget,
    AcceptChecksum,
    Rename(String),
    MarkApplied,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "ApplyRequest")]
pub(super) struct ApplyForm {
    to: Option<String>,
    limit: Option<u32>,
    no_auto_recover: bool,
    resume: bool,
    reversible: bool,
}

#[derive(Serialize, Deserialize)]
struct KeptRollback {
    extent: KeptExtent,
    no_auto_recover: bool,
    from_journal: Option<bool>,
    most: Option<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KeptExtent {
    Steps(i64),
    To(String),
    Exactly { versions: Vec<String>, operation: Uuid },
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Selection")]
pub(super) struct SelectionForm {
    databases: Vec<String>,
    labels: Vec<String>,
    all: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Strategy")]
pub(super) struct StrategyForm {
    name: Option<String>,
    #[serde(with = "canary")]
    canary: Option<Canary>,
    #[serde(with = "WaveSizeForm")]
    wave: WaveSize,
    parallel: Option<std::num::NonZeroUsize>,
    #[serde(with = "PauseForm")]
    pause: Pause,
    #[serde(with = "FailureLimitForm")]
    max_failures: FailureLimit,
    #[serde(with = "OnFailureForm")]
    on_failure: OnFailure,
    #[serde(with = "gate")]
    gate: Option<Gate>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Canary", rename_all = "snake_case")]
pub(super) enum CanaryForm {
    Count(usize),
    Names(Vec<String>),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "WaveSize", rename_all = "snake_case")]
pub(super) enum WaveSizeForm {
    All,
    Percent(u8),
    Count(usize),
    ByLabel(String),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Pause", rename_all = "snake_case")]
pub(super) enum PauseForm {
    None,
    For(Duration),
    Manual,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "FailureLimit", rename_all = "snake_case")]
pub(super) enum FailureLimitForm {
    Wave,
    Count(usize),
    Percent(u8),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "OnFailure", rename_all = "snake_case")]
pub(super) enum OnFailureForm {
    Stop,
    RollBack,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Gate")]
pub(super) struct GateForm {
    sql: Option<String>,
    no_alerts: bool,
    wait: Duration,
    limit: Duration,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "StepAction", rename_all = "snake_case")]
pub(super) enum StepActionForm {
    Apply,
    Rollback,
    ForgetAttempt,
    ClearMark,
    Undo,
    Resume { done: u32 },
}

/// A form that may be missing.
macro_rules! optional {
    ($($module:ident: $type:ty as $form:literal;)*) => {$(
        pub(super) mod $module {
            use super::*;

            #[derive(Serialize, Deserialize)]
            struct Form(#[serde(with = $form)] $type);

            #[allow(clippy::ref_option, reason = "serde's form")]
            pub(in crate::fleet::operation::kept) fn serialize<S: Serializer>(
                value: &Option<$type>,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                value.clone().map(Form).serialize(serializer)
            }

            pub(in crate::fleet::operation::kept) fn deserialize<'de, D: Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Option<$type>, D::Error> {
                Ok(Option::<Form>::deserialize(deserializer)?.map(|form| form.0))
            }
        }
    )*};
}

optional! {
    canary: Canary as "CanaryForm";
    gate: Gate as "GateForm";
}

/// What is kept by its name.
macro_rules! named {
    ($($module:ident: $type:ty, $name:ident;)*) => {$(
        pub(super) mod $module {
            use super::*;

            // serde hands over references.
            #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
            pub(in crate::fleet::operation::kept) fn serialize<S: Serializer>(value: &$type, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(value.$name())
            }

            pub(in crate::fleet::operation::kept) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                let name = String::deserialize(deserializer)?;
                let known = <$type>::ALL.iter().find(|known| known.$name() == name);
                known.copied().ok_or_else(|| D::Error::custom(format!("{name:?} is not known")))
            }
        }
    )*};
}

named! {
    operation_state: OperationState, name;
    database_state: DatabaseState, name;
    gate_outcome: GateOutcome, name;
}

mod rollback {
    use super::{
        Deserialize, Deserializer, Extent, KeptExtent, KeptRollback, RollbackRequest, Serialize, Serializer,
        Source, Version,
    };

    pub(in crate::fleet::operation::kept) fn serialize<S: Serializer>(
        request: &RollbackRequest,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let extent = match &request.extent {
            Extent::Steps(steps) => KeptExtent::Steps(*steps),
            Extent::To(version) => KeptExtent::To(version.clone()),
            Extent::Exactly { versions, operation } => {
                let versions = versions.iter().map(ToString::to_string).collect();
                KeptExtent::Exactly { versions, operation: *operation }
            }
        };
        let from_journal = request.source.map(|source| source == Source::Journal);
        KeptRollback { extent, no_auto_recover: request.no_auto_recover, from_journal, most: request.most }
            .serialize(serializer)
    }

    pub(in crate::fleet::operation::kept) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<RollbackRequest, D::Error> {
        let kept = KeptRollback::deserialize(deserializer)?;
        let extent = match kept.extent {
            KeptExtent::Steps(steps) => Extent::Steps(steps),
            KeptExtent::To(version) => Extent::To(version),
            KeptExtent::Exactly { versions, operation } => {
                let versions = versions.iter().map(|version| Version::from_row(version)).collect();
                Extent::Exactly { versions, operation }
            }
        };
        let source = kept.from_journal.map(|journal| if journal { Source::Journal } else { Source::File });
        Ok(RollbackRequest { extent, no_auto_recover: kept.no_auto_recover, source, most: kept.most })
    }
}
