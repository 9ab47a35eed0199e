//! The payment service without its transport: the payment document, its ledger, and the driver.
//!
//! Generic over ports. Must not know: HTTP, gRPC, what an order is, which acquirer it talks to.

mod driver;
mod payment;
mod schema;
mod store;

pub use driver::{Charge, PaymentError, Payments, Processed, Refunded};
pub use payment::{Illegal, Payment, Refund, RefundState, Status, Transfer};
pub use schema::SCHEMA;
