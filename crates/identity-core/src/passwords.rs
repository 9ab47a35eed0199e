//! Passwords: Argon2id with the parameters that OWASP recommends (19 MiB, 2 passes, 1 lane).

use argon2::password_hash::phc::PasswordHash as PhcHash;
use argon2::password_hash::{CustomizedPasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};

const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;
pub const SALT_BYTES: usize = 16;

/// A password as it came in. Never shown: it has no `Debug` that tells it.
pub struct Password(String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    #[error("a password has from {} to {} bytes", Password::BYTES_MIN, Password::BYTES_MAX)]
    Length,
    #[error("the password could not be hashed")]
    NotHashed,
}

impl Password {
    /// NIST SP 800-63B: at least eight characters, long passphrases allowed.
    pub const BYTES_MIN: usize = 8;
    pub const BYTES_MAX: usize = 256;

    /// A password that somebody chooses.
    pub fn choose(text: String) -> Result<Self, PasswordError> {
        if (Self::BYTES_MIN..=Self::BYTES_MAX).contains(&text.len()) {
            Ok(Self(text))
        } else {
            Err(PasswordError::Length)
        }
    }

    /// A password that somebody tries: any text that is not too long to hash.
    pub fn attempt(text: String) -> Result<Self, PasswordError> {
        if text.len() <= Self::BYTES_MAX { Ok(Self(text)) } else { Err(PasswordError::Length) }
    }

    pub fn hash(&self, salt: &[u8; SALT_BYTES]) -> Result<PasswordHash, PasswordError> {
        let hashed = hasher()?
            .hash_password_customized(self.0.as_bytes(), salt, None, None, params()?)
            .map_err(|_| PasswordError::NotHashed)?;
        Ok(PasswordHash(hashed.to_string()))
    }
}

fn params() -> Result<Params, PasswordError> {
    Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|_| PasswordError::NotHashed)
}

fn hasher() -> Result<Argon2<'static>, PasswordError> {
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params()?))
}

/// A stored hash in PHC string format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordHash(pub String);

impl PasswordHash {
    /// The hash of no password: verifying against it takes as long as against a user's.
    pub const OF_NOBODY: &'static str =
        "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    pub fn matches(&self, password: &Password) -> bool {
        let Ok(hash) = PhcHash::new(&self.0) else { return false };
        hasher().is_ok_and(|argon2| argon2.verify_password(password.0.as_bytes(), &hash).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_matches_its_own_hash_only() {
        let password = Password::choose("correct horse".into()).unwrap();
        let hash = password.hash(&[7; SALT_BYTES]).unwrap();
        assert!(hash.0.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.0);
        assert!(hash.matches(&password));
        assert!(!hash.matches(&Password::attempt("wrong".into()).unwrap()));
        assert!(!PasswordHash(PasswordHash::OF_NOBODY.into()).matches(&password));
        assert!(PhcHash::new(PasswordHash::OF_NOBODY).is_ok(), "it must cost as much as a real one");
        assert!(!PasswordHash("garbage".into()).matches(&password));
    }

    #[test]
    fn lengths_are_bounded() {
        assert!(Password::choose("short".into()).is_err());
        assert!(Password::attempt("x".repeat(257)).is_err());
    }
}
