//! What tests of identities need: an issuer that publishes keys over real HTTP, and tokens signed with them and with others.

pub(super) mod issuer;
pub(super) mod signer;
