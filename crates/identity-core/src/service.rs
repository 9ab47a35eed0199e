//! Trades credentials for signed tokens.

use std::time::Duration;

use settle_ports::{Database, Durability, Limiter, Rate, SqlError, World, sql};
use settle_token::{Audience, Claims, Jwks, Role, Signer, TokenError, Verifier};
use settle_types::{Timestamp, UserUuid};
use sha2::{Digest, Sha256};

use crate::passwords::{Password, PasswordError, PasswordHash, SALT_BYTES};

/// Life of a user's token.
pub const USER_TOKEN_LIFE: Duration = Duration::from_secs(60 * 60);
/// Life of a service's token.
pub const SERVICE_TOKEN_LIFE: Duration = Duration::from_secs(10 * 60);
/// Password hashes at once, and per minute: one takes 50 ms of CPU and 19 MiB.
const HASHING: Rate = Rate { capacity: 16, refill_per_minute: 1200 };
/// Wrong passwords for one account from one client: another client of the same user is not locked out.
const WRONG_PER_ACCOUNT: Rate = Rate { capacity: 10, refill_per_minute: 10 };
/// Wrong passwords and registrations from one client, whatever the account.
const WRONG_PER_CLIENT: Rate = Rate { capacity: 100, refill_per_minute: 60 };

/// A user's name: one spelling each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Username(String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("username has from 1 to {} letters, digits or any of . _ - @ +", Username::BYTES_MAX)]
pub struct UsernameError;

impl Username {
    pub const BYTES_MAX: usize = 128;

    pub fn parse(text: &str) -> Result<Self, UsernameError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-@+".contains(c);
        if text.is_empty() || text.len() > Self::BYTES_MAX || !text.chars().all(allowed) {
            return Err(UsernameError);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A service that may ask for tokens (RFC 6749, section 4.4).
pub struct Client {
    pub id: String,
    pub secret: String,
}

/// What the deployment decides.
pub struct Settings {
    pub signer: Signer,
    /// Of this issuer's own tokens.
    pub verifier: Verifier,
    pub issuer: String,
    /// Audience of users' tokens.
    pub audience: String,
    pub clients: Vec<Client>,
    /// Audiences that a client may ask for.
    pub service_audiences: Vec<String>,
}

/// A token and how long it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    pub jwt: String,
    pub expires_in: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegisterOutcome {
    Registered(UserUuid),
    /// The name is taken.
    Exists,
}

/// Who tries something that is limited.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The client's address, where the host knows it.
    pub client: Option<&'a str>,
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Unknown user or client, or wrong secret: not told apart.
    #[error("wrong credentials")]
    WrongCredentials,
    /// The token is not valid here, or was taken back.
    #[error("not authenticated")]
    Unauthenticated,
    #[error("not allowed")]
    Forbidden,
    #[error("too many tries")]
    Throttled(Duration),
    /// No such audience for clients.
    #[error("unknown audience")]
    UnknownAudience,
    #[error("temporarily unavailable: {0}")]
    Unavailable(String),
    #[error("internal: {0}")]
    Internal(String),
}

impl From<SqlError> for IdentityError {
    fn from(error: SqlError) -> Self {
        match error {
            SqlError::NotApplied(_) | SqlError::OutcomeUnknown(_) => {
                IdentityError::Unavailable(error.to_string())
            }
            SqlError::Conflict(_) | SqlError::Invalid(_) | SqlError::TooLarge(_) | SqlError::Unmet(_) => {
                IdentityError::Internal(error.to_string())
            }
        }
    }
}

impl From<TokenError> for IdentityError {
    fn from(error: TokenError) -> Self {
        IdentityError::Internal(error.to_string())
    }
}

impl From<PasswordError> for IdentityError {
    fn from(error: PasswordError) -> Self {
        IdentityError::Internal(error.to_string())
    }
}

/// The identity service, over its ports.
pub struct Identity<W, D, L> {
    pub world: W,
    pub database: D,
    pub limiter: L,
    pub settings: Settings,
}

impl<W: World, D: Database, L: Limiter> Identity<W, D, L> {
    /// A user's token. Takes the same time whether or not the user exists.
    pub async fn issue(
        &self,
        username: &Username,
        password: &Password,
        attempt: Attempt<'_>,
    ) -> Result<Issued, IdentityError> {
        let known = self.user_with(username, password, attempt).await?;
        self.sign(&known.id, known.role, &self.settings.audience, USER_TOKEN_LIFE)
    }

