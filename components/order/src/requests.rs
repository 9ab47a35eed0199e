//! What a request is to the order service, whichever of its interfaces it came by.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use settle_order_core::{Caller, IdempotencyClaim, Item, NewOrder, OrderError, Placed, RuleBroken};
use settle_ports::World;
use settle_service_kit::context::RETRY_AFTER;
use settle_service_kit::http::Call;
use settle_service_kit::problem::{Kind, Problem};
use settle_service_kit::spawn;
use settle_token::{Claims, Role};
use settle_types::{IdempotencyKey, PaymentMethod, Timestamp, UserId};
use sha2::{Digest, Sha256};

use crate::app::{App, WORLD};

/// How long a client may repeat a request with its key.
const IDEMPOTENCY_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// Due sagas that a request resumes on its way, and how often an instance does so.
const RESUME_BY_TRAFFIC: u32 = 2;
const RESUME_BY_TRAFFIC_EVERY: Duration = Duration::from_secs(1);

pub fn caller_of(claims: &Claims) -> Result<Caller, Problem> {
    let subject =
        claims.sub.parse().map_err(|_| Problem::new(Kind::Unauthenticated, "The subject is not usable."))?;
    Ok(Caller { issuer: claims.iss.clone(), subject, admin: claims.role == Role::Admin })
}

/// An order that keeps every rule.
pub fn new_order(
    caller: &Caller,
    user_id: Option<UserId>,
    items: Vec<Item>,
    method: Option<PaymentMethod>,
) -> Result<NewOrder, Problem> {
    NewOrder::parse(caller, user_id, items, method).map_err(|error| match error {
        RuleBroken::ForAnotherUser => Problem::new(Kind::Forbidden, format!("{error}.")),
        other => invalid(&other),
    })
}

pub fn key_of(call: &Call) -> Result<Option<IdempotencyKey>, Problem> {
    call.header("idempotency-key").map(str::parse).transpose().map_err(|error| invalid(&error))
}

/// Who may repeat what: issuer, subject, route and key; the fingerprint is of the parsed request.
pub fn claim_of(
    caller: &Caller,
    route: &str,
    key: &IdempotencyKey,
    order: &NewOrder,
) -> Result<IdempotencyClaim, Problem> {
    let mut scope = Sha256::new();
    for part in [&caller.issuer, caller.subject.as_str(), route, key.as_str()] {
        scope.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        scope.update(part);
    }
    let parsed = serde_json::to_vec(order).map_err(|error| invalid(&error))?;
    Ok(IdempotencyClaim {
        scope: scope.finalize().into(),
        fingerprint: Sha256::digest(parsed).into(),
        expires_at: WORLD.now().plus(IDEMPOTENCY_LIFE),
    })
}

/// Places an order, and behind it goes on with others where nobody else does.
pub async fn place(
    app: &Rc<App>,
    call: &Call,
    order: NewOrder,
    claim: Option<IdempotencyClaim>,
) -> Result<Placed, OrderError> {
    let placed = app.orders.place(&call.context, order, claim).await;
    resume_by_traffic(app);
    placed
}

/// Where no host calls recovery on a timer, the traffic does, behind the answer.
fn resume_by_traffic(app: &Rc<App>) {
    thread_local! {
        static LAST: Cell<Timestamp> = const { Cell::new(Timestamp::from_millis(0)) };
    }
    let now = WORLD.now();
    if !app.recovery_by_traffic || now.since(LAST.get()) < RESUME_BY_TRAFFIC_EVERY {
        return;
    }
    LAST.set(now);
    let app = app.clone();
    spawn(async move {
        // Failures are logged saga by saga; the next request tries again.
        let _ = app.orders.resume_due(RESUME_BY_TRAFFIC).await;
    });
}

pub fn invalid(error: &dyn std::fmt::Display) -> Problem {
    Problem::new(Kind::InvalidField, format!("{error}."))
}

/// The one place where an error of the domain becomes a status.
pub fn problem_of(error: OrderError, call: &Call) -> Problem {
    match error {
        OrderError::NotFound => Problem::not_found(),
        OrderError::KeyReused => {
            Problem::new(Kind::IdempotencyKeyReused, "The Idempotency-Key was used with another request.")
        }
        OrderError::Illegal(status) => {
            Problem::new(Kind::IllegalTransition, format!("The order is {}.", status.as_str()))
        }
        OrderError::Unavailable { reason, retry_after } => {
            WORLD.log("warn", &reason, &call.context);
            Problem::new(Kind::Unavailable, "Nothing was written; try again.").retry_after(retry_after)
        }
        OrderError::OutcomeUnknown(reason) => {
            WORLD.log("warn", &reason, &call.context);
            Problem::new(Kind::OutcomeUnknown, "Repeat the request with the same Idempotency-Key.")
                .retry_after(RETRY_AFTER)
        }
        OrderError::Internal(reason) => {
            WORLD.log("error", &reason, &call.context);
            Problem::new(Kind::Internal, "The failure was logged under the correlation id.")
        }
    }
}
