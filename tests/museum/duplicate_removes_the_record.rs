//! AWS Lambda Powertools for TypeScript #5675, "makeHandlerIdempotent deletes idempotency records it
//! never acquired" (fixed by #5676):
//! <https://github.com/aws-powertools/powertools-lambda-typescript/issues/5675>.
//!
//! A duplicate that was rejected cleaned up "its" record on the way out, which was the original's. The
//! next retry found no record and did everything again.
//!
//! Here nobody removes a record: it is written with the order, in one write, and expires.

use settle_order_core::OrderError;
use settle_tests::native::{context, request};
use settle_tests::shop::{Shop, claim};

#[tokio::test]
async fn a_rejected_duplicate_leaves_the_record() {
    let shop = Shop::open().await;
    let host = shop.host("a");
    let context = context(&shop.world);
    let first = host.place(&context, request("book"), Some(claim(&shop, 1, 1))).await.unwrap().order;
    let other = host.place(&context, request("pen"), Some(claim(&shop, 1, 2))).await;
    assert!(matches!(other, Err(OrderError::KeyReused)));
    let again = host.place(&context, request("book"), Some(claim(&shop, 1, 1))).await.unwrap();
    assert_eq!((again.order.id, again.replayed), (first.id, true));
    assert_eq!(shop.count("SELECT count(*) FROM orders").await, 1);
}
