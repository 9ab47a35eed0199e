//! Token buckets and circuit breakers, without a clock: the caller says how many milliseconds it is
//! since an epoch of its own. The embedded host keeps them in memory, others as JSON in a store.

#![forbid(unsafe_code)]

mod breaker;
mod bucket;

pub use breaker::{Breaker, Verdict};
pub use bucket::{Bucket, Rate};
