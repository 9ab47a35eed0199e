//! Takes, looks up, undoes and refunds payments. Every call may be repeated with its key.
//!
//! The acquirer keeps our key for good, so a charge needs no intent of ours before it; one that
//! does not keep keys gets an intent first. Whatever has no durable outcome here is asked of the
//! acquirer, never assumed.

use std::time::Duration;

use futures_util::future::join_all;
use settle_ports::{
    Acquirer, AcquirerError, CallContext, ChargeOutcome, Database, DueReport, Durability, RefundOutcome,
    SqlError, Standing, World,
};
use settle_types::{
    FailureReason, Money, OperationKey, PaymentId, PaymentMethod, RefundId, Timestamp, UserId,
};

use crate::payment::{Illegal, Payment, Refund, RefundState, Status, Transfer};
use crate::store::{Store, StoreError, Versioned};

/// How often a write is tried again after somebody else changed the document.
const WRITE_TRIES_MAX: u32 = 5;
/// When recovery looks at an open outcome for the first time.
const LOOKUP_AFTER: Duration = Duration::from_secs(5);
/// How long recovery keeps a claimed payment to itself.
const LEASE: Duration = Duration::from_secs(15);
/// A charge that the acquirer still does not know after this is voided: later than any order's deadline.
const UNKNOWN_MAX: Duration = Duration::from_secs(15 * 60);

/// A request to take money once for `key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    pub key: OperationKey,
    pub order_id: UserId,
    pub amount: Money,
    pub method: Option<PaymentMethod>,
}

/// What `process` came to; all are answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Processed {
    Captured(Payment),
    Declined(Payment),
    Pending(Payment),
    Voided(Payment),
    ExistsWithDifferentAmount(Payment),
}

/// What `refund` came to; all are answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refunded {
    Done(Payment),
    Exists(Payment),
    ExistsWithDifferentAmount,
    ExceedsCaptured,
    NotCaptured,
    NotFound,
}

#[derive(Debug, thiserror::Error)]
pub enum PaymentError {
    /// Nothing happened; safe to retry.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// It may have happened: repeat with the same key, or look up.
    #[error("outcome unknown: {0}")]
    OutcomeUnknown(String),
    /// The acquirer knows the key with another amount than we do.
    #[error("the acquirer knows this key with another amount")]
    AmountMismatch,
    #[error("internal: {0}")]
    Internal(String),
}

impl From<StoreError> for PaymentError {
    fn from(error: StoreError) -> Self {
        match error {
            // After the acquirer's answer nothing is "not applied" any more: the caller asks again.
            StoreError::Stale | StoreError::Sql(SqlError::NotApplied(_) | SqlError::OutcomeUnknown(_)) => {
                PaymentError::OutcomeUnknown(error.to_string())
            }
            StoreError::Sql(_) | StoreError::Unreadable(_) => PaymentError::Internal(error.to_string()),
        }
    }
}

impl From<AcquirerError> for PaymentError {
    fn from(error: AcquirerError) -> Self {
        match error {
            AcquirerError::Unreachable(reason) => PaymentError::Unavailable(reason),
            AcquirerError::OutcomeUnknown(reason) => PaymentError::OutcomeUnknown(reason),
        }
    }
}

/// The payment service, over its ports.
pub struct Payments<W, D, A> {
    pub world: W,
    pub store: Store<D>,
    pub acquirer: A,
}

impl<W: World, D: Database, A: Acquirer> Payments<W, D, A> {
    pub fn new(world: W, database: D, acquirer: A) -> Self {
        Self { world, store: Store { database }, acquirer }
    }

    // ---- process ----

    /// Takes the amount once for the key.
    pub async fn process(&self, context: &CallContext, charge: &Charge) -> Result<Processed, PaymentError> {
        for _ in 0..WRITE_TRIES_MAX {
            let found = self.store.by_key(&charge.key).await?;
            if let Some(answer) = found.as_ref().and_then(|known| known_answer(&known.payment, charge.amount))
            {
                return Ok(answer);
            }
            match self.charge_once(context, charge, found).await {
                Err(StoreError::Stale) => {}
                Err(error) => return Err(error.into()),
                Ok(done) => return done,
            }
        }
        Err(StoreError::Stale.into())
    }

