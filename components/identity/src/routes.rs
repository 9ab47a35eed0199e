//! Routes of the identity service, one function each.

use http::Method;
use serde::Deserialize;
use serde_json::json;
use settle_identity_core::{Attempt, IdentityError, Issued, Password, RegisterOutcome, Username};
use settle_ports::World;
use settle_service_kit::auth::{TRUST_PATH, bearer_of};
use settle_service_kit::health::{self, Probe};
use settle_service_kit::http::{Call, Reply, form_fields};
use settle_service_kit::problem::{Kind, Problem};
use settle_service_kit::states::{self, Change};
use settle_token::{Claims, Role};

use crate::app::{self, App, WORLD};

/// Longest id of a token that may be named.
const JTI_BYTES_MAX: usize = 128;

pub async fn route(call: Call) -> Reply {
    match health::probe(&call, "identity") {
        Some(Probe::Live) => return health::live(),
        Some(Probe::Ready) => return health::ready(app::get().await.map(|_| json!({ "database": "ok" }))),
        None => {}
    }
    let answered = match app::get().await {
        Ok(app) => answer(&app, &call).await,
        Err(error) => Err(error.problem(&WORLD, &call.context)),
    };
    answered.unwrap_or_else(|problem| Reply::problem(&problem, &call.context.correlation_id))
}

async fn answer(app: &App, call: &Call) -> Result<Reply, Problem> {
    match (call.path.as_str(), &call.method) {
        (states::PATH, _) => {
            Ok(app.states.answer(call, async |change| set_up(app, call, change).await).await)
        }
        ("/v1/tokens", &Method::POST) => issue(app, call, 201).await,
        ("/login" | "/auth/login", &Method::POST) => issue(app, call, 200).await,
        ("/v1/users", &Method::POST) => register(app, call).await,
        ("/oauth/token", &Method::POST) => issue_service(app, call),
        ("/v1/tokens/revoke", &Method::POST) => revoke_token(app, call).await,
        ("/v1/users/me/password", &Method::POST) => change_password(app, call).await,
        ("/.well-known/jwks.json", &Method::GET) => Ok(jwks(app)),
        (TRUST_PATH, &Method::GET) => trust(app, call).await,
        ("/.well-known/jwks.json" | TRUST_PATH, _) => Err(Problem::method_not_allowed("GET")),
        (path, method) => match (path.strip_prefix("/v1/users/"), method) {
            (Some(rest), &Method::POST) if rest.ends_with("/revoke") => revoke_user(app, call, rest).await,
            _ if is_posted(path) => Err(Problem::method_not_allowed("POST")),
            _ => Err(Problem::not_found()),
        },
    }
}

/// Paths that take a POST and nothing else.
fn is_posted(path: &str) -> bool {
    let of_user = path.strip_prefix("/v1/users/").is_some_and(|rest| rest.ends_with("/revoke"));
    let fixed = [
        "/v1/tokens",
        "/v1/tokens/revoke",
        "/login",
        "/auth/login",
        "/v1/users",
        "/v1/users/me/password",
        "/oauth/token",
    ];
    of_user || fixed.contains(&path)
}

fn attempt<'a>(app: &App, call: &'a Call) -> Attempt<'a> {
    Attempt { client: app.peer.client_of(call) }
}

