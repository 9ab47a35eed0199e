//! What an order is and which requests for one are accepted.

use serde::{Deserialize, Serialize};
use settle_types::{
    FailureReason, Money, MoneyError, OrderId, PaymentId, PaymentMethod, ProductId, Timestamp, UserId,
};

/// Most items in one order.
pub const ITEM_COUNT_MAX: usize = 100;
/// Most pieces of one item.
pub const QUANTITY_MAX: u32 = 10_000;

/// Where an order stands. An open set on the wire: clients must accept new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    PaymentPending,
    Paid,
    Completed,
    Compensating,
    NeedsAttention,
    PaymentFailed,
    Cancelled,
}

impl Status {
    pub const ALL: [Status; 7] = [
        Status::PaymentPending,
        Status::Paid,
        Status::Completed,
        Status::Compensating,
        Status::NeedsAttention,
        Status::PaymentFailed,
        Status::Cancelled,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Status::PaymentPending => "payment_pending",
            Status::Paid => "paid",
            Status::Completed => "completed",
            Status::Compensating => "compensating",
            Status::NeedsAttention => "needs_attention",
            Status::PaymentFailed => "payment_failed",
            Status::Cancelled => "cancelled",
        }
    }

    /// The saga has nothing left to do by itself: it ended, or waits for an operator.
    pub fn is_settled(self) -> bool {
        match self {
            Status::Completed | Status::PaymentFailed | Status::Cancelled | Status::NeedsAttention => true,
            Status::PaymentPending | Status::Paid | Status::Compensating => false,
        }
    }
}

impl std::str::FromStr for Status {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or(())
    }
}

/// Who asks. `issuer` and `subject` scope idempotency keys; `admin` may see and act for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub issuer: String,
    pub subject: UserId,
    pub admin: bool,
}

impl Caller {
    /// Whether this caller may see and change `order`.
    pub fn may_access(&self, order: &Order) -> bool {
        self.admin || self.subject == order.user_id
    }
}

/// One line of an order; immutable once placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    pub product_id: ProductId,
    pub quantity: u32,
    pub unit_price: Money,
}

/// The rule that a request breaks; shown to the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleBroken {
    #[error("an order needs at least one item")]
    NoItems,
    #[error("an order has at most {ITEM_COUNT_MAX} items")]
    TooManyItems,
    #[error("items[{0}].quantity must be from 1 to {QUANTITY_MAX}")]
    BadQuantity(usize),
    #[error("items[{0}].unit_price: {1}")]
    BadPrice(usize, MoneyError),
    #[error("the total: {0}")]
    BadTotal(MoneyError),
    #[error("only an administrator may order for another user")]
    ForAnotherUser,
}

/// An accepted request for an order: every rule holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewOrder {
    user_id: UserId,
    items: Vec<Item>,
    total: Money,
    method: Option<PaymentMethod>,
}

impl NewOrder {
    /// Checks every rule. `user_id` is the caller when absent.
    pub fn parse(
        caller: &Caller,
        user_id: Option<UserId>,
        items: Vec<Item>,
        method: Option<PaymentMethod>,
    ) -> Result<Self, RuleBroken> {
        let user_id = user_id.unwrap_or_else(|| caller.subject.clone());
        if !caller.admin && user_id != caller.subject {
            return Err(RuleBroken::ForAnotherUser);
        }
        if items.len() > ITEM_COUNT_MAX {
            return Err(RuleBroken::TooManyItems);
        }
        let total = total_of(&items)?;
        Ok(Self { user_id, items, total, method })
    }

    pub fn total(&self) -> Money {
        self.total
    }

    pub fn items(&self) -> &[Item] {
        &self.items
    }

    pub fn user_id(&self) -> &UserId {
        &self.user_id
    }

    pub fn method(&self) -> Option<&PaymentMethod> {
        self.method.as_ref()
    }
}

fn total_of(items: &[Item]) -> Result<Money, RuleBroken> {
    let mut total: Option<Money> = None;
    for (index, item) in items.iter().enumerate() {
        if item.quantity == 0 || item.quantity > QUANTITY_MAX {
            return Err(RuleBroken::BadQuantity(index));
        }
        let price = Money::positive(item.unit_price.minor(), item.unit_price.currency())
            .map_err(|error| RuleBroken::BadPrice(index, error))?;
        let line = price.checked_mul(item.quantity).map_err(RuleBroken::BadTotal)?;
        total = Some(match total {
            None => line,
            Some(sum) => sum.checked_add(line).map_err(RuleBroken::BadTotal)?,
        });
    }
    total.ok_or(RuleBroken::NoItems)
}

/// An order as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub id: OrderId,
    pub user_id: UserId,
    pub status: Status,
    pub failure_reason: Option<FailureReason>,
    pub total: Money,
    pub items: Vec<Item>,
    pub payment_id: Option<PaymentId>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;
    use settle_types::Currency;

    fn caller(admin: bool) -> Caller {
        Caller { issuer: "i".into(), subject: "alice".parse().unwrap(), admin }
    }

    fn item(quantity: u32, minor: i64, currency: &str) -> Item {
        let unit_price = Money::new(minor, Currency::parse(currency).unwrap());
        Item { product_id: "p".parse().unwrap(), quantity, unit_price }
    }

    #[test]
    fn only_orders_that_keep_every_rule_are_accepted() {
        use MoneyError::{MixedCurrencies, NotPositive, Overflow};
        let rows: Vec<(Vec<Item>, Result<i64, RuleBroken>)> = vec![
            (vec![item(2, 1250, "EUR"), item(1, 1, "EUR")], Ok(2501)),
            (vec![], Err(RuleBroken::NoItems)),
            (vec![item(1, 1, "EUR"); 100], Ok(100)),
            (vec![item(1, 1, "EUR"); 101], Err(RuleBroken::TooManyItems)),
            (vec![item(10_000, 1, "EUR")], Ok(10_000)),
            (vec![item(0, 1, "EUR")], Err(RuleBroken::BadQuantity(0))),
            (vec![item(1, 1, "EUR"), item(10_001, 1, "EUR")], Err(RuleBroken::BadQuantity(1))),
            (vec![item(1, 0, "EUR")], Err(RuleBroken::BadPrice(0, NotPositive))),
            (vec![item(1, -5, "EUR")], Err(RuleBroken::BadPrice(0, NotPositive))),
            (vec![item(2, i64::MAX, "EUR")], Err(RuleBroken::BadTotal(Overflow))),
            (vec![item(1, i64::MAX, "EUR"), item(1, 1, "EUR")], Err(RuleBroken::BadTotal(Overflow))),
            (vec![item(1, 1, "EUR"), item(1, 1, "USD")], Err(RuleBroken::BadTotal(MixedCurrencies))),
        ];
        for (items, expected) in rows {
            let total = NewOrder::parse(&caller(false), None, items, None).map(|o| o.total().minor());
            assert_eq!(total, expected);
        }
    }

    #[test]
    fn only_an_administrator_orders_for_another_user() {
        let bob: UserId = "bob".parse().unwrap();
        let parse = |admin| {
            NewOrder::parse(&caller(admin), Some(bob.clone()), vec![item(1, 1, "EUR")], None)
                .map(|o| o.user_id)
        };
        assert_eq!(parse(false), Err(RuleBroken::ForAnotherUser));
        assert_eq!(parse(true), Ok(bob.clone()));
    }

    #[test]
    fn status_names_round_trip() {
        for status in Status::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
    }
}
