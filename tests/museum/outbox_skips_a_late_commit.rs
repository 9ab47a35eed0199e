//! Axon Framework #4829, "A committed event is skipped for ever when a visible neighbour's timestamp
//! ages past the gap timeout": <https://github.com/AxonIQ/AxonFramework/issues/4829>; the same in an
//! outbox: kamu-cli #1398, <https://github.com/kamu-data/kamu-cli/issues/1398>.
//!
//! A global number was taken before the commit. A reader saw number n+1, remembered it, and never read
//! n, which was committed a moment later.
//!
//! Here there is no global number. A row's place is (order, seq), its seq is the journal entry's, and
//! it is written with that entry: one order's rows are in order and complete, whatever others do.

use settle_ports::{Database as _, sql};
use settle_tests::native::alice;
use settle_tests::shop::Shop;

#[tokio::test]
async fn rows_of_one_order_are_its_changes_whatever_others_commit_meanwhile() {
    let shop = Shop::open().await;
    let (one, two) = (shop.host("one"), shop.host("two"));
    let (slow, quick) = tokio::join!(shop.place(&one, "fail-me"), shop.place(&two, "book"));
    shop.recover(&one).await;
    for order in [slow.unwrap(), quick.unwrap()] {
        let sql = sql("SELECT o.seq, j.status FROM order_outbox o
                       JOIN order_journal j ON j.order_id = o.order_id AND j.seq = o.seq
                       WHERE o.order_id = $1 ORDER BY o.seq")
        .bind(order.id.to_string());
        let rows = shop.database.query(sql).await.unwrap().rows;
        let told: Vec<&str> = rows.iter().map(|row| row.text(1).unwrap()).collect();
        let history = one.history(&alice(), order.id).await.unwrap();
        // The history's first line, "created", is no change of status.
        let changes: Vec<&str> = history.iter().skip(1).map(|entry| entry.status.as_str()).collect();
        assert_eq!(told, changes);
    }
}
