//! How much of one client and of one user passes, and what they are told of it.

use settle_ports::{Limiter as _, Rate};
use settle_service_kit::http::Call;
use settle_service_kit::ports::HostLimiter;
use settle_service_kit::problem::{Kind, Problem};

use crate::app::App;

/// What is left of the tighter of a request's buckets.
#[derive(Clone, Copy, Debug)]
pub struct Left {
    rate: Rate,
    remaining: u32,
}

impl Left {
    /// `RateLimit-*`, as in draft-ietf-httpapi-ratelimit-headers-03: tokens and whole seconds.
    pub fn fields(self) -> [(&'static str, String); 3] {
        let missing = u64::from(self.rate.capacity.saturating_sub(self.remaining));
        let reset = (missing * 60).div_ceil(u64::from(self.rate.refill_per_minute.max(1)));
        [
            ("ratelimit-limit", self.rate.capacity.to_string()),
            ("ratelimit-remaining", self.remaining.to_string()),
            ("ratelimit-reset", reset.to_string()),
        ]
    }

    fn tighter(self, other: Option<Left>) -> Left {
        other.filter(|other| other.remaining < self.remaining).unwrap_or(self)
    }
}

/// Counts a request. Whose token is not valid is counted by address alone: its service refuses it.
pub async fn admit(app: &App, call: &Call) -> Result<Option<Left>, Problem> {
    let client = match (app.client_rate, app.peer.client_of(call)) {
        (Some(rate), Some(client)) => Some(take(&format!("client/{client}"), rate).await?),
        _ => None,
    };
    let user = match app.user_rate {
        Some(rate) if call.header("authorization").is_some() => match app.auth.authenticate(call).await {
            Ok(claims) => Some(take(&format!("user/{}", claims.sub), rate).await?),
            Err(_) => None,
        },
        _ => None,
    };
    Ok(match (client, user) {
        (Some(client), user) => Some(client.tighter(user)),
        (None, user) => user,
    })
}

async fn take(bucket: &str, rate: Rate) -> Result<Left, Problem> {
    match HostLimiter.take(bucket, 1, rate).await {
        Ok(remaining) => Ok(Left { rate, remaining }),
        Err(wait) => {
            Err(Problem::new(Kind::TooManyRequests, "Too many requests; wait a little.").retry_after(wait))
        }
    }
}
