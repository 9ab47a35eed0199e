//! Who drives an order, what others see of it meanwhile, and what operators are shown.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use settle_order_core::{Lease, NewOrder, Order, OrderError, Status};
use settle_ports::{CallContext, Database as _, World as _, sql};
use settle_tests::native::{CallFault, DbFault, alice, context, request};
use settle_tests::shop::{Driver, LEASE, SECOND, Shop, claim};

use CallFault::{Declined, NotSent, Pending, Refused};

/// An order whose end its client has seen, and the server has lost.
async fn seen_and_lost(shop: &Shop, host: &Driver, product: &str, end: Status) -> Order {
    let order = shop.place(host, product).await.unwrap();
    assert_eq!(order.status, end, "and the client has seen it");
    shop.lose_all_but_the_intent().await;
    order
}

async fn stored(shop: &Shop) -> String {
    let found = shop.database.query(sql("SELECT status FROM orders")).await.unwrap();
    found.rows[0].text(0).unwrap().to_owned()
}

// ---- who drives ----

#[tokio::test]
async fn a_read_takes_over_at_once_where_no_other_host_can_live() {
    let shop = Shop::open().await;
    let order = shop.orphan("dead").await;
    assert_eq!(shop.read(&shop.alone("restarted"), order.id).await.status, Status::Completed);
    assert_eq!(stored(&shop).await, "completed");
}

#[tokio::test]
async fn a_read_leaves_an_order_to_its_own_host_until_its_lease_is_over() {
    let shop = Shop::open().await;
    let host = shop.alone("one");
    let order = shop.orphan("one").await;
    assert_eq!(shop.read(&host, order.id).await.status, Status::PaymentPending);
    assert_eq!(shop.calls(), ["process"]);
    shop.world.advance(LEASE);
    assert_eq!(shop.read(&host, order.id).await.status, Status::Completed);
}

#[tokio::test]
async fn one_claim_wins() {
    let shop = Shop::open().await;
    let order = shop.orphan("dead").await;
    let store = shop.host("any").store;
    let now = shop.world.now().plus(LEASE);
    let claim = async |owner, now: settle_types::Timestamp, exclusive| {
        let lease = Lease { owner, until: now.plus(LEASE) };
        store.claim(order.id, lease, now, exclusive).await.unwrap()
    };
    assert!(!claim("early", shop.world.now(), false).await);
    assert!(claim("first", now, false).await);
    assert!(!claim("second", now, false).await);
    assert!(claim("alone", now, true).await);
    assert!(!claim("alone", now, true).await, "its own lease");
    assert_eq!(shop.read(&shop.host("any"), order.id).await.status, Status::Completed);
    assert!(!claim("late", now.plus(LEASE), true).await, "it has settled");
}

#[tokio::test]
async fn the_probe_of_a_breaker_that_was_not_used_is_given_back_as_a_failure() {
    let shop = Shop::open().await;
    let host = shop.host("a");
    shop.limiter.probe.set(true);
    shop.database.fail_write(0, DbFault::NotApplied);
    shop.place(&host, "book").await.unwrap_err();
    assert_eq!(*shop.limiter.reports.borrow(), [false]);
    shop.limiter.probe.set(true);
    shop.place(&host, "book").await.unwrap();
    assert_eq!(*shop.limiter.reports.borrow(), [false, true]);
    shop.database.fail_write(0, DbFault::NotApplied);
    shop.place(&host, "book").await.unwrap_err();
    assert_eq!(*shop.limiter.reports.borrow(), [false, true], "no probe, no report");
}

#[tokio::test]
async fn a_service_that_answers_no_is_alive_for_the_breaker() {
    let shop = Shop::open().await;
    shop.payments.script([Refused, NotSent]);
    shop.place(&shop.host("a"), "book").await.unwrap();
    assert_eq!(*shop.limiter.reports.borrow(), [true, false, true]);
}

#[tokio::test]
async fn a_call_has_three_tries_with_growing_waits_between_them() {
    let shop = Shop::open().await;
    shop.payments.script([NotSent, NotSent, NotSent]);
    shop.place(&shop.host("a"), "book").await.unwrap();
    assert_eq!(shop.calls(), ["process"; 3]);
    let slept: Vec<u128> = shop.world.slept.borrow().iter().map(Duration::as_millis).collect();
    let [first, second] = slept[..] else { panic!("{slept:?}") };
    assert!((50..=100).contains(&first) && (100..=200).contains(&second), "{slept:?}");
}

#[tokio::test]
async fn a_caller_without_time_gets_an_order_that_recovery_pays() {
    let shop = Shop::open().await;
    let host = shop.host("a");
    let deadline = shop.world.now().plus(Duration::from_millis(1));
    let context = CallContext { deadline, ..context(&shop.world) };
    let placed = host.place(&context, request("book"), None).await.unwrap();
    assert_eq!((placed.order.status, shop.calls().len()), (Status::PaymentPending, 0));
    shop.recover(&host).await;
    assert_eq!(shop.read(&host, placed.order.id).await.status, Status::Completed);
}

