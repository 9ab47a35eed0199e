//! The order service without its transport: rules, the saga, storage and the driver.
//!
//! Generic over ports, so that the same driver runs inside the component and natively in tests.
//! Must not know: HTTP, gRPC, which host runs it.

mod claims;
mod driver;
mod order;
mod payments;
mod saga;
mod schema;
mod steps;
mod store;

pub use claims::SagaSummary;
pub use driver::{OrderError, Orders, Placed, Settings};
pub use order::{Caller, Item, NewOrder, Order, RuleBroken, Status};
pub use payments::{Charged, Paid, Payments, PaymentsError, Undone};
pub use saga::{Effect, Event, FinalStep, Input, OrderSaga, Phase, State, Timer};
pub use schema::SCHEMA;
pub use store::{HistoryEntry, IdempotencyClaim, Lease, Page, Store, StoreError};
