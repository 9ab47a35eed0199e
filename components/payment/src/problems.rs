//! How the payment service refuses: the same for HTTP and gRPC.

use settle_payment_core::PaymentError;
use settle_ports::World;
use settle_service_kit::context;
use settle_service_kit::http::Call;
use settle_service_kit::problem::{Kind, Problem};

use crate::app::WORLD;

/// The one place where an error of the domain becomes a problem.
pub fn problem_of(error: PaymentError, call: &Call) -> Problem {
    let (level, problem) = match &error {
        PaymentError::Unavailable(_) => {
            ("warn", Problem::new(Kind::Unavailable, "The acquirer cannot be reached; nothing happened."))
        }
        PaymentError::OutcomeUnknown(_) => {
            ("warn", Problem::new(Kind::OutcomeUnknown, "Repeat the request with the same key."))
        }
        PaymentError::AmountMismatch => {
            ("warn", Problem::new(Kind::IdempotencyKeyReused, "The key stands for another amount."))
        }
        PaymentError::Internal(_) => {
            ("error", Problem::new(Kind::Internal, "The failure was logged under the correlation id."))
        }
    };
    WORLD.log(level, &error.to_string(), &call.context);
    if problem.kind.status() == 503 { problem.retry_after(context::RETRY_AFTER) } else { problem }
}
