//! Who calls: the bearer token (RFC 6750), checked here, without a call for each request.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use http::Method;
use serde::Deserialize;
use settle_ports::{CallContext, Limiter, Rate, World};
use settle_token::{Claims, Jwks, Revoked, Role, TokenError, Trust, Verifier, is_revoked};
use settle_types::Timestamp;
use siphasher::sip128::SipHasher24;

use crate::context::headers_of;
use crate::http::{Call, Outgoing, send};
use crate::ports::{GuestWorld, HostLimiter};
use crate::problem::{Kind, Problem};
use crate::settings::{self, SettingError};

/// How often an unknown key id may make us fetch the keys again.
const KEYS_REFETCH: Rate = Rate { capacity: 5, refill_per_minute: 6 };
/// Verified tokens that an instance remembers, by their hash.
const VERIFIED_MAX: usize = 512;
/// How old keys and revocations may be before they are fetched again: a token that was taken back is good
/// for at most this long.
const TRUST_FRESH: Duration = Duration::from_secs(10);
/// How long a service goes on with what it knows when identity does not answer.
const TRUST_STALE_MAX: Duration = Duration::from_secs(5 * 60);
/// Wait before a fetch that failed is tried again.
const TRUST_RETRY: Duration = Duration::from_secs(1);
/// Where identity tells its services what to trust; not for the edge.
pub const TRUST_PATH: &str = "/.well-known/settle-trust.json";
/// A service token is renewed this long before it expires.
const RENEW_BEFORE: Duration = Duration::from_secs(60);
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);

/// How tokens are checked. One an instance.
pub struct Auth {
    world: GuestWorld,
    issuer: String,
    audiences: Vec<String>,
    identity_url: String,
    /// Keys that do not change while the instance lives: the shared secret's, or those set by hand.
    fixed: Option<Rc<Verifier>>,
    fetched: RefCell<Option<Rc<Fetched>>>,
    /// Tokens that passed the verifier of `fetched`, by their hash.
    verified: RefCell<BTreeMap<TokenHash, Rc<Claims>>>,
    /// Nobody knows it, so that nobody can make a token with the hash of another.
    hash_key: (u64, u64),
}

/// SipHash-2-4 of 128 bits, a keyed hash: a tenth of SHA-256's work.
type TokenHash = u128;

/// What identity said, and when.
struct Fetched {
    keys: Jwks,
    verifier: Rc<Verifier>,
    revoked: Vec<Revoked>,
    /// When it was known to be so, and when to ask again.
    at: Timestamp,
    ask_again_at: Cell<Timestamp>,
}

impl Auth {
    /// From the settings. `service` is the audience of service tokens that this service accepts.
    pub async fn from_settings(world: GuestWorld, service: &'static str) -> Result<Self, SettingError> {
        let issuer = settings::or_default("token_issuer", "settle-identity").await?;
        let user_audience = settings::or_default("token_audience", "settle").await?;
        let audiences = vec![user_audience, service.to_owned()];
        let names: Vec<&str> = audiences.iter().map(String::as_str).collect();
        let wrong = |name| move |error: settle_token::KeyError| SettingError::Wrong(name, error.to_string());
        let fixed = match settings::or_default("token_algorithm", "EdDSA").await?.as_str() {
            "HS256" => {
                let secret = settings::required("token_secret").await?;
                Some(Verifier::hs256(&secret, &issuer, &names).map_err(wrong("token_secret"))?)
            }
            "EdDSA" => match settings::optional("token_jwks").await? {
                Some(text) => {
                    let jwks: Jwks = serde_json::from_str(&text)
                        .map_err(|error| SettingError::Wrong("token_jwks", error.to_string()))?;
                    Some(Verifier::ed25519(&jwks, &issuer, &names).map_err(wrong("token_jwks"))?)
                }
                None => None,
            },
            _ => return Err(SettingError::Wrong("token_algorithm", "neither EdDSA nor HS256".to_owned())),
        };
        let identity_url = settings::or_default("identity_url", "http://identity.internal").await?;
        let fetched = RefCell::new(None);
        let (fixed, verified, hash_key) = (fixed.map(Rc::new), RefCell::default(), world.random());
        Ok(Self { world, issuer, audiences, identity_url, fixed, fetched, verified, hash_key })
    }