#[tokio::test]
async fn what_the_acquirer_has_not_decided_stays_open_until_the_deadline() {
    let shop = Shop::open().await;
    shop.payments.script([Pending, Pending]);
    let host = shop.host("a");
    let order = shop.place(&host, "book").await.unwrap();
    shop.world.advance(SECOND * 2);
    host.resume_due(1).await.unwrap();
    assert_eq!((shop.calls(), stored(&shop).await.as_str()), (vec!["process", "look_up"], "payment_pending"));
    shop.recover(&host).await;
    // It never charged in the end, so there is nothing to keep.
    assert_eq!(shop.read(&host, order.id).await.status, Status::Cancelled);
}

// ---- what others see ----

#[tokio::test]
async fn a_read_on_a_shared_database_takes_over_each_end_that_payment_knows() {
    let shop = Shop::open().await;
    shop.payments.script([Declined]);
    let order = shop.orphan("dead").await;
    assert_eq!(shop.read(&shop.host("other"), order.id).await.status, Status::PaymentFailed);

    // Undone, and all of it was lost but the intent.
    let shop = Shop::open().await;
    let order = seen_and_lost(&shop, &shop.host("dead"), "fail-me", Status::Cancelled).await;
    assert_eq!(shop.read(&shop.host("other"), order.id).await.status, Status::Cancelled);

    // Cancelled and undone, and the end was lost.
    let shop = Shop::open().await;
    let host = shop.alone("dead");
    let order = shop.place(&host, "book").await.unwrap();
    shop.database.fail_write(1, DbFault::NotApplied);
    let cancelled = host.cancel(&context(&shop.world), &alice(), order.id).await.unwrap();
    assert_eq!(cancelled.status, Status::Compensating);
    assert_eq!(shop.read(&shop.host("other"), order.id).await.status, Status::Cancelled);
}

#[tokio::test]
async fn a_read_on_a_shared_database_shows_what_payment_knows_or_nothing() {
    let shop = Shop::open().await;
    let host = shop.host("one");
    let order = seen_and_lost(&shop, &host, "book", Status::Completed).await;
    shop.payments.script([NotSent]);
    let read = host.read(&context(&shop.world), &alice(), order.id).await;
    assert!(matches!(read, Err(OrderError::Unavailable { .. })), "{read:?}");
    assert_eq!(shop.read(&host, order.id).await.status, Status::Completed);
}

#[tokio::test]
async fn a_cancel_whose_end_is_lost_does_not_show_less_than_the_client_has_seen() {
    let shop = Shop::open().await;
    let host = shop.host("one");
    let order = seen_and_lost(&shop, &host, "fail-me", Status::Cancelled).await;
    // The cancel is stored; the relaxed write of its end dies with the server.
    shop.database.fail_write(1, DbFault::NotApplied);
    let cancelled = host.cancel(&context(&shop.world), &alice(), order.id).await.unwrap();
    assert_eq!(cancelled.status, Status::Cancelled);
}

#[tokio::test]
async fn an_order_whose_end_is_lost_does_not_show_less_than_a_duplicate_may_have_seen() {
    let shop = Shop::open().await;
    shop.database.fail_write(1, DbFault::NotApplied);
    assert_eq!(shop.place(&shop.host("one"), "book").await.unwrap().status, Status::Completed);
}

#[tokio::test]
async fn after_the_intent_is_written_no_failure_says_that_nothing_was() {
    let shop = Shop::open().await;
    shop.payments.script([NotSent; 6]);
    shop.database.fail_write(1, DbFault::NotApplied);
    let placed = shop.place(&shop.host("one"), "book").await;
    assert!(matches!(placed, Err(OrderError::OutcomeUnknown(_))), "{placed:?}");
}

/// A request under way that began before, and a duplicate of it with this much time.
async fn duplicate(shop: &Shop, host: &Driver, time: Duration) -> (Result<Order, OrderError>, u64) {
    let deadline = shop.world.now().plus(time);
    let context = CallContext { deadline, ..context(&shop.world) };
    let begun = shop.world.now();
    let placed = host.place(&context, request("book"), Some(claim(shop, 1, 1))).await;
    let waited = shop.world.now().since(begun);
    let order = placed.map(|placed| {
        assert!(placed.replayed);
        placed.order
    });
    (order, u64::try_from(waited.as_millis()).unwrap())
}

