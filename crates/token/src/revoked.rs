//! Tokens that are refused before they expire.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::claims::Claims;
use crate::keys::Jwks;

/// What a verifier has to know of an issuer: its live keys, and what it took back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    #[serde(flatten)]
    pub keys: Jwks,
    #[serde(default)]
    pub revoked: Vec<Revoked>,
}

/// One entry: a token, or all tokens of a subject that were issued before an instant. By hash: the list
/// tells nobody's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    pub what: String,
    /// Milliseconds since the Unix epoch; later tokens are good.
    pub before: u64,
}

impl Revoked {
    /// The entry's name of a token.
    pub fn token(jti: &str) -> String {
        hash_of("jti", jti)
    }

    /// The entry's name of a subject.
    pub fn subject(sub: &str) -> String {
        hash_of("sub", sub)
    }
}

fn hash_of(kind: &str, text: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(format!("{kind}:{text}")))
}

/// Whether one of these entries is about a token with these claims.
pub fn is_revoked(revoked: &[Revoked], claims: &Claims) -> bool {
    if revoked.is_empty() {
        return false;
    }
    let (token, subject, issued) =
        (Revoked::token(&claims.jti), Revoked::subject(&claims.sub), issued_at(claims));
    revoked.iter().any(|entry| (entry.what == token || entry.what == subject) && issued < entry.before)
}

/// Milliseconds: our token ids are UUIDs of version 7, which begin with the instant; `iat` knows seconds.
fn issued_at(claims: &Claims) -> u64 {
    let digits: String = claims.jti.chars().filter(|c| *c != '-').take(12).collect();
    let of_id = (digits.len() == 12).then(|| u64::from_str_radix(&digits, 16).ok()).flatten();
    let of_iat = claims.iat.saturating_mul(1000);
    // An id of another kind says nothing.
    of_id.filter(|millis| millis / 1000 == claims.iat).unwrap_or(of_iat)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::{Audience, Role};

    fn claims(jti: &str, iat: u64) -> Claims {
        let aud = Audience("a".into());
        Claims {
            iss: "i".into(),
            sub: "s".into(),
            aud,
            exp: iat + 9,
            iat,
            nbf: None,
            jti: jti.into(),
            role: Role::User,
        }
    }

    #[test]
    fn a_token_is_revoked_by_its_id_and_by_its_subject_if_it_is_older() {
        // 0x019aa7a0b5c8 ms
        let (id, millis) = ("019aa7a0-b5c8-7000-8000-000000000000", 0x019a_a7a0_b5c8_u64);
        let claims = claims(id, millis / 1000);
        let entry = |what, before| vec![Revoked { what, before }];
        assert!(!is_revoked(&[], &claims));
        assert!(is_revoked(&entry(Revoked::token(id), u64::MAX), &claims));
        assert!(!is_revoked(&entry(Revoked::token("other"), u64::MAX), &claims));
        assert!(is_revoked(&entry(Revoked::subject("s"), millis + 1), &claims));
        assert!(!is_revoked(&entry(Revoked::subject("s"), millis), &claims), "in the same second, but later");
        assert!(!is_revoked(&entry(Revoked::subject("t"), u64::MAX), &claims));
    }

    #[test]
    fn an_id_that_tells_no_time_is_as_old_as_its_second() {
        let entry = [Revoked { what: Revoked::subject("s"), before: 5_001 }];
        assert!(is_revoked(&entry, &claims("x", 5)));
        assert!(is_revoked(&entry, &claims("ffffffff-ffff-7000-8000-000000000000", 5)));
        assert!(!is_revoked(&entry, &claims("x", 6)));
    }
}
