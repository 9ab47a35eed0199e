//! Spree #4499, "Payment processing state does not block double submission":
//! <https://github.com/spree/spree/pull/4499>.
//!
//! The state "processing" was set in the transaction that was open during the call to the gateway, so
//! no other request ever saw it. Two reached the gateway, and the failure of one hid the other's success.
//!
//! Here no transaction is open across a call. The gateway is asked under one key, and of two answers
//! the first that is written wins; the other reads what was written.

use settle_payment_core::{PaymentError, Processed};
use settle_tests::native::CallFault::AnswerLost;
use settle_tests::till::{KEY, TOTAL, Till};

#[tokio::test]
async fn two_submissions_are_one_payment() {
    let till = Till::open().await;
    till.acquirer.script([AnswerLost]);
    let (a, b) = tokio::join!(till.process(TOTAL), till.process(TOTAL));
    // Whose answer was lost may have read the other's success since then, and nobody was told "failed".
    let captured = [&a, &b].map(|told| matches!(told, Ok(Processed::Captured(_))));
    let unknown = [&a, &b].map(|told| matches!(told, Err(PaymentError::OutcomeUnknown(_))));
    assert!(captured[0] || captured[1], "{a:?} {b:?}");
    assert!((captured[0] || unknown[0]) && (captured[1] || unknown[1]), "{a:?} {b:?}");
    assert!(matches!(till.process(TOTAL).await, Ok(Processed::Captured(_))));
    assert_eq!(till.acquirer.money(KEY), (TOTAL, 0));
    till.assert_books().await;
}
