//! Redisson #5698, two pods do the same work under one lock:
//! <https://github.com/redisson/redisson/issues/5698>; node-redlock #296, a lock that is returned after it
//! has expired: <https://github.com/mike-marcacci/node-redlock/issues/296>.
//!
//! A lock with a time is only a hint: its holder may sleep past it and act on.
//!
//! Here the lease is a hint too, and is not what keeps order: every write is fenced by its place in the
//! journal. Whoever sleeps past the lease writes nothing, and what it asks payment has the same key.

use settle_order_core::{Event, Lease, StoreError};
use settle_ports::{Durability, World as _};
use settle_tests::native::CallFault::NotSent;
use settle_tests::native::{TOTAL, context};
use settle_tests::shop::{LEASE, Shop};

#[tokio::test]
async fn a_holder_that_sleeps_past_its_lease_writes_nothing() {
    let shop = Shop::open().await;
    shop.payments.script([NotSent; 3]);
    let (sleeper, successor) = (shop.host("sleeper"), shop.host("successor"));
    let order = shop.place(&sleeper, "book").await.unwrap();
    let mut held = sleeper.store.saga(order.id).await.unwrap();
    shop.world.advance(LEASE);
    shop.recover(&successor).await;
    held.record(Event::DeadlinePassed, shop.world.now()).unwrap();
    let lease = Lease { owner: "sleeper", until: shop.world.now() };
    let context = context(&shop.world);
    let written = sleeper.store.append(&order, &held, lease, &context, Durability::Durable).await;
    assert!(matches!(written, Err(StoreError::Stale)));
    assert_eq!(shop.money(order.id), (TOTAL, 0));
}
