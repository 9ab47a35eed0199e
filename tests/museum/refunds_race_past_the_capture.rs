//! Hyperswitch #13182, "Concurrent refunds can exceed captured payment amount (TOCTOU)":
//! <https://github.com/juspay/hyperswitch/issues/13182>.
//!
//! Two refunds of 60 on a payment of 100 each read the sum of earlier refunds, found enough left, and
//! both were done.
//!
//! Here a refund is first a pending entry of the payment's document, whose version guards the write:
//! the second one reads the document again and finds too little left.

use settle_payment_core::Refunded;
use settle_tests::till::{KEY, TOTAL, Till};

#[tokio::test]
async fn of_two_refunds_at_once_one_is_refused() {
    let till = Till::open().await;
    let payment = till.captured().await;
    let share = TOTAL * 6 / 10;
    let (a, b) =
        tokio::join!(till.refund(&payment, "a", Some(share)), till.refund(&payment, "b", Some(share)));
    let done = [&a, &b].into_iter().filter(|outcome| matches!(outcome, Ok(Refunded::Done(_)))).count();
    let refused =
        [&a, &b].into_iter().filter(|outcome| matches!(outcome, Ok(Refunded::ExceedsCaptured))).count();
    assert_eq!((done, refused), (1, 1));
    assert_eq!(till.acquirer.money(KEY), (TOTAL, share));
    till.assert_books().await;
}
