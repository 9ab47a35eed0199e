//! Keys, and the two things they do: sign and verify.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{SigningKey, VerifyingKey};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};
use serde::{Deserialize, Serialize};
use settle_types::Timestamp;
use sha2::{Digest, Sha256};

use crate::claims::Claims;
use crate::provider;

/// Clocks of two machines may differ by this much.
const LEEWAY_SECONDS: u64 = 30;
/// Longest token that is looked at.
pub const TOKEN_BYTES_MAX: usize = 4096;
/// Shortest shared secret: as long as the hash (RFC 7518, section 3.2).
const SECRET_BYTES_MIN: usize = 32;

/// Why a key cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("a signing key is 32 bytes, base64url without padding")]
    BadSeed,
    #[error("a public key in the set is not a valid Ed25519 key")]
    BadPublicKey,
    #[error("a shared secret needs at least {SECRET_BYTES_MIN} bytes")]
    WeakSecret,
}

/// Why a token is refused. Clients see one answer for all; logs see which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("not a token of ours")]
    Malformed,
    #[error("another algorithm than the one allowed")]
    WrongAlgorithm,
    #[error("signed by a key that is not in the set")]
    UnknownKey,
    #[error("wrong signature")]
    WrongSignature,
    #[error("wrong issuer")]
    WrongIssuer,
    #[error("meant for another audience")]
    WrongAudience,
    #[error("expired")]
    Expired,
    #[error("not valid yet")]
    NotYetValid,
    #[error("taken back")]
    Revoked,
    #[error("the token could not be signed")]
    NotSigned,
}

/// A public Ed25519 key as JWK (RFC 8037).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    kty: String,
    crv: String,
    x: String,
    kid: String,
    #[serde(default)]
    alg: String,
    #[serde(rename = "use", default)]
    usage: String,
}

/// A JSON Web Key Set (RFC 7517).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwks {
    pub keys: Vec<Jwk>,
}

/// Signs tokens, by Ed25519 or by a shared secret.
pub struct Signer {
    key: EncodingKey,
    header: Header,
    public: Jwks,
}

impl Signer {
    /// From a 32-byte seed in base64url. Its key id is the JWK thumbprint (RFC 7638).
    pub fn ed25519(seed: &str) -> Result<Self, KeyError> {
        provider::install();
        let bytes = URL_SAFE_NO_PAD.decode(seed).map_err(|_| KeyError::BadSeed)?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| KeyError::BadSeed)?;
        let jwk = jwk_of(&SigningKey::from_bytes(&bytes).verifying_key());
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(jwk.kid.clone());
        // The provider takes the seed itself as the key.
        Ok(Self { key: EncodingKey::from_ed_der(&bytes), header, public: Jwks { keys: vec![jwk] } })
    }

    /// Also shows the key of a seed that was used before, so that its tokens are good until they expire.
    pub fn with_previous(mut self, seed: &str) -> Result<Self, KeyError> {
        let previous = Self::ed25519(seed)?;
        let known = self.public.keys.clone();
        self.public.keys.extend(previous.public.keys.into_iter().filter(|key| !known.contains(key)));
        Ok(self)
    }

    /// HS256 with a shared secret, for clients of the older system.
    pub fn hs256(secret: &str) -> Result<Self, KeyError> {
        provider::install();
        if secret.len() < SECRET_BYTES_MIN {
            return Err(KeyError::WeakSecret);
        }
        let key = EncodingKey::from_secret(secret.as_bytes());
        Ok(Self { key, header: Header::new(Algorithm::HS256), public: Jwks::default() })
    }

    /// A JWS in compact form.
    pub fn sign(&self, claims: &Claims) -> Result<String, TokenError> {
        encode(&self.header, claims, &self.key).map_err(|_| TokenError::NotSigned)
    }

    /// The keys that verify these tokens; empty for a shared secret.
    pub fn jwks(&self) -> &Jwks {
        &self.public
    }
}

