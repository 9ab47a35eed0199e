//! WooCommerce Stripe gateway #3725, "Potential fix for duplicate charges":
//! <https://github.com/woocommerce/woocommerce-gateway-stripe/pull/3725>.
//!
//! The process ended after the payment was confirmed and before the order said so. The shopper saw an
//! order that was not paid, and paid again.
//!
//! Here the intent is durable before the charge: another host finds the order open, asks under the same
//! key, and completes it. The shopper's own retry has the same idempotency key and gets that order.

use settle_order_core::Status;
use settle_tests::native::{DbFault, TOTAL, context, request};
use settle_tests::shop::{LEASE, Shop, claim};

#[tokio::test]
async fn a_host_that_dies_after_the_charge_leaves_an_order_that_completes() {
    let shop = Shop::open().await;
    shop.database.fail_write(1, DbFault::NotApplied); // what it wanted to write as it died
    let first =
        shop.host("dies").place(&context(&shop.world), request("book"), Some(claim(&shop, 1, 1))).await;
    let id = first.unwrap().order.id;
    shop.world.advance(LEASE);
    let survivor = shop.host("survivor");
    shop.recover(&survivor).await;
    let again =
        survivor.place(&context(&shop.world), request("book"), Some(claim(&shop, 1, 1))).await.unwrap();
    assert_eq!((again.order.id, again.order.status), (id, Status::Completed));
    assert_eq!(shop.money(id), (TOTAL, 0));
}
