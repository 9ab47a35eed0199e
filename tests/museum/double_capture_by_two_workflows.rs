//! Medusa #13301, "core stripe payment integration - double /capture api" (fixed by #15527):
//! <https://github.com/medusajs/medusa/issues/13301>.
//!
//! Two workflows completed one cart at the same instant and both captured. One of them failed, and its
//! compensation refunded what the other had captured: orders that were fine lost their money.
//!
//! Here both requests carry one idempotency key, whose record is written with the order: one of them
//! makes an order, the other waits for it. There is one saga, so nobody undoes another's payment.

use settle_tests::native::{TOTAL, context, request};
use settle_tests::shop::{Shop, claim};

#[tokio::test]
async fn one_order_one_capture_no_undo() {
    let shop = Shop::open().await;
    let (one, two) = (shop.host("one"), shop.host("two"));
    let context = context(&shop.world);
    let (a, b) = tokio::join!(
        one.place(&context, request("book"), Some(claim(&shop, 1, 1))),
        two.place(&context, request("book"), Some(claim(&shop, 1, 1))),
    );
    let (a, b) = (a.unwrap().order, b.unwrap().order);
    assert_eq!(a.id, b.id);
    shop.recover(&one).await;
    assert_eq!(shop.money(a.id), (TOTAL, 0));
    assert!(!shop.calls().contains(&"undo"));
}