fn jwk_of(key: &VerifyingKey) -> Jwk {
    let x = URL_SAFE_NO_PAD.encode(key.as_bytes());
    let thumbprint = Sha256::digest(format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#));
    Jwk {
        kty: "OKP".to_owned(),
        crv: "Ed25519".to_owned(),
        x,
        kid: URL_SAFE_NO_PAD.encode(thumbprint),
        alg: "EdDSA".to_owned(),
        usage: "sig".to_owned(),
    }
}

/// Verifies tokens of one issuer for some audiences, by one algorithm.
pub struct Verifier {
    /// Key id and key; the id is `None` for the shared secret.
    keys: Vec<(Option<String>, DecodingKey)>,
    validation: Validation,
    issuer: String,
    audiences: Vec<String>,
}

impl Verifier {
    pub fn ed25519(jwks: &Jwks, issuer: &str, audiences: &[&str]) -> Result<Self, KeyError> {
        let mut keys = Vec::with_capacity(jwks.keys.len());
        for jwk in jwks.keys.iter().filter(|jwk| jwk.kty == "OKP" && jwk.crv == "Ed25519") {
            let bytes = URL_SAFE_NO_PAD.decode(&jwk.x).map_err(|_| KeyError::BadPublicKey)?;
            let bytes: [u8; 32] = bytes.try_into().map_err(|_| KeyError::BadPublicKey)?;
            VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::BadPublicKey)?;
            keys.push((Some(jwk.kid.clone()), DecodingKey::from_ed_der(&bytes)));
        }
        Ok(Self::new(keys, Algorithm::EdDSA, issuer, audiences))
    }

    pub fn hs256(secret: &str, issuer: &str, audiences: &[&str]) -> Result<Self, KeyError> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(KeyError::WeakSecret);
        }
        let keys = vec![(None, DecodingKey::from_secret(secret.as_bytes()))];
        Ok(Self::new(keys, Algorithm::HS256, issuer, audiences))
    }

    fn new(
        keys: Vec<(Option<String>, DecodingKey)>,
        algorithm: Algorithm,
        issuer: &str,
        audiences: &[&str],
    ) -> Self {
        provider::install();
        let mut validation = Validation::new(algorithm);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_issuer(&[issuer]);
        validation.set_audience(audiences);
        // Compared below, with the caller's clock.
        validation.validate_exp = false;
        let audiences = audiences.iter().map(|&audience| audience.to_owned()).collect();
        Self { keys, validation, issuer: issuer.to_owned(), audiences }
    }

    /// The claims of a token that is valid at `now`.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let header = decode_header(token).map_err(|_| TokenError::Malformed)?;
        if !self.validation.algorithms.contains(&header.alg) {
            return Err(TokenError::WrongAlgorithm);
        }
        if header.typ.as_deref().is_some_and(|typ| !typ.eq_ignore_ascii_case("jwt")) {
            return Err(TokenError::Malformed);
        }
        if names_critical_extensions(token) {
            return Err(TokenError::Malformed);
        }
        let known = self.keys.iter().find(|(kid, _)| kid.is_none() || *kid == header.kid);
        let (_, key) = known.ok_or(TokenError::UnknownKey)?;
        let claims = decode::<Claims>(token, key, &self.validation).map_err(|e| refusal(e.kind()))?.claims;
        // `jsonwebtoken` accepts lists; we sign one issuer and one audience, so compare exactly.
        if claims.iss != self.issuer {
            return Err(TokenError::WrongIssuer);
        }
        if !self.audiences.contains(&claims.aud.0) {
            return Err(TokenError::WrongAudience);
        }
        let seconds = now.as_millis() / 1000;
        if claims.exp.saturating_add(LEEWAY_SECONDS) <= seconds {
            return Err(TokenError::Expired);
        }
        if claims.iat.max(claims.nbf.unwrap_or(0)) > seconds.saturating_add(LEEWAY_SECONDS) {
            return Err(TokenError::NotYetValid);
        }
        Ok(claims)
    }
}

/// Whether the header lists extensions that must be understood (RFC 7515, section 4.1.11): we know none.
fn names_critical_extensions(token: &str) -> bool {
    let header = token.split('.').next().and_then(|header| URL_SAFE_NO_PAD.decode(header).ok());
    let header = header.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    header.is_none_or(|header| header.get("crit").is_some())
}

