//! What becomes of a user's tokens and password after the first login.

use settle_ports::{Database, Durability, Limiter, SqlError, Statement, World, sql};
use settle_token::{Claims, Revoked, Role, Trust, is_revoked};
use settle_types::{Timestamp, UserUuid};

use crate::passwords::Password;
use crate::service::{Attempt, Identity, IdentityError, USER_TOKEN_LIFE, Username};

/// Entries of the list that verifiers read: older ones give way.
const REVOKED_MAX: u32 = 2_500;

impl<W: World, D: Database, L: Limiter> Identity<W, D, L> {
    /// The claims of a user's own token, which is good at this moment.
    pub async fn authenticate(&self, token: &str) -> Result<Claims, IdentityError> {
        let claims = self.settings.verifier.verify(token, self.world.now());
        let claims = claims.map_err(|_| IdentityError::Unauthenticated)?;
        if is_revoked(&self.revoked().await?, &claims) {
            return Err(IdentityError::Unauthenticated);
        }
        Ok(claims)
    }

    /// What verifiers of our tokens need: fetched again every few seconds.
    pub async fn trust(&self) -> Result<Trust, IdentityError> {
        Ok(Trust { keys: self.jwks().clone(), revoked: self.revoked().await? })
    }

    async fn revoked(&self) -> Result<Vec<Revoked>, SqlError> {
        let statement = sql("SELECT what, before_at FROM identity_revoked WHERE expires_at > $1
                             ORDER BY expires_at DESC LIMIT $2")
        .bind(self.world.now())
        .bind(REVOKED_MAX);
        let found = self.database.query(statement).await?;
        let entry = |row: &settle_ports::Row| {
            Ok(Revoked { what: row.text(0)?.to_owned(), before: row.time(1)?.as_millis() })
        };
        found.rows.iter().map(entry).collect()
    }

    /// Takes one token back: the caller's own, or anybody's for an administrator.
    pub async fn revoke_token(&self, caller: &Claims, jti: &str) -> Result<(), IdentityError> {
        if jti != caller.jti && caller.role != Role::Admin {
            return Err(IdentityError::Forbidden);
        }
        let now = self.world.now();
        // The id alone names it: whenever it was issued.
        let forever = now.plus(USER_TOKEN_LIFE);
        self.write_revoked(vec![self.revocation(Revoked::token(jti), forever)]).await
    }

    /// Takes all tokens of a user back that were issued until now: the caller's own, or anybody's for an
    /// administrator.
    pub async fn revoke_user(&self, caller: &Claims, user: UserUuid) -> Result<(), IdentityError> {
        let user = user.to_string();
        if user != caller.sub && caller.role != Role::Admin {
            return Err(IdentityError::Forbidden);
        }
        let now = self.world.now();
        self.write_revoked(vec![self.revocation(Revoked::subject(&user), now)]).await
    }

    /// Sets another password and takes all tokens back that the old one got.
    pub async fn change_password(
        &self,
        caller: &Claims,
        current: &Password,
        new: &Password,
        attempt: Attempt<'_>,
    ) -> Result<(), IdentityError> {
        let statement = sql("SELECT username FROM identity_users WHERE id = $1").bind(caller.sub.as_str());
        let found = self.database.query(statement).await?;
        let username = found.rows.first().ok_or(IdentityError::Unauthenticated)?;
        let username = username.text(0).map_err(SqlError::from)?;
        let username =
            Username::parse(username).map_err(|error| IdentityError::Internal(error.to_string()))?;
        let user = self.user_with(&username, current, attempt).await?;
        let hash = new.hash(&self.salt())?;
        let update = sql("UPDATE identity_users SET password_hash = $1 WHERE id = $2")
            .bind(hash.0)
            .bind(user.id.as_str())
            .expect_rows(1);
        let taken_back = self.revocation(Revoked::subject(&user.id), self.world.now());
        self.write_revoked(vec![update, taken_back]).await
    }

    /// An entry that lives as long as the tokens that it is about.
    fn revocation(&self, what: String, before: Timestamp) -> Statement {
        sql("INSERT INTO identity_revoked (what, before_at, expires_at) VALUES ($1, $2, $3)
             ON CONFLICT (what) DO UPDATE SET before_at = excluded.before_at, expires_at = excluded.expires_at")
        .bind(what)
        .bind(before)
        .bind(self.world.now().plus(USER_TOKEN_LIFE))
    }

    async fn write_revoked(&self, mut statements: Vec<Statement>) -> Result<(), IdentityError> {
        statements.push(sql("DELETE FROM identity_revoked WHERE expires_at <= $1").bind(self.world.now()));
        self.database.execute(statements, Durability::Durable).await?;
        Ok(())
    }
}
