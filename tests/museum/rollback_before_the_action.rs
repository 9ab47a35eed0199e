//! Seata #489, "Data inconsistencies" (fixed by #572):
//! <https://github.com/apache/incubator-seata/issues/489>.
//!
//! A branch took longer than the caller waited. The caller rolled everything back; then the branch's
//! work arrived and was carried out, after its own rollback.
//!
//! Here an undo of something that never happened leaves a tombstone under the key, so that the action,
//! whenever it comes, does nothing.

use settle_payment_core::Processed;
use settle_tests::till::{KEY, TOTAL, Till};

#[tokio::test]
async fn an_undo_that_comes_first_wins() {
    let till = Till::open().await;
    assert_eq!(till.undo().await.unwrap().status, settle_payment_core::Status::Voided);
    assert!(matches!(till.process(TOTAL).await, Ok(Processed::Voided(_))));
    assert_eq!(till.acquirer.money(KEY), (0, 0));
    till.assert_books().await;
}