fn refusal(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::InvalidSignature => TokenError::WrongSignature,
        ErrorKind::InvalidAlgorithm => TokenError::WrongAlgorithm,
        ErrorKind::InvalidIssuer => TokenError::WrongIssuer,
        ErrorKind::InvalidAudience => TokenError::WrongAudience,
        ErrorKind::ExpiredSignature => TokenError::Expired,
        ErrorKind::ImmatureSignature => TokenError::NotYetValid,
        _ => TokenError::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::{Audience, Role};

    const NOW: Timestamp = Timestamp::from_millis(1_795_257_356_000);
    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn seed(byte: u8) -> String {
        URL_SAFE_NO_PAD.encode([byte; 32])
    }

    fn claims() -> Claims {
        let seconds = NOW.as_millis() / 1000;
        Claims {
            iss: "us".into(),
            sub: "alice".into(),
            aud: Audience("settle".into()),
            exp: seconds + 60,
            iat: seconds,
            nbf: None,
            jti: "1".into(),
            role: Role::User,
        }
    }

    fn verifier(signer: &Signer) -> Verifier {
        Verifier::ed25519(signer.jwks(), "us", &["settle"]).unwrap()
    }

    #[test]
    fn a_token_verifies_with_its_key_and_claims_only() {
        let signer = Signer::ed25519(&seed(1)).unwrap();
        let other = Signer::ed25519(&seed(2)).unwrap();
        let token = signer.sign(&claims()).unwrap();
        let verifier = verifier(&signer);
        assert_eq!(verifier.verify(&token, NOW), Ok(claims()));
        assert_eq!(verifier.verify(&other.sign(&claims()).unwrap(), NOW), Err(TokenError::UnknownKey));

        let rows = [
            (Claims { iss: "them".into(), ..claims() }, TokenError::WrongIssuer),
            (Claims { aud: Audience("payment".into()), ..claims() }, TokenError::WrongAudience),
            (Claims { exp: 1, ..claims() }, TokenError::Expired),
            (Claims { iat: claims().exp, ..claims() }, TokenError::NotYetValid),
            (Claims { nbf: Some(claims().exp), ..claims() }, TokenError::NotYetValid),
        ];
        for (claims, refused) in rows {
            assert_eq!(verifier.verify(&signer.sign(&claims).unwrap(), NOW), Err(refused));
        }
    }

    #[test]
    fn two_keys_are_live_while_one_takes_over_from_the_other() {
        let (old, new) = (Signer::ed25519(&seed(1)).unwrap(), Signer::ed25519(&seed(2)).unwrap());
        let rotated = Signer::ed25519(&seed(2)).unwrap().with_previous(&seed(1)).unwrap();
        let token = old.sign(&claims()).unwrap();
        assert_eq!(verifier(&rotated).verify(&token, NOW), Ok(claims()));
        assert_eq!(verifier(&rotated).verify(&rotated.sign(&claims()).unwrap(), NOW), Ok(claims()));
        assert_eq!(verifier(&new).verify(&token, NOW), Err(TokenError::UnknownKey), "rotated out");
        let again = Signer::ed25519(&seed(2)).unwrap().with_previous(&seed(2)).unwrap();
        assert_eq!(again.jwks().keys.len(), 1);
    }

    #[test]
    fn a_public_key_is_never_a_shared_secret() {
        let signer = Signer::ed25519(&seed(1)).unwrap();
        let public = &signer.jwks().keys[0].x;
        let confused = Signer::hs256(public).unwrap().sign(&claims()).unwrap();
        assert_eq!(verifier(&signer).verify(&confused, NOW), Err(TokenError::WrongAlgorithm));
        let shared = Verifier::hs256(SECRET, "us", &["settle"]).unwrap();
        assert_eq!(shared.verify(&signer.sign(&claims()).unwrap(), NOW), Err(TokenError::WrongAlgorithm));
        let token = Signer::hs256(SECRET).unwrap().sign(&claims()).unwrap();
        assert_eq!(shared.verify(&token, NOW), Ok(claims()));
    }

    #[test]
    fn garbage_and_unsigned_tokens_are_refused_without_a_panic() {
        let signer = Signer::ed25519(&seed(1)).unwrap();
        let verifier = verifier(&signer);
        let token = signer.sign(&claims()).unwrap();
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        let body = token.split('.').nth(1).unwrap();
        let head = token.split('.').next().unwrap();
        let bad = [
            "".into(),
            "a.b.c".into(),
            format!("{none}.{body}."),
            format!("{head}.{body}."),
            "x".repeat(5000),
        ];
        for token in bad {
            assert!(verifier.verify(&token, NOW).is_err(), "{token}");
        }
        let flipped = format!("{}A{}", &token[..token.len() - 20], &token[token.len() - 19..]);
        assert!(verifier.verify(&flipped, NOW).is_err() || flipped == token);
    }

    #[test]
    fn bad_keys_are_errors() {
        assert_eq!(Signer::ed25519("short").err(), Some(KeyError::BadSeed));
        assert_eq!(Signer::hs256("short").err(), Some(KeyError::WeakSecret));
        let mut jwks = Signer::ed25519(&seed(1)).unwrap().jwks().clone();
        jwks.keys[0].x = "AAAA".into();
        assert_eq!(Verifier::ed25519(&jwks, "us", &["settle"]).err(), Some(KeyError::BadPublicKey));
    }
}
