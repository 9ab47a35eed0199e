//! No limits: an instance lives for one request, and the lattice has no counter that is its own.
//! A gateway in front has to keep logins and clients in bounds.

use std::time::Duration;

use settle_ports::{Limiter, Rate, Verdict};

/// Allows everything.
#[derive(Clone, Copy, Debug)]
pub struct HostLimiter;

impl Limiter for HostLimiter {
    async fn take(&self, _name: &str, _cost: u32, rate: Rate) -> Result<u32, Duration> {
        Ok(rate.capacity)
    }

    async fn allow(&self, _name: &str) -> Verdict {
        Verdict::Closed
    }

    async fn report(&self, _name: &str, _success: bool) -> bool {
        false
    }
}