    /// One round: ask the acquirer, write what it said. Stale when somebody else wrote meanwhile:
    /// the next round answers by what they wrote.
    async fn charge_once(
        &self,
        context: &CallContext,
        charge: &Charge,
        found: Option<Versioned>,
    ) -> Result<Result<Processed, PaymentError>, StoreError> {
        let mut document = found.unwrap_or_else(|| self.new_document(charge));
        if document.version == 0 && !self.acquirer.remembers_keys() {
            let due = self.world.now().plus(LOOKUP_AFTER);
            self.store.write(&mut document, &[], Some(due), context, Durability::Durable).await?;
        }
        let outcome = match self.acquirer.charge(&charge.key, charge.amount, charge.method.as_ref()).await {
            Ok(outcome) => outcome,
            Err(error @ AcquirerError::Unreachable(_)) => return Ok(Err(error.into())),
            Err(error @ AcquirerError::OutcomeUnknown(_)) => {
                self.note_unknown(context, &mut document).await?;
                return Ok(Err(error.into()));
            }
        };
        let standing = match outcome {
            ChargeOutcome::Approved => {
                let returned = Money::new(0, charge.amount.currency());
                Standing::Taken { captured: charge.amount, returned }
            }
            ChargeOutcome::Declined(reason) => Standing::Declined(reason),
            ChargeOutcome::Pending(token) => Standing::Pending(token),
            ChargeOutcome::Voided => Standing::Voided,
            ChargeOutcome::DifferentAmount => return Ok(Err(PaymentError::AmountMismatch)),
        };
        match self.settle(context, &mut document, &standing).await {
            Ok(()) => {
                let answer = known_answer(&document.payment, charge.amount);
                Ok(Ok(answer.unwrap_or(Processed::Pending(document.payment))))
            }
            Err(StoreError::Stale) => {
                self.void_if_contradicted(context, &charge.key).await?;
                Err(StoreError::Stale)
            }
            Err(error) => Err(error),
        }
    }

    fn new_document(&self, charge: &Charge) -> Versioned {
        let now = self.world.now();
        let id = PaymentId::new(now, self.world.id_bytes());
        let payment = Payment::new(id, charge.key.clone(), charge.order_id.clone(), charge.amount, now);
        Versioned { payment, version: 0 }
    }

    /// The acquirer did not answer: recovery shall look it up. Not needed for safety, so relaxed.
    async fn note_unknown(&self, context: &CallContext, document: &mut Versioned) -> Result<(), StoreError> {
        let due = self.world.now().plus(LOOKUP_AFTER);
        self.store.write(document, &[], Some(due), context, Durability::Relaxed).await
    }

    /// A charge that the acquirer let through after a durable outcome without money: it is voided there.
    async fn void_if_contradicted(
        &self,
        context: &CallContext,
        key: &OperationKey,
    ) -> Result<(), StoreError> {
        let Some(known) = self.store.by_key(key).await? else { return Ok(()) };
        if !known.payment.undone && known.payment.status != Status::Declined {
            return Ok(());
        }
        self.world.log(
            "warn",
            &format!("a late charge of {key} contradicts a durable outcome: voiding"),
            context,
        );
        if let Err(error) = self.acquirer.void(key).await {
            self.world.log("error", &format!("voiding the late charge of {key}: {error}"), context);
        }
        Ok(())
    }

    // ---- lookup ----

