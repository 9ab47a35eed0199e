//! Short texts with a limit: ids that clients choose, keys, reasons.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::OrderId;

/// Why a text is refused. The first field names what it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    #[error("{0} must not be empty")]
    Empty(&'static str),
    #[error("{0} is longer than {1} bytes")]
    TooLong(&'static str, usize),
    #[error("{0} has a character that is not allowed")]
    BadCharacter(&'static str),
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $what:literal, $bytes_max:literal, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub const BYTES_MAX: usize = $bytes_max;

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = TextError;
            fn try_from(text: String) -> Result<Self, TextError> {
                let allowed: fn(char) -> bool = $allowed;
                if text.is_empty() {
                    Err(TextError::Empty($what))
                } else if text.len() > Self::BYTES_MAX {
                    Err(TextError::TooLong($what, Self::BYTES_MAX))
                } else if !text.chars().all(allowed) {
                    Err(TextError::BadCharacter($what))
                } else {
                    Ok(Self(text))
                }
            }
        }

        impl FromStr for $name {
            type Err = TextError;
            fn from_str(text: &str) -> Result<Self, TextError> {
                text.to_owned().try_into()
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> String {
                text.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text! {
    /// Whose order it is: a registered user's id or a client's own opaque text.
    UserId, "user_id", 128, |c| !c.is_control()
}
text! {
    /// What is sold, as the shop names it.
    ProductId, "product_id", 128, |c| !c.is_control()
}
text! {
    /// A payment instrument, as the acquirer names it.
    PaymentMethod, "payment_method", 128, |c| c.is_ascii_graphic()
}
text! {
    /// A client's name for one request that it may repeat (`Idempotency-Key`).
    IdempotencyKey, "Idempotency-Key", 255, |c| c.is_ascii_graphic()
}
text! {
    /// Names one operation of ours at another service, so that a retry is the same operation.
    OperationKey, "operation key", 255, |c| c.is_ascii_graphic()
}
text! {
    /// Why an order or a payment did not succeed; safe to show to a client.
    FailureReason, "failure reason", 255, |c| !c.is_control()
}

impl OperationKey {
    /// The key of the charge of an order: derived, so that every retry, by any owner, is the same call.
    pub fn charge_of(order: OrderId) -> Self {
        Self(format!("{order}/charge"))
    }
}

impl FailureReason {
    /// A reason from a text of another system: cut to the limit, controls replaced.
    pub fn lossy(text: &str) -> Self {
        let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let mut end = clean.len().min(Self::BYTES_MAX);
        while !clean.is_char_boundary(end) {
            end -= 1;
        }
        let (kept, _) = clean.split_at(end);
        Self(if kept.is_empty() { "unknown".to_owned() } else { kept.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_bounded_and_clean() {
        assert_eq!("".parse::<UserId>(), Err(TextError::Empty("user_id")));
        assert_eq!("x".repeat(129).parse::<UserId>(), Err(TextError::TooLong("user_id", 128)));
        assert_eq!("a\nb".parse::<ProductId>(), Err(TextError::BadCharacter("product_id")));
        assert_eq!("ключ".parse::<IdempotencyKey>(), Err(TextError::BadCharacter("Idempotency-Key")));
        assert!("客户-1".parse::<UserId>().is_ok());
    }

    #[test]
    fn a_foreign_reason_is_cut_at_a_character() {
        let reason = FailureReason::lossy(&"é".repeat(300));
        assert!(reason.as_str().len() <= FailureReason::BYTES_MAX);
        assert_eq!(FailureReason::lossy("\n").as_str(), " ");
        assert_eq!(FailureReason::lossy("").as_str(), "unknown");
    }
}
