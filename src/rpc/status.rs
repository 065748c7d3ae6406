//! How a failure becomes a gRPC status: the one place that knows both.

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

/// The status of a failure, with `ErrorInfo` (reason: the stable code) and the failure as details.
pub fn of_failure(failure: &Failure) -> Status {
    let code = match failure.code.kind() {
        Kind::InvalidArgument => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::FailedPrecondition | Kind::Failed => Code::FailedPrecondition,
        Kind::Aborted => Code::Aborted,
        Kind::Unavailable => Code::Unavailable,
        Kind::Unauthenticated => Code::Unauthenticated,
        Kind::PermissionDenied => Code::PermissionDenied,
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
    let details = pb::Status {
        code: code as i32,
        message: failure.message.clone(),
        details: vec![
            any(ERROR_INFO_TYPE_URL, info.encode_to_vec()),
            any(FAILURE_TYPE_URL, whole.encode_to_vec()),
        ],
    };
    Status::with_details(code, failure.message.clone(), details.encode_to_vec().into())
}
