//! What a gateway decides: whose a path is, which heads pass, which origins a browser may call from.
//!
//! Must not know: hosts, clocks, what the services do.

mod cors;
mod heads;
mod paths;

pub use cors::{Cors, CorsError, Preflight};
pub use heads::{SECURED, passed_back, passed_on};
pub use paths::{ROUTES, Refused, Upstream, checked, upstream_of};
