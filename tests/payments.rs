//! The payment driver, natively, on a real database: takes once, undoes for good, never refunds too much.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use settle_payment_core::{Payment, PaymentError, Processed, Refunded, SCHEMA, Status};
use settle_ports::{Acquirer as _, Database as _, Durability, Schema, Standing, sql};
use settle_tests::native::{CallFault, DbFault, context};
use settle_tests::till::{KEY, TOTAL, Till, eur, key};
use settle_types::Timestamp;

use CallFault::{AnswerLost, Declined, NotSent, Pending};

// ---- process ----

#[tokio::test]
async fn a_repeated_charge_answers_the_same_payment_and_takes_once() {
    let till = Till::open().await;
    let first = till.captured().await;
    assert_eq!(till.captured().await, first);
    assert!(matches!(till.process(TOTAL + 1).await, Ok(Processed::ExistsWithDifferentAmount(_))));
    assert_eq!(till.acquirer.money(KEY), (TOTAL, 0));
    assert_eq!(*till.acquirer.calls.borrow(), ["charge"]);
    assert_eq!(till.service.store.by_order("order-1", 10).await.unwrap(), [first]);
    assert_eq!(till.service.store.by_order("order-2", 10).await.unwrap(), []);
    till.assert_books().await;
}

#[tokio::test]
async fn racing_charges_with_one_key_take_once() {
    let till = Till::open().await;
    let (a, b, c) = tokio::join!(till.captured(), till.captured(), till.captured());
    assert_eq!((a.id, b.id), (b.id, c.id));
    assert_eq!(till.acquirer.money(KEY), (TOTAL, 0));
    till.assert_books().await;
}

#[tokio::test]
async fn a_lost_answer_of_the_acquirer_is_unknown_and_found_by_the_same_key() {
    let till = Till::open().await;
    till.acquirer.script([AnswerLost]);
    assert!(matches!(till.process(TOTAL).await, Err(PaymentError::OutcomeUnknown(_))));
    assert_eq!(till.captured().await.status, Status::Captured);
    assert_eq!(till.acquirer.money(KEY), (TOTAL, 0));
    till.assert_books().await;
}

#[tokio::test]
async fn an_acquirer_that_is_not_reached_leaves_nothing_behind() {
    let till = Till::open().await;
    till.acquirer.script([NotSent]);
    assert!(matches!(till.process(TOTAL).await, Err(PaymentError::Unavailable(_))));
    assert_eq!(till.look_up().await.unwrap(), None);
}

#[tokio::test]
async fn a_declined_payment_stays_declined() {
    let till = Till::open().await;
    till.acquirer.script([Declined]);
    assert!(matches!(till.process(TOTAL).await, Ok(Processed::Declined(_))));
    assert!(matches!(till.process(TOTAL).await, Ok(Processed::Declined(_))));
    assert_eq!(till.acquirer.money(KEY), (0, 0));
}

#[tokio::test]
async fn an_acquirer_that_forgets_keys_gets_an_intent_of_ours_first() {
    let till = Till::open().await;
    till.acquirer.forgetful.set(true);
    till.database.fail_write(0, DbFault::NotApplied);
    assert!(till.process(TOTAL).await.is_err());
    assert!(till.acquirer.calls.borrow().is_empty(), "no charge without the intent");
    assert_eq!(till.captured().await.status, Status::Captured);
    assert_eq!(till.database.writes.borrow().len(), 3, "the failed intent, the intent, the outcome");
}

// ---- undo ----

#[tokio::test]
async fn a_late_process_after_undo_takes_nothing() {
    let till = Till::open().await;
    let tombstone = till.undo().await.unwrap();
    assert_eq!((tombstone.status, tombstone.captured), (Status::Voided, 0));
    assert!(matches!(till.process(TOTAL).await, Ok(Processed::Voided(_))));
    assert!(matches!(till.process(TOTAL + 1).await, Ok(Processed::Voided(_))));
    assert_eq!(till.acquirer.money(KEY), (0, 0));
    // Even one that reaches the acquirer, past our own tombstone, is refused there.
    let outcome = till.acquirer.charge(&key(), eur(TOTAL), None).await.unwrap();
    assert_eq!(outcome, settle_ports::ChargeOutcome::Voided);
    till.assert_books().await;
}

#[tokio::test]
async fn undo_is_idempotent_and_returns_all_that_was_taken() {
    let till = Till::open().await;
    till.captured().await;
    till.acquirer.script([AnswerLost]);
    assert!(matches!(till.undo().await, Err(PaymentError::OutcomeUnknown(_))));
    for _ in 0..2 {
        let undone = till.undo().await.unwrap();
        assert_eq!((undone.status, undone.captured, undone.refunded), (Status::Refunded, TOTAL, TOTAL));
    }
    assert_eq!(till.acquirer.money(KEY), (TOTAL, TOTAL));
    till.assert_books().await;
}