    /// The claims of the request's bearer token.
    pub async fn authenticate(&self, call: &Call) -> Result<Rc<Claims>, Problem> {
        let token = bearer_of(call)?;
        let now = self.world.now();
        let trust = self.trust(&call.context, now, false).await?;
        let (first, second) = self.hash_key;
        let hash = SipHasher24::new_with_keys(first, second).hash(token.as_bytes()).as_u128();
        let checked = match self.remembered(hash, now) {
            Some(claims) => Ok(claims),
            None => {
                let verified = self.verify(call, &trust, token, now).await?.map(Rc::new);
                verified.inspect(|claims| self.remember(hash, claims.clone()))
            }
        };
        let checked = checked.and_then(|claims| {
            if is_revoked(&trust.revoked, &claims) { Err(TokenError::Revoked) } else { Ok(claims) }
        });
        checked.map_err(|error| {
            self.world.log("info", &format!("token refused: {error}"), &call.context);
            let expired = error == TokenError::Expired;
            let detail = if expired { "The token has expired." } else { "The token is not valid." };
            Problem::new(Kind::Unauthenticated, detail)
        })
    }

    async fn verify(
        &self,
        call: &Call,
        trust: &Fetched,
        token: &str,
        now: Timestamp,
    ) -> Result<Result<Claims, TokenError>, Problem> {
        Ok(match trust.verifier.verify(token, now) {
            // The keys may have been rotated since they were fetched.
            Err(TokenError::UnknownKey) if self.fixed.is_none() && self.may_refetch().await => {
                self.trust(&call.context, now, true).await?.verifier.verify(token, now)
            }
            other => other,
        })
    }

    /// A signature is checked once an instance; the expiry at every use.
    fn remembered(&self, hash: TokenHash, now: Timestamp) -> Option<Rc<Claims>> {
        let verified = self.verified.borrow();
        verified.get(&hash).filter(|claims| now.as_millis() < claims.exp.saturating_mul(1000)).cloned()
    }

    fn remember(&self, hash: TokenHash, claims: Rc<Claims>) {
        let mut verified = self.verified.borrow_mut();
        if verified.len() >= VERIFIED_MAX {
            verified.clear();
        }
        verified.insert(hash, claims);
    }

    async fn may_refetch(&self) -> bool {
        HostLimiter.take("keys-refetch", 1, KEYS_REFETCH).await.is_ok()
    }

    /// What identity said last, not older than `TRUST_FRESH` unless it does not answer.
    async fn trust(
        &self,
        context: &CallContext,
        now: Timestamp,
        again: bool,
    ) -> Result<Rc<Fetched>, Problem> {
        let known = self.fetched.borrow().clone();
        if let Some(known) = &known
            && !again
            && now < known.ask_again_at.get()
        {
            return Ok(known.clone());
        }
        let fetched = match (self.fetch(context).await, known) {
            (Ok(trust), known) => self.learn(trust, known, now),
            (Err(error), Some(known)) if now.since(known.at) < TRUST_STALE_MAX => {
                self.world.log(
                    "warn",
                    &format!("fetching the keys: {error}; going on with those of before"),
                    context,
                );
                known.ask_again_at.set(now.plus(TRUST_RETRY));
                return Ok(known);
            }
            // The signature can be checked; what was taken back is not known yet.
            (Err(error), _) if self.fixed.is_some() => {
                self.world.log("warn", &format!("fetching what was revoked: {error}"), context);
                self.learn(Trust::default(), None, now)
            }
            (Err(error), _) => Err(error),
        };
        let fetched = fetched.map(Rc::new).map_err(|error| {
            self.world.log("warn", &format!("fetching the keys: {error}"), context);
            let detail = "The token cannot be checked at the moment.";
            Problem::new(Kind::Unavailable, detail).retry_after(Duration::from_secs(1))
        })?;
        *self.fetched.borrow_mut() = Some(fetched.clone());
        Ok(fetched)
    }