    /// The user whose password this is. Only wrong ones count against a client.
    pub(crate) async fn user_with(
        &self,
        username: &Username,
        password: &Password,
        attempt: Attempt<'_>,
    ) -> Result<User, IdentityError> {
        let client = attempt.client.unwrap_or("unknown");
        let counted = [
            (format!("wrong/{}/{client}", username.0), WRONG_PER_ACCOUNT),
            (format!("wrong/{client}"), WRONG_PER_CLIENT),
        ];
        for (bucket, rate) in &counted {
            if self.limiter.take(bucket, 0, *rate).await.is_ok_and(|left| left == 0) {
                let wait = Duration::from_secs(60).checked_div(rate.refill_per_minute);
                return Err(IdentityError::Throttled(wait.unwrap_or_default()));
            }
        }
        self.limiter.take("argon2", 1, HASHING).await.map_err(IdentityError::Throttled)?;
        let statement = sql("SELECT id, password_hash, role FROM identity_users WHERE username = $1")
            .bind(username.as_str());
        let found = self.database.query(statement).await?;
        let matching = match found.rows.first() {
            Some(row) => {
                let hash = PasswordHash(row.text(1).map_err(SqlError::from)?.to_owned());
                hash.matches(password).then_some(row)
            }
            None => {
                PasswordHash(PasswordHash::OF_NOBODY.to_owned()).matches(password);
                None
            }
        };
        let Some(row) = matching else {
            for (bucket, rate) in &counted {
                // Err: it is empty already.
                let _ = self.limiter.take(bucket, 1, *rate).await;
            }
            return Err(IdentityError::WrongCredentials);
        };
        let id = row.text(0).map_err(SqlError::from)?.to_owned();
        Ok(User { id, role: row.parse(2, "a role").map_err(SqlError::from)? })
    }

    /// Registers a user.
    pub async fn register(
        &self,
        username: &Username,
        password: &Password,
        role: Role,
        attempt: Attempt<'_>,
    ) -> Result<RegisterOutcome, IdentityError> {
        let bucket = format!("wrong/{}", attempt.client.unwrap_or("unknown"));
        self.limiter.take(&bucket, 1, WRONG_PER_CLIENT).await.map_err(IdentityError::Throttled)?;
        self.limiter.take("argon2", 1, HASHING).await.map_err(IdentityError::Throttled)?;
        let now = self.world.now();
        let id = UserUuid::new(now, self.world.id_bytes());
        let hash = password.hash(&self.salt())?;
        let statement = sql("INSERT INTO identity_users (id, username, password_hash, role, created_at)
                             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (username) DO NOTHING")
        .bind(id.to_string())
        .bind(username.as_str())
        .bind(hash.0)
        .bind(role.as_str())
        .bind(now)
        .expect_rows(1);
        match self.database.execute(vec![statement], Durability::Durable).await {
            Ok(_) => Ok(RegisterOutcome::Registered(id)),
            Err(SqlError::Unmet(0)) => Ok(RegisterOutcome::Exists),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes sure that there is a user with this name; an existing one stays as it is.
    pub async fn seed(
        &self,
        username: &Username,
        password: &Password,
        role: Role,
    ) -> Result<(), IdentityError> {
        let statement = sql("SELECT 1 FROM identity_users WHERE username = $1").bind(username.as_str());
        if self.database.query(statement).await?.rows.is_empty() {
            self.register(username, password, role, Attempt { client: None }).await?;
        }
        Ok(())
    }

    /// A service's token for one audience (client credentials).
    pub fn issue_service(&self, id: &str, secret: &str, audience: &str) -> Result<Issued, IdentityError> {
        // Secrets are long and random, so a fast hash is enough, and comparing hashes tells nothing of them.
        let given = Sha256::digest(secret);
        let known = self.settings.clients.iter().find(|client| client.id == id);
        let matches = known.is_some_and(|client| Sha256::digest(&client.secret) == given);
        if !matches {
            return Err(IdentityError::WrongCredentials);
        }
        if !self.settings.service_audiences.iter().any(|known| known == audience) {
            return Err(IdentityError::UnknownAudience);
        }
        self.sign(id, Role::Service, audience, SERVICE_TOKEN_LIFE)
    }

    pub fn jwks(&self) -> &Jwks {
        self.settings.signer.jwks()
    }

    fn sign(
        &self,
        subject: &str,
        role: Role,
        audience: &str,
        life: Duration,
    ) -> Result<Issued, IdentityError> {
        let now = self.world.now();
        let claims = Claims {
            iss: self.settings.issuer.clone(),
            sub: subject.to_owned(),
            aud: Audience(audience.to_owned()),
            exp: seconds(now.plus(life)),
            iat: seconds(now),
            nbf: None,
            jti: UserUuid::new(now, self.world.id_bytes()).to_string(),
            role,
        };
        Ok(Issued { jwt: self.settings.signer.sign(&claims)?, expires_in: life })
    }

    pub(crate) fn salt(&self) -> [u8; SALT_BYTES] {
        let mut salt = [0; SALT_BYTES];
        let (head, tail) = salt.split_at_mut(8);
        let (first, second) = self.world.random();
        head.copy_from_slice(&first.to_le_bytes());
        tail.copy_from_slice(&second.to_le_bytes());
        salt
    }
}

/// A user who showed the right password.
pub(crate) struct User {
    pub id: String,
    pub role: Role,
}

fn seconds(at: Timestamp) -> u64 {
    at.as_millis() / 1000
}
