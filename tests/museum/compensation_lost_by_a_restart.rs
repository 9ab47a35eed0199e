//! Seata #5170, a saga whose client died in the middle could not be recovered:
//! <https://github.com/apache/incubator-seata/issues/5170>.
//!
//! The state machine's row said "running" for ever, and going on was refused because it was running.
//!
//! Here "running" is a lease that lapses. The undo is journalled before it is sent, any host takes the
//! order over when the lease has lapsed, and repeats the undo under the same key until it answers.

use settle_order_core::Status;
use settle_tests::native::CallFault::NotSent;
use settle_tests::native::{TOTAL, alice, context};
use settle_tests::shop::{LEASE, Shop};

#[tokio::test]
async fn another_host_ends_what_a_dead_one_began_to_undo() {
    let shop = Shop::open().await;
    let dying = shop.host("dying");
    let order = shop.place(&dying, "book").await.unwrap();
    shop.payments.script([NotSent; 3]);
    let cancelled = dying.cancel(&context(&shop.world), &alice(), order.id).await.unwrap();
    assert_eq!(cancelled.status, Status::Compensating);
    shop.world.advance(LEASE);
    let survivor = shop.host("survivor");
    shop.recover(&survivor).await;
    assert_eq!(shop.read(&survivor, order.id).await.status, Status::Cancelled);
    assert_eq!(shop.money(order.id), (TOTAL, TOTAL));
}