async fn caller(app: &App, call: &Call) -> Result<Claims, Problem> {
    let token = bearer_of(call)?;
    app.identity.authenticate(token).await.map_err(|error| problem_of(error, call))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Revocation {
    /// Another token than the one that is sent: for administrators.
    jti: Option<String>,
}

async fn revoke_token(app: &App, call: &Call) -> Result<Reply, Problem> {
    let caller = caller(app, call).await?;
    let request: Revocation = if call.body.is_empty() { Revocation::default() } else { call.json()? };
    let jti = request.jti.unwrap_or_else(|| caller.jti.clone());
    if jti.is_empty() || jti.len() > JTI_BYTES_MAX {
        return Err(Problem::new(Kind::InvalidField, format!("`jti` has from 1 to {JTI_BYTES_MAX} bytes.")));
    }
    app.identity.revoke_token(&caller, &jti).await.map_err(|error| problem_of(error, call))?;
    Ok(Reply::new(204, Vec::new()))
}

/// `ID/revoke` or `me/revoke`.
async fn revoke_user(app: &App, call: &Call, rest: &str) -> Result<Reply, Problem> {
    let caller = caller(app, call).await?;
    let id = rest.trim_end_matches("/revoke");
    let id = if id == "me" { caller.sub.as_str() } else { id };
    let id = id.parse().map_err(|_| Problem::not_found())?;
    app.identity.revoke_user(&caller, id).await.map_err(|error| problem_of(error, call))?;
    Ok(Reply::new(204, Vec::new()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PasswordChange {
    current_password: String,
    new_password: String,
}

async fn change_password(app: &App, call: &Call) -> Result<Reply, Problem> {
    let caller = caller(app, call).await?;
    let request: PasswordChange = call.json()?;
    let current = Password::attempt(request.current_password).map_err(|_| wrong_credentials())?;
    let new = Password::choose(request.new_password)
        .map_err(|error| Problem::new(Kind::InvalidField, format!("{error}.")))?;
    let changed = app.identity.change_password(&caller, &current, &new, attempt(app, call)).await;
    changed.map_err(|error| problem_of(error, call))?;
    Ok(Reply::new(204, Vec::new()))
}

/// For our own services: the keys, and what was taken back.
async fn trust(app: &App, call: &Call) -> Result<Reply, Problem> {
    let trust = app.identity.trust().await.map_err(|error| problem_of(error, call))?;
    Ok(Reply::json(200, &trust).header("cache-control", "no-store"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    username: String,
    password: String,
}

async fn issue(app: &App, call: &Call, status: u16) -> Result<Reply, Problem> {
    let credentials: Credentials = call.json()?;
    let wrong = |_| wrong_credentials();
    let username = Username::parse(&credentials.username).map_err(|_| wrong_credentials())?;
    let password = Password::attempt(credentials.password).map_err(wrong)?;
    let issued = app
        .identity
        .issue(&username, &password, attempt(app, call))
        .await
        .map_err(|error| problem_of(error, call))?;
    Ok(token_reply(status, "token", &issued))
}

fn token_reply(status: u16, name: &str, issued: &Issued) -> Reply {
    let body = json!({ name: issued.jwt, "token_type": "Bearer", "expires_in": issued.expires_in.as_secs() });
    Reply::json(status, &body).header("cache-control", "no-store")
}

async fn register(app: &App, call: &Call) -> Result<Reply, Problem> {
    let credentials: Credentials = call.json()?;
    let username = Username::parse(&credentials.username)
        .map_err(|error| Problem::new(Kind::InvalidField, error.to_string()))?;
    let password = Password::choose(credentials.password)
        .map_err(|error| Problem::new(Kind::InvalidField, error.to_string()))?;
    let registered = app.identity.register(&username, &password, Role::User, attempt(app, call)).await;
    match registered.map_err(|error| problem_of(error, call))? {
        RegisterOutcome::Registered(id) => {
            Ok(Reply::json(201, &json!({ "id": id.to_string(), "username": username.as_str() })))
        }
        RegisterOutcome::Exists => Err(Problem::new(Kind::AlreadyExists, "The username is taken.")),
    }
}

/// OAuth 2.0 client credentials (RFC 6749, section 4.4), secret in the form.
fn issue_service(app: &App, call: &Call) -> Result<Reply, Problem> {
    if !call.has_content_type("application/x-www-form-urlencoded") {
        return Err(Problem::new(Kind::UnsupportedMediaType, "Send application/x-www-form-urlencoded."));
    }
    let body = std::str::from_utf8(&call.body)
        .map_err(|_| Problem::new(Kind::MalformedRequest, "The form is not UTF-8."))?;
    let fields = form_fields(body)?;
    let field = |name: &str| {
        let found = fields.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str());
        found.ok_or_else(|| Problem::new(Kind::MalformedRequest, format!("The form needs `{name}`.")))
    };
    if field("grant_type")? != "client_credentials" {
        return Err(Problem::new(Kind::InvalidField, "grant_type must be client_credentials."));
    }
    let issued = app.identity.issue_service(field("client_id")?, field("client_secret")?, field("audience")?);
    Ok(token_reply(200, "access_token", &issued.map_err(|error| problem_of(error, call))?))
}

fn jwks(app: &App) -> Reply {
    Reply::json(200, app.identity.jwks()).header("cache-control", "public, max-age=300")
}

/// `a user exists`, with `username` and `password`.
async fn set_up(app: &App, call: &Call, change: &Change) -> Result<(), Problem> {
    if change.state != "a user exists" {
        return Ok(());
    }
    let invalid = |error: &dyn std::fmt::Display| Problem::new(Kind::InvalidField, format!("{error}."));
    let username = Username::parse(change.text("username", "pact")).map_err(|error| invalid(&error))?;
    let password = Password::choose(change.text("password", "a pact password").to_owned())
        .map_err(|error| invalid(&error))?;
    let registered = app.identity.register(&username, &password, Role::User, attempt(app, call)).await;
    registered.map(drop).map_err(|error| problem_of(error, call))
}

fn wrong_credentials() -> Problem {
    Problem::new(Kind::WrongCredentials, "Unknown user or wrong password.")
}

/// The one place where an error of the domain becomes a status.
fn problem_of(error: IdentityError, call: &Call) -> Problem {
    match error {
        IdentityError::WrongCredentials => wrong_credentials(),
        IdentityError::Unauthenticated => Problem::new(Kind::Unauthenticated, "The token is not valid."),
        IdentityError::Forbidden => {
            Problem::new(Kind::Forbidden, "Only its owner or an administrator may do this.")
        }
        IdentityError::Throttled(wait) => {
            Problem::new(Kind::TooManyRequests, "Too many tries; wait a little.").retry_after(wait)
        }
        IdentityError::UnknownAudience => Problem::new(Kind::InvalidField, "Unknown audience."),
        IdentityError::Unavailable(reason) => {
            WORLD.log("warn", &reason, &call.context);
            let wait = std::time::Duration::from_secs(1);
            Problem::new(Kind::Unavailable, "Try again in a moment.").retry_after(wait)
        }
        IdentityError::Internal(reason) => {
            WORLD.log("error", &reason, &call.context);
            Problem::new(Kind::Internal, "The failure was logged under the correlation id.")
        }
    }
}