    /// Takes over what identity says. With other keys, no token counts as verified any more.
    fn learn(&self, trust: Trust, known: Option<Rc<Fetched>>, now: Timestamp) -> Result<Fetched, String> {
        let Trust { keys, revoked } = trust;
        let verifier = match (&self.fixed, known) {
            (Some(fixed), _) => fixed.clone(),
            (None, Some(known)) if known.keys == keys => known.verifier.clone(),
            (None, _) => {
                self.verified.borrow_mut().clear();
                let names: Vec<&str> = self.audiences.iter().map(String::as_str).collect();
                Rc::new(Verifier::ed25519(&keys, &self.issuer, &names).map_err(|error| error.to_string())?)
            }
        };
        Ok(Fetched { keys, verifier, revoked, at: now, ask_again_at: Cell::new(now.plus(TRUST_FRESH)) })
    }

    async fn fetch(&self, context: &CallContext) -> Result<Trust, String> {
        let headers = headers_of(context, FETCH_TIMEOUT).into_iter();
        let answer = send(Outgoing {
            method: Method::GET,
            origin: &self.identity_url,
            path: TRUST_PATH,
            headers: headers.map(|(name, value)| (name.to_owned(), value.into_bytes())).collect(),
            body: Vec::new(),
            timeout: FETCH_TIMEOUT,
        });
        let answer = answer.await.map_err(|error| error.to_string())?;
        if answer.status != 200 {
            return Err(format!("status {}", answer.status));
        }
        serde_json::from_slice(&answer.body).map_err(|error| error.to_string())
    }
}

/// The token of `Authorization: Bearer TOKEN`.
pub fn bearer_of(call: &Call) -> Result<&str, Problem> {
    let header = call.header("authorization").unwrap_or_default();
    let token = header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    token.map(|(_, token)| token).ok_or_else(|| Problem::new(Kind::Unauthenticated, "Send a bearer token."))
}

/// Refuses everybody but administrators and other services of ours.
pub fn require_operator(claims: &Claims) -> Result<(), Problem> {
    match claims.role {
        Role::Admin | Role::Service => Ok(()),
        Role::User => Err(Problem::new(Kind::Forbidden, "Only an administrator or a service may do this.")),
    }
}

/// Refuses everybody but administrators.
pub fn require_admin(claims: &Claims) -> Result<(), Problem> {
    match claims.role {
        Role::Admin => Ok(()),
        Role::User | Role::Service => {
            Err(Problem::new(Kind::Forbidden, "Only an administrator may do this."))
        }
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    expires_in: u64,
}

/// This service's own token for calls to another one (OAuth 2.0 client credentials).
pub struct ServiceToken {
    pub identity_url: String,
    pub client_id: &'static str,
    pub client_secret: String,
    pub audience: &'static str,
    cached: RefCell<Option<(Timestamp, Rc<str>)>>,
}

impl ServiceToken {
    pub fn new(
        identity_url: String,
        client_id: &'static str,
        client_secret: String,
        audience: &'static str,
    ) -> Self {
        Self { identity_url, client_id, client_secret, audience, cached: RefCell::new(None) }
    }

    /// A token that is valid for a while; kept in the instance. The error is for the log.
    pub async fn get(&self, context: &CallContext, world: &GuestWorld) -> Result<Rc<str>, String> {
        let now = world.now();
        if let Some((renew_at, token)) = self.cached.borrow().as_ref()
            && now < *renew_at
        {
            return Ok(token.clone());
        }
        let timeout = context.remaining(now).min(FETCH_TIMEOUT);
        let mut headers = vec![("content-type".to_owned(), b"application/x-www-form-urlencoded".to_vec())];
        let carried = headers_of(context, timeout).into_iter();
        headers.extend(carried.map(|(name, value)| (name.to_owned(), value.into_bytes())));
        // Our secrets are base64url: nothing to encode.
        let body = format!(
            "grant_type=client_credentials&client_id={}&client_secret={}&audience={}",
            self.client_id, self.client_secret, self.audience
        );
        let answer = send(Outgoing {
            method: Method::POST,
            origin: &self.identity_url,
            path: "/oauth/token",
            headers,
            body: body.into_bytes(),
            timeout,
        });
        let answer = answer.await.map_err(|error| error.to_string())?;
        if answer.status != 200 {
            return Err(format!("identity answered {} to client credentials", answer.status));
        }
        let parsed: TokenAnswer = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
        let life = Duration::from_secs(parsed.expires_in).saturating_sub(RENEW_BEFORE);
        let token: Rc<str> = parsed.access_token.into();
        *self.cached.borrow_mut() = Some((now.plus(life), token.clone()));
        Ok(token)
    }
}
