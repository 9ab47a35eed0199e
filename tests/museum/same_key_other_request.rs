//! AWS Lambda Powertools for TypeScript #2058, "Payload validation broken for
//! DynamoDBPersistenceLayer": <https://github.com/aws-powertools/powertools-lambda-typescript/issues/2058>.
//!
//! An optimisation returned the stored result before it compared the payloads: another request under
//! the same key got the first one's answer.
//!
//! Here the record holds the request's fingerprint, and every way to the record compares it.

use settle_order_core::OrderError;
use settle_tests::native::CallFault::NotSent;
use settle_tests::native::{context, request};
use settle_tests::shop::{Shop, claim};

#[tokio::test]
async fn another_request_under_the_key_is_refused_and_charges_nothing() {
    let shop = Shop::open().await;
    let host = shop.host("a");
    let context = context(&shop.world);
    host.place(&context, request("book"), Some(claim(&shop, 1, 1))).await.unwrap();
    let calls = shop.calls().len();
    shop.payments.script([NotSent; 8]);
    let other = host.place(&context, request("pen"), Some(claim(&shop, 1, 2))).await;
    assert!(matches!(other, Err(OrderError::KeyReused)));
    assert_eq!(shop.calls().len(), calls);
}