#[tokio::test]
async fn undo_asks_the_acquirer_when_payment_has_no_outcome_of_its_own() {
    let till = Till::open().await;
    till.acquirer.script([AnswerLost]);
    assert!(till.process(TOTAL).await.is_err());
    let undone = till.undo().await.unwrap();
    assert_eq!((undone.captured, undone.refunded), (TOTAL, TOTAL));
    till.assert_books().await;
}

#[tokio::test]
async fn undo_racing_a_charge_leaves_nothing_taken() {
    let till = Till::open().await;
    let (processed, undone) = tokio::join!(till.process(TOTAL), till.undo());
    undone.unwrap();
    let (captured, returned) = till.acquirer.money(KEY);
    assert_eq!(captured, returned, "{processed:?}");
    let after = till.process(TOTAL).await.unwrap();
    assert!(matches!(after, Processed::Voided(_)), "{after:?}");
    till.assert_books().await;
}

#[tokio::test]
async fn a_charge_that_a_poor_acquirer_lets_through_after_the_undo_is_voided_there() {
    let till = Till::open().await;
    till.acquirer.held_up.set(true);
    let undone_meanwhile = async {
        while till.acquirer.calls.borrow().is_empty() {
            tokio::task::yield_now().await;
        }
        till.undo().await.unwrap();
        till.acquirer.forget(&key());
        till.acquirer.held_up.set(false);
    };
    let (processed, ()) = tokio::join!(till.process(TOTAL), undone_meanwhile);
    assert!(matches!(processed, Ok(Processed::Voided(_))), "{processed:?}");
    assert_eq!(*till.acquirer.calls.borrow(), ["charge", "void", "void"]);
    assert_eq!(till.acquirer.money(KEY), (TOTAL, TOTAL));
    till.assert_books().await;
}

#[tokio::test]
async fn what_is_over_is_not_asked_of_the_acquirer_again() {
    let till = Till::open().await;
    till.undo().await.unwrap();
    till.undo().await.unwrap();
    assert_eq!(*till.acquirer.calls.borrow(), ["void"]);
    let till = Till::open().await;
    till.acquirer.script([Declined]);
    till.process(TOTAL).await.unwrap();
    assert_eq!(till.undo().await.unwrap().status, Status::Declined);
    assert_eq!(*till.acquirer.calls.borrow(), ["charge"]);
}

#[tokio::test]
async fn a_crash_at_every_write_of_charge_and_undo_can_be_repeated() {
    for fault in [DbFault::NotApplied, DbFault::UnknownNotDone, DbFault::UnknownDone] {
        for write in 0..2 {
            let till = Till::open().await;
            till.database.fail_write(write, fault);
            let _ = till.process(TOTAL).await;
            let _ = till.undo().await;
            let undone = till.undo().await.unwrap();
            assert!(undone.undone);
            let (captured, returned) = till.acquirer.money(KEY);
            assert_eq!(captured, returned, "{fault:?} at write {write}");
            till.assert_books().await;
        }
    }
}

// ---- lookup ----

#[tokio::test]
async fn a_lookup_writes_what_only_the_acquirer_knew() {
    let till = Till::open().await;
    till.database.fail_write(0, DbFault::NotApplied); // charged, and the host died before it was written
    assert!(till.process(TOTAL).await.is_err());
    let found = till.look_up().await.unwrap().unwrap();
    assert_eq!((found.status, found.captured), (Status::Captured, TOTAL));
    till.assert_books().await;
}

#[tokio::test]
async fn a_pending_charge_is_settled_by_a_lookup() {
    let till = Till::open().await;
    till.acquirer.script([Pending]);
    assert!(matches!(till.process(TOTAL).await, Ok(Processed::Pending(_))));
    assert_eq!(till.look_up().await.unwrap().unwrap().status, Status::Authorizing);
    till.acquirer.void(&key()).await.unwrap();
    assert_eq!(till.look_up().await.unwrap().unwrap().status, Status::Voided);
}

#[tokio::test]
async fn a_lookup_finds_money_that_was_returned_without_us() {
    let till = Till::open().await;
    till.acquirer.script([AnswerLost]);
    till.process(TOTAL).await.unwrap_err();
    till.acquirer.void(&key()).await.unwrap();
    till.world.advance(Duration::from_secs(1));
    let found = till.look_up().await.unwrap().unwrap();
    assert_eq!((found.status, found.captured, found.refunded), (Status::Refunded, TOTAL, TOTAL));
    assert!(found.undone && found.updated_at > found.created_at);
    till.assert_books().await;
}

