//! What a token says.

use serde::{Deserialize, Serialize};

/// What the subject may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Sees and changes everything.
    Admin,
    /// Sees and changes what is their own.
    User,
    /// One of our services, calling another.
    Service,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Admin => "Admin",
            Role::User => "User",
            Role::Service => "Service",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        [Role::Admin, Role::User, Role::Service].into_iter().find(|role| role.as_str() == text).ok_or(())
    }
}

/// Registered claims (RFC 7519) and the role. All but `nbf` are required.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub iss: String,
    pub sub: String,
    pub aud: Audience,
    /// Seconds since the Unix epoch.
    pub exp: u64,
    pub iat: u64,
    /// Not valid before; we never write it.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    pub jti: String,
    pub role: Role,
}

/// A claim that may be absent, but not null.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    u64::deserialize(deserializer).map(Some)
}

/// Whom a token is for: one text, as we write it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Audience(pub String);
