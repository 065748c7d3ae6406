//! How a failure becomes a gRPC status: the one place that knows both.

use std::time::Duration;

use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::pb;

use crate::{
    migration::{Failure, failure::Kind},
    rpc::{convert, proto},
};

/// The type URL under which a status carries a whole [`proto::Failure`].
pub const FAILURE_TYPE_URL: &str = "type.googleapis.com/nexus.v1.Failure";

/// The type URL of `google.rpc.ErrorInfo`.
const ERROR_INFO_TYPE_URL: &str = "type.googleapis.com/google.rpc.ErrorInfo";

/// The type URL of `google.rpc.RetryInfo`.
const RETRY_INFO_TYPE_URL: &str = "type.googleapis.com/google.rpc.RetryInfo";

/// The status of a failure, with `ErrorInfo` (reason: the stable code) and the failure as details.
pub fn of_failure(failure: &Failure) -> Status {
    status(failure, None)
}

/// The same, with `RetryInfo`: it makes sense to ask again after `wait`, and not before.
pub fn of_failure_for(failure: &Failure, wait: Duration) -> Status {
    status(failure, Some(wait))
}

fn status(failure: &Failure, wait: Option<Duration>) -> Status {
    let code = match failure.code.kind() {
        Kind::InvalidArgument => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::FailedPrecondition | Kind::Failed => Code::FailedPrecondition,
        Kind::Aborted => Code::Aborted,
        Kind::Unavailable => Code::Unavailable,
        Kind::Unauthenticated => Code::Unauthenticated,
        Kind::PermissionDenied => Code::PermissionDenied,
        Kind::Exhausted => Code::ResourceExhausted,
        Kind::TimedOut => Code::DeadlineExceeded,
        Kind::Cancelled => Code::Cancelled,
        Kind::Internal => Code::Internal,
    };
    let info = pb::ErrorInfo {
        reason: failure.code.as_str().to_owned(),
        domain: "nexus".to_owned(),
        metadata: [("hint".to_owned(), failure.remedy().to_owned())].into(),
    };
    let whole: proto::Failure = convert::failure(failure);
    let any = |type_url: &str, value: Vec<u8>| prost_types::Any { type_url: type_url.to_owned(), value };
    let retry = wait
        .and_then(|wait| prost_types::Duration::try_from(wait).ok())
        .map(|wait| any(RETRY_INFO_TYPE_URL, pb::RetryInfo { retry_delay: Some(wait) }.encode_to_vec()));
    let known =
        [any(ERROR_INFO_TYPE_URL, info.encode_to_vec()), any(FAILURE_TYPE_URL, whole.encode_to_vec())];
    let details = pb::Status {
        code: code as i32,
        message: failure.message.clone(),
        details: known.into_iter().chain(retry).collect(),
    };
    Status::with_details(code, failure.message.clone(), details.encode_to_vec().into())
}
