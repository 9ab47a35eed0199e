//! Medusa #16292, "Retrying a payment capture after a provider-side failure sends a different
//! idempotency key": <https://github.com/medusajs/medusa/issues/16292>; the same in Adyen's commercetools
//! extension, whose key was a hash of fields that change:
//! <https://github.com/Adyen/adyen-commercetools/issues/1305>.
//!
//! The key at the provider was the id of a local row that a failed call deleted. An answer that was
//! only lost could then lead to a second capture under a second key.
//!
//! Here the key is derived from the order's id alone, and a retry by any host at any time has it.

use settle_tests::native::CallFault::AnswerLost;
use settle_tests::native::TOTAL;
use settle_tests::shop::Shop;

#[tokio::test]
async fn a_lost_answer_is_asked_again_under_the_same_key() {
    let shop = Shop::open().await;
    shop.payments.script([AnswerLost; 3]);
    let order = shop.place(&shop.host("dies"), "book").await.unwrap();
    shop.recover(&shop.host("takes-over")).await;
    assert_eq!(shop.payments.kept.borrow().len(), 1, "keys that took money");
    assert_eq!(shop.money(order.id), (TOTAL, 0));
}