    /// The payment under a key. `None`: neither we nor the acquirer ever saw it.
    pub async fn look_up(
        &self,
        context: &CallContext,
        key: &OperationKey,
        order_id: &UserId,
    ) -> Result<Option<Payment>, PaymentError> {
        for _ in 0..WRITE_TRIES_MAX {
            let found = self.store.by_key(key).await?;
            if let Some(known) = &found
                && known.payment.status.is_durable_outcome()
            {
                return Ok(Some(known.payment.clone()));
            }
            let standing = self.acquirer.lookup(key).await?;
            let Some(mut document) = found.or_else(|| self.document_from(key, order_id, &standing)) else {
                return Ok(None);
            };
            match self.settle(context, &mut document, &standing).await {
                Ok(()) => return Ok(Some(document.payment)),
                Err(StoreError::Stale) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Stale.into())
    }

    /// A document for a key that only the acquirer knows; only a capture names an amount.
    fn document_from(&self, key: &OperationKey, order_id: &UserId, standing: &Standing) -> Option<Versioned> {
        let Standing::Taken { captured, .. } = standing else { return None };
        let charge = Charge { key: key.clone(), order_id: order_id.clone(), amount: *captured, method: None };
        Some(self.new_document(&charge))
    }

    // ---- undo ----

    /// Returns all that is left under the key, or makes sure that nothing will ever be taken.
    /// `amount` describes a tombstone, for which nothing was charged; it never says what to return.
    pub async fn undo(
        &self,
        context: &CallContext,
        key: &OperationKey,
        order_id: &UserId,
        reason: &FailureReason,
        amount: Money,
    ) -> Result<Payment, PaymentError> {
        for _ in 0..WRITE_TRIES_MAX {
            let found = self.store.by_key(key).await?;
            if let Some(known) = &found
                && (known.payment.undone || known.payment.status == Status::Declined)
            {
                return Ok(known.payment.clone());
            }
            let standing = self.acquirer.void(key).await?;
            let captured = match &standing {
                Standing::Taken { captured, .. } => captured.minor(),
                Standing::Voided | Standing::Declined(_) => 0,
                Standing::Unknown | Standing::Pending(_) => {
                    return Err(PaymentError::OutcomeUnknown("the acquirer did not void".to_owned()));
                }
            };
            let mut document = found.unwrap_or_else(|| {
                let amount =
                    if let Standing::Taken { captured, .. } = &standing { *captured } else { amount };
                let charge = Charge { key: key.clone(), order_id: order_id.clone(), amount, method: None };
                self.new_document(&charge)
            });
            let transfers = document.payment.undo(captured);
            self.touch(&mut document);
            match self.store.write(&mut document, &transfers, None, context, Durability::Durable).await {
                Ok(()) => {
                    self.world.log("info", &format!("undone {key}: {reason}"), context);
                    return Ok(document.payment);
                }
                Err(StoreError::Stale) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Stale.into())
    }

    // ---- refund ----

    /// Returns `amount` (all that is left when absent), once for each refund key.
    pub async fn refund(
        &self,
        context: &CallContext,
        id: PaymentId,
        refund_key: &str,
        amount: Option<i64>,
        reason: FailureReason,
    ) -> Result<Refunded, PaymentError> {
        for _ in 0..WRITE_TRIES_MAX {
            let Some(mut document) = self.store.by_id(id).await? else { return Ok(Refunded::NotFound) };
            if let Some(earlier) = document.payment.refund_by_key(refund_key) {
                if amount.is_some_and(|amount| amount != earlier.amount_minor) {
                    return Ok(Refunded::ExistsWithDifferentAmount);
                }
                return match earlier.state {
                    RefundState::Done | RefundState::Superseded => Ok(Refunded::Exists(document.payment)),
                    RefundState::Failed => Ok(Refunded::ExceedsCaptured),
                    RefundState::Pending => self.finish_refund(context, document, refund_key).await,
                };
            }
            let refund = Refund {
                id: RefundId::new(self.world.now(), self.world.id_bytes()),
                key: refund_key.to_owned(),
                amount_minor: amount.unwrap_or_else(|| document.payment.refundable()),
                state: RefundState::Pending,
                reason: reason.clone(),
            };
            match document.payment.begin_refund(refund) {
                Ok(()) => {}
                Err(Illegal::ExceedsCaptured) => return Ok(Refunded::ExceedsCaptured),
                Err(Illegal::State(Status::Refunded)) => return Ok(Refunded::ExceedsCaptured),
                Err(Illegal::State(_)) => return Ok(Refunded::NotCaptured),
            }
            self.touch(&mut document);
            let due = self.world.now().plus(LOOKUP_AFTER);
            match self.store.write(&mut document, &[], Some(due), context, Durability::Durable).await {
                Ok(()) => return self.finish_refund(context, document, refund_key).await,
                Err(StoreError::Stale) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Stale.into())
    }

    /// Asks the acquirer for a refund whose intent is durable, and writes what it said.
    async fn finish_refund(
        &self,
        context: &CallContext,
        mut document: Versioned,
        refund_key: &str,
    ) -> Result<Refunded, PaymentError> {
        let id = document.payment.id;
        for _ in 0..WRITE_TRIES_MAX {
            let Some(refund) = document.payment.refund_by_key(refund_key) else {
                return Ok(Refunded::NotFound);
            };
            match refund.state {
                RefundState::Pending => {}
                RefundState::Failed => return Ok(Refunded::ExceedsCaptured),
                RefundState::Done | RefundState::Superseded => return Ok(Refunded::Done(document.payment)),
            }
            let amount = Money::new(refund.amount_minor, document.payment.amount.currency());
            let acquirer_key = format!("{id}/{refund_key}");
            let outcome = self.acquirer.refund(&document.payment.key, &acquirer_key, amount).await?;
            let done = outcome == RefundOutcome::Refunded;
            let transfer = document.payment.finish_refund(refund_key, done);
            let transfer = transfer.map_err(|error| PaymentError::Internal(error.to_string()))?;
            self.touch(&mut document);
            let due = document.payment.has_pending_refund().then(|| self.world.now().plus(LOOKUP_AFTER));
            let transfers: Vec<Transfer> = transfer.into_iter().collect();
            match self.store.write(&mut document, &transfers, due, context, Durability::Durable).await {
                Ok(()) if done => return Ok(Refunded::Done(document.payment)),
                Ok(()) => return Ok(Refunded::ExceedsCaptured),
                Err(StoreError::Stale) => {
                    let Some(again) = self.store.by_id(id).await? else { return Ok(Refunded::NotFound) };
                    document = again;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Stale.into())
    }

    // ---- recovery ----

    pub async fn oldest_due(&self) -> Result<Duration, PaymentError> {
        let now = self.store.database.now().await.map_err(StoreError::from)?;
        Ok(self.store.oldest_due(now).await?)
    }

    /// Asks the acquirer about outcomes that are still open, and finishes pending refunds.
    pub async fn resume_due(&self, context: &CallContext, limit: u32) -> Result<DueReport, PaymentError> {
        let now = self.store.database.now().await.map_err(StoreError::from)?;
        let oldest_due_ms = u64::try_from(self.store.oldest_due(now).await?.as_millis()).unwrap_or(u64::MAX);
        let due = self.store.claim_due(now, now.plus(LEASE), limit).await?;
        let resumed = u32::try_from(due.len()).unwrap_or(u32::MAX);
        let ended =
            join_all(due.into_iter().map(|document| self.resume_claimed(context, document, now))).await;
        let ended = u32::try_from(ended.iter().filter(|ended| **ended).count()).unwrap_or(u32::MAX);
        let deferred = resumed.saturating_sub(ended);
        Ok(DueReport { resumed, ended, deferred, more: resumed == limit, oldest_due_ms })
    }

    async fn resume_claimed(&self, context: &CallContext, document: Versioned, now: Timestamp) -> bool {
        let key = document.payment.key.clone();
        self.resume(context, document, now).await.unwrap_or_else(|error| {
            self.world.log("warn", &format!("recovery of {key}: {error}"), context);
            false
        })
    }

    /// True when nothing of the payment is open any more.
    async fn resume(
        &self,
        context: &CallContext,
        document: Versioned,
        now: Timestamp,
    ) -> Result<bool, PaymentError> {
        let payment = &document.payment;
        if payment.status.is_durable_outcome() {
            let pending = payment.refunds.iter().find(|refund| refund.state == RefundState::Pending);
            let Some(key) = pending.map(|refund| refund.key.clone()) else { return Ok(true) };
            self.finish_refund(context, document, &key).await?;
            return Ok(true);
        }
        let (key, order_id, amount) = (payment.key.clone(), payment.order_id.clone(), payment.amount);
        let age = now.since(payment.created_at);
        let found = self.look_up(context, &key, &order_id).await?;
        if found.is_some_and(|payment| payment.status.is_durable_outcome()) {
            return Ok(true);
        }
        if age < UNKNOWN_MAX {
            return Ok(false);
        }
        let reason = FailureReason::lossy("the acquirer never answered");
        self.undo(context, &key, &order_id, &reason, amount).await?;
        Ok(true)
    }

    // ---- writing what the acquirer said ----

    /// Brings a document without a durable outcome to what the acquirer says.
    async fn settle(
        &self,
        context: &CallContext,
        document: &mut Versioned,
        standing: &Standing,
    ) -> Result<(), StoreError> {
        let payment = &mut document.payment;
        let (changed, durability) = match standing {
            Standing::Taken { captured, returned } if returned.minor() == captured.minor() => {
                (Ok(payment.undo(captured.minor())), Durability::Durable)
            }
            Standing::Taken { .. } => (payment.capture().map(|transfer| vec![transfer]), Durability::Durable),
            Standing::Declined(reason) => {
                (payment.decline(reason.clone()).map(|()| Vec::new()), Durability::Durable)
            }
            Standing::Voided => (Ok(payment.undo(0)), Durability::Durable),
            Standing::Pending(_) => (payment.authorizing().map(|()| Vec::new()), Durability::Relaxed),
            // Nothing new: the document stays as it is, with its timer.
            Standing::Unknown => return Ok(()),
        };
        let transfers = changed.map_err(|_| StoreError::Stale)?;
        self.touch(document);
        let open = !document.payment.status.is_durable_outcome();
        let due = open.then(|| self.world.now().plus(LOOKUP_AFTER));
        self.store.write(document, &transfers, due, context, durability).await
    }

    fn touch(&self, document: &mut Versioned) {
        document.payment.updated_at = self.world.now().max(document.payment.updated_at);
    }
}

/// The answer that a document already gives, if it gives one.
fn known_answer(payment: &Payment, amount: Money) -> Option<Processed> {
    if payment.undone {
        // Whatever the amount: this key never takes money again.
        return Some(Processed::Voided(payment.clone()));
    }
    if payment.amount != amount {
        return Some(Processed::ExistsWithDifferentAmount(payment.clone()));
    }
    match payment.status {
        Status::Unknown | Status::Authorizing => None,
        Status::Declined => Some(Processed::Declined(payment.clone())),
        Status::Voided => Some(Processed::Voided(payment.clone())),
        Status::Captured | Status::PartiallyRefunded | Status::Refunded => {
            Some(Processed::Captured(payment.clone()))
        }
    }
}
