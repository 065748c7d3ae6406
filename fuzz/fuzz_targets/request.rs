//! Requests as a client sends them: bytes, prost's messages, and what the services make of them.
//!
//! The first byte says which request it is. Nothing panics, and a refusal is a status that fits into the
//! headers in which gRPC sends it.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use nexus::{
    access::Permit,
    auditlog::Call,
    fleet::strategy::Strategies,
    migration::Failure,
    rpc::{convert, proto, status, strategy},
};
use prost::Message;

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Some((kind, body)) = bytes.split_first() else { return Corpus::Reject };
    let read = match kind % 4 {
        0 => proto::ApplyRequest::decode(body).ok().map(apply),
        1 => proto::RollbackRequest::decode(body).ok().map(rollback),
        2 => proto::RecoverRequest::decode(body).ok().map(recover),
        _ => proto::RepairRequest::decode(body).ok().map(repair),
    };
    match read {
        None => Corpus::Reject,
        Some(Ok(())) => Corpus::Keep,
        Some(Err(failure)) => {
            let status = status::of_failure(&failure);
            assert!(!status.message().is_empty(), "{failure:?}");
            Corpus::Keep
        }
    }
});

fn context(
    selection: Option<proto::Selection>,
    context: Option<proto::RequestContext>,
) -> Result<(), Failure> {
    convert::request(selection, context, (None, Permit::of_the_daemon(), Call::unrecorded())).map(drop)
}

fn way(name: &str, given: Option<proto::Strategy>, digest: &str, is_apply: bool) -> Result<(), Failure> {
    let strategy = strategy::strategy(&Strategies::default(), name, given, is_apply)?;
    assert!(strategy.check().is_ok(), "what is accepted is sound: {strategy:?}");
    strategy::told(&strategy);
    strategy::held(digest).map(drop)
}

fn apply(mut message: proto::ApplyRequest) -> Result<(), Failure> {
    context(message.selection.take(), message.context.take())?;
    way(&message.strategy_name, message.strategy.take(), &message.plan_digest, true)?;
    convert::apply(&message, false);
    Ok(())
}

fn rollback(mut message: proto::RollbackRequest) -> Result<(), Failure> {
    context(message.selection.take(), message.context.take())?;
    way(&message.strategy_name, message.strategy.take(), &message.plan_digest, false)?;
    convert::rollback(&message).map(drop)
}

fn recover(message: proto::RecoverRequest) -> Result<(), Failure> {
    context(message.selection, message.context)?;
    way(&message.strategy_name, message.strategy, &message.plan_digest, false)
}

fn repair(mut message: proto::RepairRequest) -> Result<(), Failure> {
    context(message.selection.take(), message.context.take())?;
    convert::repair(message).map(drop)
}
