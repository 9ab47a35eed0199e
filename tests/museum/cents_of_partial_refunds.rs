//! WooCommerce #64668, "Refund amount can exceed original order total due to per-line tax rounding":
//! <https://github.com/woocommerce/woocommerce/issues/64668>; a series of refunds that came to more than
//! was paid: Polar #13770, <https://github.com/polarsource/polar/issues/13770>.
//!
//! Shares were computed and rounded line by line; their sum was a cent more than the total.
//!
//! Here amounts are whole minor units and nothing is divided. What is left is what was captured less
//! what was returned or is being returned, and "the rest" is a refund without an amount.

use settle_payment_core::Refunded;
use settle_tests::till::{KEY, TOTAL, Till};

#[tokio::test]
async fn parts_come_to_the_whole_and_not_a_cent_more() {
    let till = Till::open().await;
    let payment = till.captured().await;
    for (number, part) in [32, 9, 8, 3, 6, 3].into_iter().enumerate() {
        let key = format!("part-{number}");
        assert!(matches!(till.refund(&payment, &key, Some(part)).await, Ok(Refunded::Done(_))));
    }
    let left = TOTAL - 61;
    assert!(matches!(till.refund(&payment, "more", Some(left + 1)).await, Ok(Refunded::ExceedsCaptured)));
    let Ok(Refunded::Done(rest)) = till.refund(&payment, "rest", None).await else { panic!("no rest") };
    assert_eq!((rest.refunded, till.acquirer.money(KEY)), (TOTAL, (TOTAL, TOTAL)));
    till.assert_books().await;
}
