//! The payment: one document, and what each change of it moves in the ledger. Pure.

use serde::{Deserialize, Serialize};
use settle_types::{FailureReason, Money, OperationKey, PaymentId, RefundId, Timestamp, UserId};

/// Where a payment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The acquirer has not decided.
    Authorizing,
    /// The acquirer has not said.
    Unknown,
    Captured,
    Declined,
    /// Undone before anything was taken.
    Voided,
    PartiallyRefunded,
    Refunded,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Authorizing => "authorizing",
            Status::Unknown => "unknown",
            Status::Captured => "captured",
            Status::Declined => "declined",
            Status::Voided => "voided",
            Status::PartiallyRefunded => "partially_refunded",
            Status::Refunded => "refunded",
        }
    }

    /// The acquirer has decided, and its decision is in the document.
    pub fn is_durable_outcome(self) -> bool {
        match self {
            Status::Authorizing | Status::Unknown => false,
            Status::Captured
            | Status::Declined
            | Status::Voided
            | Status::PartiallyRefunded
            | Status::Refunded => true,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefundState {
    /// The intent is durable; the acquirer may or may not have done it.
    Pending,
    Done,
    /// The acquirer refused it; nothing was returned.
    Failed,
    /// The whole payment was undone meanwhile; the undo's amount includes it.
    Superseded,
}

/// A refund of part of a payment, named by the client's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refund {
    pub id: RefundId,
    pub key: String,
    pub amount_minor: i64,
    pub state: RefundState,
    pub reason: FailureReason,
}

/// The document of one payment. The first durable outcome wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    pub id: PaymentId,
    pub key: OperationKey,
    /// Opaque here: whatever the caller calls its order.
    pub order_id: UserId,
    pub status: Status,
    pub amount: Money,
    pub captured: i64,
    pub refunded: i64,
    /// All was given back by key; a `process` with this key takes nothing, ever.
    #[serde(default)]
    pub undone: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decline_reason: Option<FailureReason>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refunds: Vec<Refund>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// The accounts of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// What the acquirer holds for us.
    Acquirer,
    /// What customers paid.
    Customer,
    /// What customers got back.
    Refunds,
}

impl Account {
    pub fn as_str(self) -> &'static str {
        match self {
            Account::Acquirer => "acquirer",
            Account::Customer => "customer",
            Account::Refunds => "refunds",
        }
    }
}

/// One balanced ledger entry: the same amount leaves one account and enters another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    pub debit: Account,
    pub credit: Account,
    pub amount: Money,
}

/// The document's state does not allow the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    #[error("the payment is {}", .0.as_str())]
    State(Status),
    #[error("more than is left of the payment")]
    ExceedsCaptured,
}

impl Payment {
    pub fn new(id: PaymentId, key: OperationKey, order_id: UserId, amount: Money, now: Timestamp) -> Self {
        Self {
            id,
            key,
            order_id,
            status: Status::Unknown,
            amount,
            captured: 0,
            refunded: 0,
            undone: false,
            decline_reason: None,
            refunds: Vec::new(),
            created_at: now,
            updated_at: now,
        }
    }

    /// What can still be refunded: captured, less refunds done or on their way.
    pub fn refundable(&self) -> i64 {
        let pending: i64 =
            self.refunds.iter().filter(|r| r.state == RefundState::Pending).map(|r| r.amount_minor).sum();
        self.captured.saturating_sub(self.refunded).saturating_sub(pending)
    }

    pub fn has_pending_refund(&self) -> bool {
        self.refunds.iter().any(|refund| refund.state == RefundState::Pending)
    }

    pub fn refund_by_key(&self, key: &str) -> Option<&Refund> {
        self.refunds.iter().find(|refund| refund.key == key)
    }

    fn minor(&self, minor: i64) -> Money {
        Money::new(minor, self.amount.currency())
    }

    /// The acquirer took the amount.
    pub fn capture(&mut self) -> Result<Transfer, Illegal> {
        self.must_be_open()?;
        self.status = Status::Captured;
        self.captured = self.amount.minor();
        Ok(Transfer { debit: Account::Acquirer, credit: Account::Customer, amount: self.amount })
    }

    /// The acquirer refused for good.
    pub fn decline(&mut self, reason: FailureReason) -> Result<(), Illegal> {
        self.must_be_open()?;
        self.status = Status::Declined;
        self.decline_reason = Some(reason);
        Ok(())
    }

    /// The acquirer will decide later.
    pub fn authorizing(&mut self) -> Result<(), Illegal> {
        self.must_be_open()?;
        self.status = Status::Authorizing;
        Ok(())
    }

    /// The acquirer holds nothing under this key any more: `captured` was taken in all and all of
    /// it went back. With nothing captured the document is a tombstone.
    pub fn undo(&mut self, captured: i64) -> Vec<Transfer> {
        let mut transfers = Vec::new();
        if captured > self.captured {
            // Taken, but never recorded here: the ledger must show it before it shows the return.
            let missing = self.minor(captured.saturating_sub(self.captured));
            transfers.push(Transfer { debit: Account::Acquirer, credit: Account::Customer, amount: missing });
            self.captured = captured;
        }
        let left = self.captured.saturating_sub(self.refunded);
        if left > 0 {
            transfers.push(self.give_back(left));
        }
        for refund in self.refunds.iter_mut().filter(|r| r.state == RefundState::Pending) {
            refund.state = RefundState::Superseded;
        }
        self.undone = true;
        self.status = if self.captured > 0 { Status::Refunded } else { Status::Voided };
        transfers
    }

