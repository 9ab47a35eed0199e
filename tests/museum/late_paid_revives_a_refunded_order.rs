//! Mollie for WooCommerce #1252, "Late 'paid' webhook reverts a fully refunded order back to
//! Processing": <https://github.com/mollie/WooCommerce/issues/1252>.
//!
//! The handler asked whether the payment was paid, and not whether it had been returned: orders that
//! were refunded or cancelled came back to life, and stock was taken again.
//!
//! Here an order moves only along the saga's transitions. An ended order takes no event but a cancel in
//! its window, and a payment that was returned answers `voided` to whoever asks late.

use settle_order_core::{Event, Status};
use settle_ports::World as _;
use settle_tests::native::{TOTAL, alice, context};
use settle_tests::shop::Shop;

#[tokio::test]
async fn an_ended_order_takes_no_late_success() {
    let shop = Shop::open().await;
    let host = shop.host("a");
    let order = shop.place(&host, "book").await.unwrap();
    host.cancel(&context(&shop.world), &alice(), order.id).await.unwrap();
    let mut saga = host.store.saga(order.id).await.unwrap();
    let late = Event::PaymentApproved { payment_id: order.payment_id.unwrap() };
    assert!(saga.record(late, shop.world.now()).is_err());
    shop.recover(&host).await;
    assert_eq!(shop.read(&host, order.id).await.status, Status::Cancelled);
    assert_eq!(shop.money(order.id), (TOTAL, TOTAL));
}
