//! Particular's documentation #3947, the outbox's record is cleaned up while its message still waits in
//! the error queue: <https://github.com/Particular/docs.particular.net/issues/3947>.
//!
//! As its maintainers describe it, a retry by hand, days later, finds no record and does the work again.
//!
//! Here a key lives with its order, and is free for another only after the order has ended.

use std::time::Duration;

use settle_tests::native::CallFault::NotSent;
use settle_tests::native::{context, request};
use settle_tests::shop::{Shop, claim};

#[tokio::test]
async fn the_record_of_an_open_order_stays() {
    let shop = Shop::open().await;
    let host = shop.host("a");
    shop.payments.script([NotSent; 3]);
    let open = host.place(&context(&shop.world), request("book"), Some(claim(&shop, 1, 1))).await.unwrap();
    shop.world.advance(Duration::from_secs(72 * 3600));
    let again = host.place(&context(&shop.world), request("book"), Some(claim(&shop, 1, 1))).await.unwrap();
    assert_eq!(again.order.id, open.order.id);
}
