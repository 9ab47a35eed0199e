//! `settle:limits` over the key-value store. Two callers that write at once lose one count, which
//! the port allows: it admits a little more.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Serialize, de::DeserializeOwned};
use settle_limits::{Breaker, Bucket, Rate, Verdict};
use spin_sdk::key_value::Store;

use crate::Adapter;
use crate::bindings::exports::settle::limits::limiter as port;

impl port::Guest for Adapter {
    async fn take(name: String, cost: u32, rate: port::Rate) -> Result<u32, u64> {
        let rate = Rate { capacity: rate.capacity, refill_per_minute: rate.refill_per_minute };
        let now = now_millis();
        change(format!("bucket/{name}"), |bucket: Option<Bucket>| {
            let mut bucket = bucket.unwrap_or_else(|| Bucket::full(rate, now));
            let taken = bucket.take(cost, rate, now);
            (taken, Some(bucket))
        })
        .await
        .unwrap_or(Ok(rate.capacity))
    }

    async fn allow(name: String) -> port::Verdict {
        let verdict = change(format!("breaker/{name}"), |breaker: Option<Breaker>| {
            let Some(mut breaker) = breaker else { return (Verdict::Closed, None) };
            let verdict = breaker.allow(now_millis());
            // Only a probe changes the breaker.
            (verdict, (verdict == Verdict::Probe).then_some(breaker))
        });
        match verdict.await.unwrap_or(Verdict::Closed) {
            Verdict::Closed => port::Verdict::Closed,
            Verdict::Probe => port::Verdict::Probe,
            Verdict::Open(wait) => port::Verdict::Open(wait),
        }
    }

    async fn report(name: String, success: bool) -> bool {
        let opened = change(format!("breaker/{name}"), |breaker: Option<Breaker>| {
            if breaker.is_none() && success {
                return (false, None); // nothing to remember
            }
            let mut breaker = breaker.unwrap_or_default();
            let opened = breaker.report(success, now_millis());
            (opened, Some(breaker))
        });
        opened.await.unwrap_or(false)
    }
}

/// Reads, changes and writes one entry. `None` when the store is away: then nothing is limited.
async fn change<T, A>(key: String, change: impl FnOnce(Option<T>) -> (A, Option<T>)) -> Option<A>
where
    T: Serialize + DeserializeOwned,
{
    let store = Store::open_default().await.ok()?;
    let known = store.get(&key).await.ok()?;
    let (answer, changed) = change(known.and_then(|bytes| serde_json::from_slice(&bytes).ok()));
    if let Some(changed) = changed {
        store.set(&key, serde_json::to_vec(&changed).ok()?).await.ok()?;
    }
    Some(answer)
}

fn now_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
