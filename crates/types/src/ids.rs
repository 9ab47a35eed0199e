//! Ids that we make: UUID version 7 (RFC 9562), one newtype for each kind of thing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::{Builder, Uuid};

use crate::Timestamp;

/// The text is not a UUID in its canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("id must be a UUID")]
pub struct IdError;

/// Takes the ten random bytes of a version 7 UUID from two random words.
pub fn id_bytes_random(words: (u64, u64)) -> [u8; 10] {
    let mut bytes = [0; 10];
    let (head, tail) = bytes.split_at_mut(8);
    head.copy_from_slice(&words.0.to_le_bytes());
    for (to, from) in tail.iter_mut().zip(words.1.to_le_bytes()) {
        *to = from;
    }
    bytes
}

/// One newtype a kind of id, so that two ids of different things cannot be swapped.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Uuid);

        impl $name {
            /// A new id; `random` must come from a good source.
            pub fn new(now: Timestamp, random: [u8; 10]) -> Self {
                Self(Builder::from_unix_timestamp_millis(now.as_millis(), &random).into_uuid())
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let id = Uuid::try_parse(text).map_err(|_| IdError)?;
                // One spelling an id: no braces, no URN, no capitals.
                let mut canonical = Uuid::encode_buffer();
                if id.hyphenated().encode_lower(&mut canonical) != text {
                    return Err(IdError);
                }
                Ok(Self(id))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

id! {
    /// An order.
    OrderId
}
id! {
    /// A payment.
    PaymentId
}
id! {
    /// A refund of a payment.
    RefundId
}
id! {
    /// A registered user.
    UserUuid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_words_are_taken_whole_as_far_as_they_fit() {
        let bytes = id_bytes_random((0x0807_0605_0403_0201, 0xffff_ffff_ffff_0a09));
        assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    }

    #[test]
    fn ids_sort_by_time_and_have_one_spelling() {
        let early = OrderId::new(Timestamp::from_millis(1_000), [0xff; 10]);
        let late = OrderId::new(Timestamp::from_millis(1_001), [0; 10]);
        assert!(early.to_string() < late.to_string());
        assert_eq!(late.to_string().parse(), Ok(late));
        for bad in ["", "1", "{00000000-0000-7000-8000-000000000000}", "00000000-0000-7000-8000-00000000000A"]
        {
            assert_eq!(bad.parse::<OrderId>(), Err(IdError), "{bad}");
        }
    }
}
