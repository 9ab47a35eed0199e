//! The values that every service speaks of: money, ids, keys, time.
//!
//! Each is parsed once, at the edge, and cannot hold a bad value afterwards. Nothing here reads
//! a clock or randomness; both come in as arguments.

mod ids;
mod money;
mod text;
mod time;

pub use ids::{IdError, OrderId, PaymentId, RefundId, UserUuid, id_bytes_random};
pub use money::{Currency, Money, MoneyError};
pub use text::{FailureReason, IdempotencyKey, OperationKey, PaymentMethod, ProductId, TextError, UserId};
pub use time::Timestamp;