// ---- refunds ----

#[tokio::test]
async fn only_the_first_version_of_a_document_may_be_lost() {
    // The number of a later one would be given again, and guard a write that must not be.
    use settle_ports::Durability::{Durable, Relaxed};
    let till = Till::open().await;
    till.acquirer.script([Pending, Pending]);
    till.process(TOTAL).await.unwrap();
    assert_eq!(*till.database.writes.borrow(), [Relaxed]);
    till.process(TOTAL).await.unwrap();
    assert_eq!(*till.database.writes.borrow(), [Relaxed, Durable]);
}

#[tokio::test]
async fn refunds_are_once_for_each_key_and_never_over_what_is_left() {
    let till = Till::open().await;
    let payment = till.captured().await;
    assert!(matches!(till.refund(&payment, "r1", Some(300)).await, Ok(Refunded::Done(_))));
    assert!(matches!(till.refund(&payment, "r1", Some(300)).await, Ok(Refunded::Exists(_))));
    assert!(matches!(till.refund(&payment, "r1", Some(299)).await, Ok(Refunded::ExistsWithDifferentAmount)));
    assert!(matches!(till.refund(&payment, "r2", Some(201)).await, Ok(Refunded::ExceedsCaptured)));
    let Ok(Refunded::Done(last)) = till.refund(&payment, "r3", None).await else { panic!() };
    assert_eq!((last.status, last.refunded), (Status::Refunded, TOTAL));
    assert!(matches!(till.refund(&payment, "r4", Some(1)).await, Ok(Refunded::ExceedsCaptured)));
    assert_eq!(till.acquirer.money(KEY), (TOTAL, TOTAL));
    till.assert_books().await;
}

#[tokio::test]
async fn racing_refunds_never_return_more_than_was_taken() {
    let till = Till::open().await;
    let payment = till.captured().await;
    let outcomes = tokio::join!(
        till.refund(&payment, "a", Some(300)),
        till.refund(&payment, "b", Some(300)),
        till.refund(&payment, "c", Some(300)),
    );
    let done =
        [outcomes.0, outcomes.1, outcomes.2].iter().filter(|o| matches!(o, Ok(Refunded::Done(_)))).count();
    assert_eq!(done, 1);
    assert_eq!(till.acquirer.money(KEY), (TOTAL, 300));
    till.assert_books().await;
}

#[tokio::test]
async fn an_unknown_refund_is_finished_by_recovery_under_its_own_key() {
    let till = Till::open().await;
    let payment = till.captured().await;
    till.acquirer.script([AnswerLost]);
    assert!(matches!(till.refund(&payment, "r", Some(200)).await, Err(PaymentError::OutcomeUnknown(_))));
    // One that ends meanwhile leaves the other to recovery.
    assert!(matches!(till.refund(&payment, "s", Some(100)).await, Ok(Refunded::Done(_))));
    for resumed in [1, 0] {
        till.world.advance(Duration::from_secs(20));
        let report = till.service.resume_due(&context(&till.world), 16).await.unwrap();
        assert_eq!((report.resumed, report.ended), (resumed, resumed));
    }
    assert!(matches!(till.refund(&payment, "r", Some(200)).await, Ok(Refunded::Exists(_))));
    assert_eq!(till.acquirer.money(KEY), (TOTAL, 300));
    till.assert_books().await;
}

#[tokio::test]
async fn a_refund_that_the_acquirer_refuses_returns_nothing() {
    let till = Till::open().await;
    let payment = till.captured().await;
    till.acquirer.void(&key()).await.unwrap(); // it gave the money back by itself
    assert!(matches!(till.refund(&payment, "r", Some(200)).await, Ok(Refunded::ExceedsCaptured)));
    assert!(matches!(till.refund(&payment, "r", Some(200)).await, Ok(Refunded::ExceedsCaptured)));
}

#[tokio::test]
async fn only_a_captured_payment_is_refunded() {
    let till = Till::open().await;
    till.acquirer.script([Declined]);
    let Ok(Processed::Declined(payment)) = till.process(TOTAL).await else { panic!() };
    assert!(matches!(till.refund(&payment, "r", None).await, Ok(Refunded::NotCaptured)));
    let nobody = Payment { id: settle_types::PaymentId::new(payment.created_at, [9; 10]), ..payment };
    assert!(matches!(till.refund(&nobody, "r", None).await, Ok(Refunded::NotFound)));
}

// ---- recovery, ledger ----

