//! Letting in a request: who asks, and whether they have the role that it takes.

use crate::{
    access::{Authenticate, Peer, Permit, Rule, identity::bearer},
    migration::{Code, Failure},
};

/// The permit of a request under a rule: `peer` is what its connection shows, `authorization` the header
/// that a token is in.
pub fn admit(
    authenticate: &Authenticate,
    peer: Option<&Peer>,
    authorization: Option<&[u8]>,
    rule: &Rule,
) -> Result<Permit, Failure> {
    let peer =
        peer.ok_or_else(|| Failure::new(Code::NoCredential, "It is not known where the request comes from"))?;
    if rule.least.is_none() {
        // Nobody has to say who they are, so that nothing that they say is wrong.
        return Ok(Permit::nothing(peer.from));
    }
    let token = bearer(authorization.map(|header| str::from_utf8(header).unwrap_or_default()));
    let (caller, grants) = authenticate(peer, token)?;
    Permit::new(caller, grants, rule)
}
