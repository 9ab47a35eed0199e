//! Temporal's TypeScript SDK #1970, a workflow of an older server that newer workers cannot go on with:
//! <https://github.com/temporalio/sdk-typescript/issues/1970>.
//!
//! What one release had written, another could not read, and the workflow failed.
//!
//! Here every entry carries its version. Older ones stay readable (a test replays their bytes); one
//! that is too new stops that saga alone, says so in the log, and leaves it as it is for a host that can.

use std::time::Duration;

use settle_ports::{Database as _, Durability, sql};
use settle_tests::native::CallFault::NotSent;
use settle_tests::shop::{LEASE, Shop};

#[tokio::test]
async fn a_saga_that_is_too_new_waits_and_loses_nothing() {
    let shop = Shop::open().await;
    let host = shop.host("old-release");
    shop.payments.script([NotSent; 3]);
    let order = shop.place(&host, "book").await.unwrap();
    let newer = sql("UPDATE order_journal SET version = 2");
    shop.database.execute(vec![newer], Durability::Durable).await.unwrap();
    shop.world.advance(LEASE);
    host.resume_due(16).await.unwrap();
    assert!(shop.world.log.borrow().iter().any(|line| line.contains("version 2")));
    assert_eq!(shop.count("SELECT count(*) FROM order_journal").await, 2, "placed, deferred");
    let upgraded = sql("UPDATE order_journal SET version = 1"); // as a host that understands it would read
    shop.database.execute(vec![upgraded], Durability::Durable).await.unwrap();
    shop.world.advance(Duration::from_secs(2 * 3600));
    shop.recover(&shop.host("new-release")).await;
    shop.assert_fair(&shop.read(&host, order.id).await);
}
