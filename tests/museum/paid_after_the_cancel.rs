//! WooCommerce Stripe gateway #5703, "Refund shoppers charged after cancelling their order":
//! <https://github.com/woocommerce/woocommerce-gateway-stripe/pull/5703>.
//!
//! A shopper cancelled while a slow authentication was still open. The success came later, the handler
//! ignored it because the order was cancelled, and the money stayed taken.
//!
//! Here a cancel is an undo under the charge's key: what was taken comes back, and what comes later
//! finds a tombstone, at payment and at the acquirer.

use settle_payment_core::Processed;
use settle_ports::{Acquirer as _, ChargeOutcome};
use settle_tests::native::CallFault::Pending;
use settle_tests::till::{KEY, TOTAL, Till, eur, key};

#[tokio::test]
async fn a_success_after_the_cancel_takes_nothing() {
    let till = Till::open().await;
    till.acquirer.script([Pending]);
    assert!(matches!(till.process(TOTAL).await, Ok(Processed::Pending(_))));
    till.undo().await.unwrap();
    assert!(matches!(till.process(TOTAL).await, Ok(Processed::Voided(_))));
    let late = till.acquirer.charge(&key(), eur(TOTAL), None).await.unwrap();
    assert_eq!(late, ChargeOutcome::Voided);
    assert_eq!(till.acquirer.money(KEY), (0, 0));
    till.assert_books().await;
}