    /// Notes the intent of a refund: from now on nobody can refund that amount twice.
    pub fn begin_refund(&mut self, refund: Refund) -> Result<(), Illegal> {
        match self.status {
            Status::Captured | Status::PartiallyRefunded => {}
            status => return Err(Illegal::State(status)),
        }
        if refund.amount_minor <= 0 || refund.amount_minor > self.refundable() {
            return Err(Illegal::ExceedsCaptured);
        }
        self.refunds.push(refund);
        Ok(())
    }

    /// The acquirer returned (or refused to return) a refund whose intent is pending.
    pub fn finish_refund(&mut self, key: &str, done: bool) -> Result<Option<Transfer>, Illegal> {
        let status = self.status;
        let pending = self.refunds.iter_mut().find(|r| r.key == key && r.state == RefundState::Pending);
        let refund = pending.ok_or(Illegal::State(status))?;
        if !done {
            refund.state = RefundState::Failed;
            return Ok(None);
        }
        refund.state = RefundState::Done;
        let amount = refund.amount_minor;
        let transfer = self.give_back(amount);
        let all = self.refunded >= self.captured;
        self.status = if all { Status::Refunded } else { Status::PartiallyRefunded };
        Ok(Some(transfer))
    }

    fn give_back(&mut self, minor: i64) -> Transfer {
        self.refunded = self.refunded.saturating_add(minor);
        Transfer { debit: Account::Refunds, credit: Account::Acquirer, amount: self.minor(minor) }
    }

    fn must_be_open(&self) -> Result<(), Illegal> {
        if self.status.is_durable_outcome() { Err(Illegal::State(self.status)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use settle_types::Currency;

    fn payment() -> Payment {
        let now = Timestamp::from_millis(1);
        let amount = Money::new(1000, Currency::parse("EUR").unwrap());
        Payment::new(PaymentId::new(now, [0; 10]), "k".parse().unwrap(), "o".parse().unwrap(), amount, now)
    }

    fn captured() -> Payment {
        let mut payment = payment();
        payment.capture().unwrap();
        payment
    }

    fn refund(key: &str, amount_minor: i64) -> Refund {
        let id = RefundId::new(Timestamp::from_millis(1), [0; 10]);
        Refund {
            id,
            key: key.into(),
            amount_minor,
            state: RefundState::Pending,
            reason: FailureReason::lossy("r"),
        }
    }

    /// What the ledger says of a list of transfers: taken, returned.
    fn ledger(transfers: &[Transfer]) -> (i64, i64) {
        let sum = |account| transfers.iter().filter(|t| t.debit == account).map(|t| t.amount.minor()).sum();
        (sum(Account::Acquirer), sum(Account::Refunds))
    }

    #[test]
    fn a_status_has_one_name_on_the_wire_and_in_the_document() {
        use Status::{Authorizing, Captured, Declined, PartiallyRefunded, Refunded, Unknown, Voided};
        for status in [Authorizing, Unknown, Captured, Declined, Voided, PartiallyRefunded, Refunded] {
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
    }

    #[test]
    fn the_first_durable_outcome_wins() {
        let mut payment = captured();
        assert_eq!(payment.decline(FailureReason::lossy("late")), Err(Illegal::State(Status::Captured)));
        assert_eq!(payment.capture(), Err(Illegal::State(Status::Captured)));
        payment.undo(1000);
        assert_eq!(payment.capture(), Err(Illegal::State(Status::Refunded)));
    }

    #[test]
    fn refunds_done_and_pending_never_exceed_what_was_captured() {
        let mut payment = captured();
        payment.begin_refund(refund("a", 600)).unwrap();
        assert_eq!(payment.begin_refund(refund("b", 401)), Err(Illegal::ExceedsCaptured));
        payment.begin_refund(refund("b", 400)).unwrap();
        assert_eq!(payment.begin_refund(refund("c", 1)), Err(Illegal::ExceedsCaptured));
        assert_eq!(payment.finish_refund("b", false), Ok(None));
        payment.begin_refund(refund("c", 400)).unwrap();
        let first = payment.finish_refund("a", true).unwrap().unwrap();
        assert_eq!((payment.status, payment.refunded), (Status::PartiallyRefunded, 600));
        let last = payment.finish_refund("c", true).unwrap().unwrap();
        assert_eq!((payment.status, payment.refunded), (Status::Refunded, 1000));
        assert_eq!(ledger(&[first, last]), (0, 1000));
    }

    #[test]
    fn only_positive_refunds_of_a_captured_payment_are_accepted() {
        assert_eq!(payment().begin_refund(refund("a", 1)), Err(Illegal::State(Status::Unknown)));
        assert_eq!(captured().begin_refund(refund("a", 0)), Err(Illegal::ExceedsCaptured));
        assert_eq!(captured().begin_refund(refund("a", -1)), Err(Illegal::ExceedsCaptured));
    }

    #[test]
    fn undo_returns_all_that_is_left_whatever_was_recorded() {
        let mut tombstone = payment();
        assert_eq!(tombstone.undo(0), vec![]);
        assert_eq!((tombstone.status, tombstone.undone), (Status::Voided, true));

        let mut unrecorded = payment();
        assert_eq!(ledger(&unrecorded.undo(1000)), (1000, 1000));
        assert_eq!((unrecorded.captured, unrecorded.refunded), (1000, 1000));

        let mut partly = captured();
        partly.begin_refund(refund("a", 300)).unwrap();
        partly.finish_refund("a", true).unwrap();
        partly.begin_refund(refund("b", 200)).unwrap();
        assert_eq!(ledger(&partly.undo(1000)), (0, 700));
        assert_eq!(partly.refund_by_key("b").unwrap().state, RefundState::Superseded);
        assert_eq!(partly.finish_refund("b", true), Err(Illegal::State(Status::Refunded)));
        assert_eq!(partly.undo(1000), vec![], "idempotent");
    }
}
