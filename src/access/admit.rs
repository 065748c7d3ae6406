//! Letting in a request: who asks, and whether they have the role that it takes.

use crate::{
    access::{Authenticate, Caller, Origin, Peer, Permit, Rule, identity::bearer},
    migration::{Code, Failure},
};

/// A request that is not let in.
#[derive(Debug)]
pub struct Refusal {
    /// Who asks, where that is known.
    pub caller: Option<Caller>,
    /// From where.
    pub from: Origin,
    /// Why it is refused.
    pub failure: Failure,
}

/// The permit of a request under a rule: `peer` is what its connection shows, `authorization` the header
/// that a token is in.
pub fn admit(
    authenticate: &Authenticate,
    peer: Option<&Peer>,
    authorization: Option<&[u8]>,
    rule: &Rule,
) -> Result<Permit, Box<Refusal>> {
    let Some(peer) = peer else {
        let failure = Failure::new(Code::NoCredential, "It is not known where the request comes from");
        return Err(Box::new(Refusal { caller: None, from: Origin::Unix(None), failure }));
    };
    let refusal = |caller, failure| Box::new(Refusal { caller, from: peer.from, failure });
    if rule.least.is_none() {
        // Nobody has to say who they are, so that nothing that they say is wrong.
        return Ok(Permit::nothing(peer.from));
    }
    let token = bearer(authorization.map(|header| str::from_utf8(header).unwrap_or_default()));
    let (caller, grants) = authenticate(peer, token).map_err(|failure| refusal(None, failure))?;
    Permit::new(caller.clone(), grants, rule).map_err(|failure| refusal(Some(caller), failure))
}
