//! WooCommerce Stripe gateway #2724, "Double refunds still happening (triggered through web hook)":
//! <https://github.com/woocommerce/woocommerce-gateway-stripe/issues/2724>.
//!
//! A refund was known by the provider's id, which was saved only when the answer came. The provider's
//! own message came first, knew nothing of it, and recorded the refund again.
//!
//! Here a refund is known by the caller's key from before it is sent. Whoever finishes it, the first
//! request, its retry or recovery, finishes that one entry.

use std::time::Duration;

use settle_tests::native::CallFault::AnswerLost;
use settle_tests::native::context;
use settle_tests::till::{KEY, TOTAL, Till};

#[tokio::test]
async fn a_refund_is_booked_once_whoever_hears_of_it_first() {
    let till = Till::open().await;
    let payment = till.captured().await;
    till.acquirer.script([AnswerLost]);
    assert!(till.refund(&payment, "r", Some(200)).await.is_err());
    till.world.advance(Duration::from_secs(10));
    let context = context(&till.world);
    let (recovered, retried) =
        tokio::join!(till.service.resume_due(&context, 16), till.refund(&payment, "r", Some(200)));
    assert!(recovered.is_ok() && retried.is_ok());
    assert_eq!(till.acquirer.money(KEY), (TOTAL, 200));
    till.assert_books().await;
}
