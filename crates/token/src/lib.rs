//! Signed tokens (JWS, RFC 7515): claims, signing, verification, public keys.
//!
//! Exactly one algorithm is allowed by each verifier, chosen by our setting and never by the
//! token. Reads no clock: `now` is an argument.

mod claims;
mod keys;
mod provider;
mod revoked;

pub use claims::{Audience, Claims, Role};
pub use keys::{Jwks, KeyError, Signer, TokenError, Verifier};
pub use revoked::{Revoked, Trust, is_revoked};