#[tokio::test]
async fn a_duplicate_waits_for_the_first_as_long_as_its_caller_does() {
    let shop = Shop::open().await;
    let host = shop.alone("one");
    shop.database.fail_write(1, DbFault::NotApplied);
    host.place(&context(&shop.world), request("book"), Some(claim(&shop, 1, 1))).await.unwrap();
    let (order, waited) = duplicate(&shop, &host, SECOND * 3).await;
    assert_eq!(order.unwrap().status, Status::PaymentPending);
    assert!((2_500..=3_100).contains(&waited), "{waited} ms");
    assert_eq!(shop.calls(), ["process"], "its own host drives it");
    // Until the first one's lease is over: then somebody has to.
    shop.world.advance(LEASE);
    let (order, waited) = duplicate(&shop, &host, SECOND * 3).await;
    assert_eq!((order.unwrap().status, waited < 100), (Status::Completed, true));
}

#[tokio::test]
async fn a_duplicate_on_a_shared_database_asks_payment_after_half_a_second() {
    let shop = Shop::open().await;
    shop.database.fail_write(1, DbFault::NotApplied);
    let (dead, other) = (shop.alone("dead"), shop.host("other"));
    dead.place(&context(&shop.world), request("book"), Some(claim(&shop, 1, 1))).await.unwrap();
    let (order, waited) = duplicate(&shop, &other, SECOND * 3).await;
    assert_eq!(order.unwrap().status, Status::Completed);
    assert!((500..700).contains(&waited), "{waited} ms");
    assert_eq!(shop.calls(), ["process", "look_up"]);
    let (order, waited) = duplicate(&shop, &other, SECOND * 3).await;
    assert_eq!((order.unwrap().status, waited), (Status::Completed, 0), "what has settled is not waited for");
}

#[tokio::test]
async fn a_duplicate_without_time_asks_payment_at_once() {
    let shop = Shop::open().await;
    shop.database.fail_write(1, DbFault::NotApplied);
    let (dead, other) = (shop.alone("dead"), shop.host("other"));
    dead.place(&context(&shop.world), request("book"), Some(claim(&shop, 1, 1))).await.unwrap();
    let (order, waited) = duplicate(&shop, &other, Duration::from_millis(1)).await;
    assert_eq!((order.unwrap().status, waited < 100), (Status::Completed, true));
}

// ---- what operators are shown ----

#[tokio::test]
async fn recovery_says_how_late_it_is_and_whether_there_is_more() {
    let shop = Shop::open().await;
    let host = shop.host("a");
    for _ in 0..2 {
        shop.orphan("a").await;
        shop.world.advance(SECOND);
        shop.database.writes.borrow_mut().clear();
    }
    assert_eq!(host.oldest_due().await.unwrap(), Duration::ZERO);
    shop.world.advance(LEASE);
    assert_eq!(host.oldest_due().await.unwrap(), SECOND * 2);
    let report = host.resume_due(1).await.unwrap();
    assert_eq!((report.resumed, report.ended, report.deferred), (1, 1, 0));
    assert_eq!((report.oldest_due_ms, report.more), (2_000, true));
    let report = host.resume_due(2).await.unwrap();
    assert_eq!((report.resumed, report.more), (1, false));
}

#[tokio::test]
async fn a_saga_is_listed_with_its_tries_and_its_next_one() {
    let shop = Shop::open().await;
    let host = shop.host("a");
    shop.payments.script([NotSent, NotSent, NotSent]);
    let order = shop.place(&host, "book").await.unwrap();
    let now = shop.world.now();
    let due = async || {
        let sagas = host.sagas(None, 10).await.unwrap();
        assert_eq!((sagas[0].order_id, sagas[0].step), (order.id, "payment"));
        (sagas[0].tries, sagas[0].due_at.unwrap())
    };
    let (tries, first) = due().await;
    assert!(tries == 1 && first > now && first <= now.plus(SECOND), "{tries} {first}");
    // Twice in vain: the wait doubles.
    shop.payments.script([NotSent, NotSent, NotSent]);
    shop.world.advance(SECOND);
    host.resume_due(1).await.unwrap();
    let now = shop.world.now();
    let (tries, second) = due().await;
    assert!(tries == 2 && second >= now.plus(SECOND / 2), "{tries} {second}");
    // An open breaker is no try; the order is given back until the breaker lets somebody through.
    shop.limiter.open.set(true);
    shop.world.advance(SECOND * 2);
    host.resume_due(1).await.unwrap();
    let (tries, third) = due().await;
    let now = shop.world.now();
    assert!(tries == 2 && third >= now.plus(SECOND * 15) && third <= now.plus(SECOND * 30), "{third}");
    assert_ne!(third, now.plus(LEASE), "given back, not kept");
}

#[tokio::test]
async fn the_payment_method_reaches_payment() {
    let shop = Shop::open().await;
    let items = request("book").items().to_vec();
    let order = NewOrder::parse(&alice(), None, items, Some("card:4242".parse().unwrap())).unwrap();
    shop.payments.script([Pending]);
    shop.host("a").place(&context(&shop.world), order, None).await.unwrap();
    assert_eq!(*shop.payments.methods.borrow(), [Some("card:4242".to_owned())]);
}