#[tokio::test]
async fn an_open_outcome_is_looked_up_by_recovery_in_its_time() {
    for (fault, status) in [(AnswerLost, Status::Captured), (Pending, Status::Voided)] {
        let till = Till::open().await;
        till.acquirer.script([fault]);
        let _ = till.process(TOTAL).await;
        let resume = async || till.service.resume_due(&context(&till.world), 1).await.unwrap();
        till.world.advance(Duration::from_millis(4_999));
        assert_eq!(resume().await.resumed, 0, "{fault:?}");
        till.world.advance(Duration::from_millis(2_001));
        assert_eq!(till.service.oldest_due().await.unwrap(), Duration::from_secs(2));
        if fault == Pending {
            till.acquirer.void(&key()).await.unwrap();
        }
        let report = resume().await;
        assert_eq!((report.resumed, report.ended, report.more), (1, 1, true), "{fault:?}");
        assert_eq!(till.look_up().await.unwrap().unwrap().status, status);
        till.world.advance(Duration::from_secs(3600));
        let report = resume().await;
        assert_eq!((report.resumed, report.more), (0, false), "nothing is open any more");
        till.assert_books().await;
    }
}

#[tokio::test]
async fn an_outcome_that_stays_unknown_is_voided_in_the_end() {
    let till = Till::open().await;
    till.acquirer.forgetful.set(true); // an intent of ours, then a charge that never arrives
    till.acquirer.script([NotSent]);
    assert!(till.process(TOTAL).await.is_err());
    till.world.advance(Duration::from_secs(15 * 60 - 20));
    assert_eq!(till.service.resume_due(&context(&till.world), 16).await.unwrap().deferred, 1);
    till.world.advance(Duration::from_secs(20));
    assert_eq!(till.service.resume_due(&context(&till.world), 16).await.unwrap().ended, 1);
    assert_eq!(till.acquirer.lookup(&key()).await.unwrap(), Standing::Voided);
    assert!(matches!(till.process(TOTAL).await, Ok(Processed::Voided(_))));
}

#[tokio::test]
async fn the_database_refuses_an_unbalanced_ledger() {
    let till = Till::open().await;
    till.captured().await;
    let rows = [
        "INSERT INTO payment_transfers VALUES ('p', 1, 'acquirer', 'acquirer', 5, 'EUR', 0)",
        "INSERT INTO payment_transfers VALUES ('p', 1, 'acquirer', 'customer', 0, 'EUR', 0)",
        "INSERT INTO payment_transfers VALUES ('p', 1, 'acquirer', 'pocket', 5, 'EUR', 0)",
        "INSERT INTO payment_transfers VALUES ('p', 1, 'acquirer', NULL, 5, 'EUR', 0)",
    ];
    for row in rows {
        let refused = till.database.execute(vec![sql(row)], settle_ports::Durability::Durable).await;
        assert!(matches!(refused, Err(settle_ports::SqlError::Conflict(_))), "{row}: {refused:?}");
    }
}

#[tokio::test]
async fn a_message_of_the_first_release_is_kept() {
    let till = Till::open_at(&Schema { service: SCHEMA.service, migrations: &SCHEMA.migrations[..1] }).await;
    let database = &till.service.store.database;
    let written = vec![
        sql("INSERT INTO payments (id, operation_key, order_id, version, document)
             VALUES ('p', 'o/charge', 'o', 1, json(CAST($1 AS TEXT)))")
        .bind("{}"),
        sql("INSERT INTO payment_outbox (payment_id, seq, type, payload) VALUES ('p', 1, 'payment.captured', $1)")
            .bind(
                r#"{"at":"2026-11-28T09:39:51.877Z","captured":1250,"correlation_id":"c0ffee","currency":"EUR",
                "order_id":"o","payment_id":"p","refunded":50,"status":"captured",
                "traceparent":"00-a017407bbb5c00d740aae75929dd1666-bd229a7b0ab1d5b0-01"}"#,
            ),
    ];
    database.execute(written, Durability::Durable).await.unwrap();

    SCHEMA.migrate(database, Timestamp::from_millis(1)).await.unwrap();
    let told =
        sql("SELECT status, currency, correlation_id, trace_id, order_id, captured_minor, refunded_minor
                    FROM payment_messages");
    let row = &database.query(told).await.unwrap().rows[0];
    let texts = [0, 1, 2, 3, 4].map(|column| row.text(column).unwrap());
    assert_eq!(texts, ["captured", "EUR", "c0ffee", "a017407bbb5c00d740aae75929dd1666", "o"]);
    assert_eq!([5, 6].map(|column| row.int(column).unwrap()), [1250, 50]);
}
