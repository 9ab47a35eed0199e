//! NServiceBus #5557, "InMemory gateway deduplication can cause message loss":
//! <https://github.com/Particular/NServiceBus/pull/5557>.
//!
//! The message's id was recorded before its effect, and the record stayed when the effect failed: the
//! retry was taken for a duplicate, and the message was lost.
//!
//! Here record and order are one write. Where it failed there is neither, and the retry makes both.

use settle_order_core::Status;
use settle_tests::native::{DbFault, TOTAL, context, request};
use settle_tests::shop::{Shop, claim};

#[tokio::test]
async fn a_failed_write_leaves_no_record() {
    let shop = Shop::open().await;
    let host = shop.host("a");
    let context = context(&shop.world);
    shop.database.fail_write(0, DbFault::NotApplied);
    assert!(host.place(&context, request("book"), Some(claim(&shop, 1, 1))).await.is_err());
    let retried = host.place(&context, request("book"), Some(claim(&shop, 1, 1))).await.unwrap();
    assert_eq!((retried.order.status, retried.replayed), (Status::Completed, false));
    assert_eq!(shop.money(retried.order.id), (TOTAL, 0));
}
