//! The order driver, natively, on a real database: every rule of the saga has a test named after it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use settle_order_core::{
    Caller, Event, IdempotencyClaim, Lease, Order, OrderError, OrderSaga, SCHEMA, Status, StoreError,
};
use settle_ports::{Database as _, Durability, Schema, Value, World as _, sql};
use settle_saga::Saga;
use settle_tests::native::{CallFault, DbFault, TOTAL, alice, context, request};
use settle_tests::shop::{Driver, LEASE, ORDER_DEADLINE, SECOND, Shop, claim};

use CallFault::{AnswerLost, Declined, NotSent, Pending};

// ---- the three ends ----

#[tokio::test]
async fn an_approved_order_completes_with_one_durable_and_one_relaxed_write() {
    let shop = Shop::open().await;
    let order = shop.place(&shop.host("a"), "book").await.unwrap();
    assert_eq!((order.status, order.failure_reason.as_ref()), (Status::Completed, None));
    shop.assert_fair(&order);
    assert_eq!(*shop.database.writes.borrow(), [Durability::Durable, Durability::Relaxed]);
    assert_eq!(shop.calls(), ["process"]);
}

#[tokio::test]
async fn a_declined_payment_fails_the_order() {
    let shop = Shop::open().await;
    shop.payments.script([Declined]);
    let order = shop.place(&shop.host("a"), "book").await.unwrap();
    assert_eq!(order.status, Status::PaymentFailed);
    assert_eq!(order.failure_reason.as_ref().unwrap().as_str(), "declined");
    shop.assert_fair(&order);
}

#[tokio::test]
async fn a_failing_final_step_undoes_the_payment() {
    let shop = Shop::open().await;
    let order = shop.place(&shop.host("a"), "fail-me").await.unwrap();
    assert_eq!(order.status, Status::Cancelled);
    assert_eq!(order.failure_reason.as_ref().unwrap().as_str(), "final step failed");
    assert_eq!(shop.money(order.id), (TOTAL, TOTAL));
    assert_eq!(shop.calls(), ["process", "undo"]);
    let history = shop.host("a").history(&alice(), order.id).await.unwrap();
    let statuses: Vec<&str> = history.iter().map(|entry| entry.status.as_str()).collect();
    assert_eq!(statuses, ["created", "payment_pending", "paid", "compensating", "cancelled"]);
}

#[tokio::test]
async fn a_slow_final_step_begins_after_the_payment_is_written_and_can_be_cancelled() {
    let shop = Shop::open().await;
    let host = shop.host("a");
    let order = shop.place(&host, "slow-me").await.unwrap();
    assert_eq!(order.status, Status::Completed);
    assert_eq!(shop.database.writes.borrow().len(), 3);

    shop.world.asleep.set(true);
    let cancel = async {
        let paid = loop {
            let paid = host.list(&alice(), Some(Status::Paid), None, 1).await.unwrap();
            if let Some(order) = paid.orders.into_iter().next() {
                break order;
            }
            tokio::task::yield_now().await;
        };
        let cancelled = host.cancel(&context(&shop.world), &alice(), paid.id).await.unwrap();
        shop.world.asleep.set(false);
        cancelled
    };
    let placed_then_cancelled = async { tokio::join!(shop.place(&host, "slow-me"), cancel) };
    let (placed, cancelled) = tokio::time::timeout(Duration::from_secs(20), placed_then_cancelled)
        .await
        .expect("no paid order seen");
    assert_eq!(cancelled.status, Status::Cancelled);
    assert_eq!(placed.unwrap().status, Status::Cancelled, "the owner wakes to a cancelled order");
    shop.assert_fair(&cancelled);
}

// ---- lost calls and lost answers, at each remote call ----

#[tokio::test]
async fn a_lost_answer_to_the_charge_is_asked_again_with_the_same_key_and_charges_once() {
    let shop = Shop::open().await;
    shop.payments.script([AnswerLost, NotSent]);
    let order = shop.place(&shop.host("a"), "book").await.unwrap();
    assert_eq!(order.status, Status::Completed);
    shop.assert_fair(&order);
    assert_eq!(shop.calls(), ["process"; 3]);
}

#[tokio::test]
async fn a_lost_answer_to_the_undo_is_repeated_until_it_answers() {
    let shop = Shop::open().await;
    shop.payments.script([AnswerLost, AnswerLost, AnswerLost, AnswerLost, AnswerLost]);
    let host = shop.host("a");
    let order = shop.place(&host, "fail-me").await.unwrap();
    shop.recover(&host).await;
    let order = shop.read(&host, order.id).await;
    assert_eq!(order.status, Status::Cancelled);
    shop.assert_fair(&order);
}

#[tokio::test]
async fn a_lost_answer_to_the_lookup_is_asked_again() {
    let shop = Shop::open().await;
    shop.payments.script([Pending, AnswerLost, AnswerLost, AnswerLost, NotSent, AnswerLost]);
    let host = shop.host("a");
    let order = shop.place(&host, "book").await.unwrap();
    assert_eq!(order.status, Status::PaymentPending);
    shop.recover(&host).await;
    let order = shop.read(&host, order.id).await;
    // Never charged by the acquirer in this script: after the deadline it is undone.
    assert_eq!(order.status, Status::Cancelled);
    assert_eq!(shop.calls().iter().filter(|call| **call == "process").count(), 1);
    shop.assert_fair(&order);
}

#[tokio::test]
async fn a_timeout_is_unknown_and_not_a_failure() {
    let shop = Shop::open().await;
    shop.payments.script([AnswerLost, AnswerLost, AnswerLost]);
    let host = shop.host("a");
    let order = shop.place(&host, "book").await.unwrap();
    assert_eq!((order.status, order.failure_reason.as_ref()), (Status::PaymentPending, None));
    assert_eq!(shop.money(order.id), (TOTAL, 0), "the money was taken all the same");
    shop.recover(&host).await;
    let order = shop.read(&host, order.id).await;
    assert_eq!(order.status, Status::Completed);
    shop.assert_fair(&order);
}

// ---- deadlines ----

#[tokio::test]
async fn after_the_deadline_the_payment_is_looked_up_and_never_charged() {
    let shop = Shop::open().await;
    shop.payments.script([NotSent, NotSent, NotSent]);
    let host = shop.host("a");
    let order = shop.place(&host, "book").await.unwrap();
    let before = shop.calls().len();
    shop.world.advance(ORDER_DEADLINE);
    shop.recover(&host).await;
    let order = shop.read(&host, order.id).await;
    assert_eq!(order.status, Status::Cancelled);
    assert_eq!(shop.calls()[before..], ["look_up", "undo"]);
    shop.assert_fair(&order);
}

#[tokio::test]
async fn a_payment_approved_before_the_deadline_and_found_after_it_completes_the_order() {
    let shop = Shop::open().await;
    shop.payments.script([AnswerLost, AnswerLost, AnswerLost]);
    let host = shop.host("a");
    let order = shop.place(&host, "book").await.unwrap();
    shop.world.advance(ORDER_DEADLINE);
    shop.recover(&host).await;
    let order = shop.read(&host, order.id).await;
    assert_eq!(order.status, Status::Completed);
    shop.assert_fair(&order);
}

// ---- undo budget, operators ----

#[tokio::test]
async fn an_undo_whose_budget_is_spent_waits_for_an_operator_who_redrives_it() {
    let shop = Shop::open().await;
    let host = shop.host("a");
    let order = shop.place(&host, "book").await.unwrap();
    shop.payments.script([NotSent; 60]);
    let cancel = host.cancel(&context(&shop.world), &alice(), order.id).await;
    assert!(matches!(cancel, Err(OrderError::OutcomeUnknown(_))), "stored, but nothing to show: {cancel:?}");
    shop.recover(&host).await;
    let parked = shop.read(&host, order.id).await;
    assert_eq!(parked.status, Status::NeedsAttention);
    let sagas = host.sagas(Some(Status::NeedsAttention), 10).await.unwrap();
    assert_eq!((sagas.len(), sagas[0].at_stake.minor()), (1, TOTAL), "listed with the amount at stake");

    let ops = "ops".parse().unwrap();
    while shop.read(&host, order.id).await.status == Status::NeedsAttention {
        host.redrive(&context(&shop.world), &ops, order.id).await.unwrap();
        shop.recover(&host).await;
    }
    let order = shop.read(&host, order.id).await;
    assert_eq!(order.status, Status::Cancelled);
    shop.assert_fair(&order);
}

#[tokio::test]
async fn only_a_parked_order_is_redriven_or_resolved_by_hand() {
    let shop = Shop::open().await;
    let host = shop.host("a");
    let order = shop.place(&host, "book").await.unwrap();
    let (ops, note) = ("ops".parse().unwrap(), "settled by bank transfer".parse().unwrap());
    let refused = host.redrive(&context(&shop.world), &ops, order.id).await;
    assert!(matches!(refused, Err(OrderError::Illegal(Status::Completed))));
    let refused = host.resolve(&context(&shop.world), &ops, order.id, note).await;
    assert!(matches!(refused, Err(OrderError::Illegal(Status::Completed))));
}

// ---- cancel ----

#[tokio::test]
async fn cancel_of_a_completed_order_gives_the_money_back_once() {
    let shop = Shop::open().await;
    let host = shop.host("a");
    let order = shop.place(&host, "book").await.unwrap();
    for _ in 0..3 {
        let cancelled = host.cancel(&context(&shop.world), &alice(), order.id).await.unwrap();
        assert_eq!(cancelled.status, Status::Cancelled);
    }
    assert_eq!(shop.calls(), ["process", "undo"]);
    assert_eq!(shop.money(order.id), (TOTAL, TOTAL));
}

#[tokio::test]
async fn a_cancel_while_the_charge_is_under_way_undoes_what_the_charge_took() {
    let shop = Shop::open().await;
    let host = shop.host("a");
    let cancel = async {
        let id = loop {
            let found = shop.database.query(sql("SELECT id FROM orders")).await.unwrap();
            match found.rows.first() {
                Some(row) => break row.parse(0, "an id").unwrap(),
                None => tokio::task::yield_now().await,
            }
        };
        host.cancel(&context(&shop.world), &alice(), id).await.unwrap()
    };
    let (placed, cancelled) = tokio::join!(shop.place(&host, "book"), cancel);
    let id = cancelled.id;
    shop.recover(&host).await;
    let order = shop.read(&host, id).await;
    assert_eq!(order.status, Status::Cancelled);
    assert!(placed.is_ok(), "the first caller is told where the order stands");
    shop.assert_fair(&order);
}

#[tokio::test]
async fn cancel_is_durable_before_it_is_acknowledged() {
    let shop = Shop::open().await;
    let host = shop.host("a");
    let order = shop.place(&host, "book").await.unwrap();
    shop.database.writes.borrow_mut().clear();
    host.cancel(&context(&shop.world), &alice(), order.id).await.unwrap();
    assert_eq!(shop.database.writes.borrow()[0], Durability::Durable);
}

#[tokio::test]
async fn cancel_after_the_window_or_of_a_failed_order_is_refused() {
    let shop = Shop::open().await;
    let host = shop.host("a");
    let order = shop.place(&host, "book").await.unwrap();
    shop.world.advance(Duration::from_secs(3601));
    let refused = host.cancel(&context(&shop.world), &alice(), order.id).await;
    assert!(matches!(refused, Err(OrderError::Illegal(Status::Completed))));
    shop.payments.script([Declined]);
    let failed = shop.place(&host, "book").await.unwrap();
    let refused = host.cancel(&context(&shop.world), &alice(), failed.id).await;
    assert!(matches!(refused, Err(OrderError::Illegal(Status::PaymentFailed))));
}

#[tokio::test]
async fn another_users_order_does_not_exist() {
    let shop = Shop::open().await;
    let host = shop.host("a");
    let order = shop.place(&host, "book").await.unwrap();
    let mallory = Caller { subject: "mallory".parse().unwrap(), ..alice() };
    let context = context(&shop.world);
    assert!(matches!(host.read(&context, &mallory, order.id).await, Err(OrderError::NotFound)));
    assert!(matches!(host.cancel(&context, &mallory, order.id).await, Err(OrderError::NotFound)));
    assert!(matches!(host.history(&mallory, order.id).await, Err(OrderError::NotFound)));
    assert!(host.list(&mallory, None, None, 10).await.unwrap().orders.is_empty());
    let admin = Caller { admin: true, ..mallory };
    assert_eq!(host.read(&context, &admin, order.id).await.unwrap().id, order.id);
}

// ---- crashes: a write that does not happen, or whose answer is lost ----

#[tokio::test]
async fn a_crash_at_every_write_of_every_path_ends_like_a_run_without_one() {
    for (product, expected) in [("book", Status::Completed), ("fail-me", Status::Cancelled)] {
        for write in 0..4 {
            for fault in [DbFault::NotApplied, DbFault::UnknownNotDone, DbFault::UnknownDone] {
                let shop = Shop::open().await;
                shop.database.fail_write(write, fault);
                let answer = shop.place(&shop.host("a"), product).await;
                // The host is gone; another one takes over after the lease.
                shop.world.advance(LEASE);
                let successor = shop.host("b");
                shop.recover(&successor).await;
                if shop.count("SELECT count(*) FROM orders").await == 0 {
                    assert!(write == 0 && answer.is_err(), "an order is lost only when it was refused");
                    assert!(shop.calls().is_empty(), "no money moves before the intent is durable");
                    continue;
                }
                let order = shop.read(&successor, shop.only_order().await).await;
                assert_eq!(order.status, expected, "{product}, write {write}, {fault:?}");
                shop.assert_fair(&order);
            }
        }
    }
}

#[tokio::test]
async fn no_money_moves_when_the_intent_is_not_durable() {
    let shop = Shop::open().await;
    shop.database.fail_write(0, DbFault::NotApplied);
    let refused = shop.place(&shop.host("a"), "book").await;
    assert!(matches!(refused, Err(OrderError::Unavailable { .. })));
    assert!(shop.calls().is_empty());
    shop.database.fail_write(0, DbFault::UnknownDone);
    let refused = shop.place(&shop.host("a"), "book").await;
    assert!(matches!(refused, Err(OrderError::OutcomeUnknown(_))));
    assert!(shop.calls().is_empty());
}

// ---- ownership ----

#[tokio::test]
async fn a_zombie_owner_writes_nothing_after_a_takeover() {
    let shop = Shop::open().await;
    shop.payments.script([NotSent, NotSent, NotSent]);
    let (zombie, successor) = (shop.host("zombie"), shop.host("successor"));
    let order = shop.place(&zombie, "book").await.unwrap();
    // The zombie has read the journal; then the successor finishes the saga.
    let mut stale = zombie.store.saga(order.id).await.unwrap();
    shop.recover(&successor).await;
    let ended = shop.read(&successor, order.id).await;
    assert_eq!(ended.status, Status::Completed);
    // The zombie wakes up and wants to write its own end.
    let rows = shop.count("SELECT count(*) FROM order_journal").await;
    stale.record(Event::DeadlinePassed, shop.world.now()).unwrap();
    let lease = settle_order_core::Lease { owner: "zombie", until: shop.world.now() };
    let written =
        zombie.store.append(&order, &stale, lease, &context(&shop.world), Durability::Durable).await;
    assert!(matches!(written, Err(StoreError::Stale)));
    assert_eq!(shop.count("SELECT count(*) FROM order_journal").await, rows);
    assert_eq!(shop.read(&successor, order.id).await, ended);
}

#[tokio::test]
async fn a_journal_that_lost_entries_gets_no_hole() {
    let shop = Shop::open().await;
    let host = shop.host("one");
    let order = shop.place(&host, "book").await.unwrap();
    let mut held = host.store.saga(order.id).await.unwrap();
    shop.lose_all_but_the_intent().await;
    held.record(Event::CancelRequested { by: order.user_id.clone() }, shop.world.now()).unwrap();
    let written = append(&shop, &host, &order, &held).await;
    assert!(matches!(written, Err(StoreError::Stale)), "{written:?}");
    assert_eq!(shop.count("SELECT count(*) FROM order_journal").await, 1);
    shop.recover(&host).await;
    assert_eq!(shop.read(&host, order.id).await.status, Status::Completed);
}

#[tokio::test]
async fn a_journal_that_lost_entries_goes_on_with_one_history() {
    let shop = Shop::open().await;
    shop.payments.script([Pending]);
    let host = shop.host("one");
    let order = shop.place(&host, "book").await.unwrap();
    let mut held = host.store.saga(order.id).await.unwrap();
    shop.lose_all_but_the_intent().await;
    // Another host writes an entry of its own where the lost one was.
    let other = shop.host("two");
    other.cancel(&context(&shop.world), &alice(), order.id).await.unwrap();
    let again = shop.world.now().plus(SECOND);
    held.record(Event::ChargeDeferred { due_at: again }, shop.world.now()).unwrap();
    let written = append(&shop, &host, &order, &held).await;
    assert!(matches!(written, Err(StoreError::Stale)), "{written:?}");
    assert_eq!(shop.read(&other, order.id).await.status, Status::Cancelled);
}

async fn append(shop: &Shop, host: &Driver, order: &Order, saga: &Saga<OrderSaga>) -> Result<(), StoreError> {
    let lease = Lease { owner: "one", until: shop.world.now() };
    host.store.append(order, saga, lease, &context(&shop.world), Durability::Durable).await
}

#[tokio::test]
async fn what_payment_could_answer_otherwise_later_is_durable_at_once() {
    use Durability::{Durable, Relaxed};
    let shop = Shop::open().await;
    shop.payments.script([Declined]);
    shop.place(&shop.host("a"), "book").await.unwrap();
    assert_eq!(*shop.database.writes.borrow(), [Durable, Durable], "the client is told of a failure");

    let shop = Shop::open().await;
    shop.payments.script([NotSent, NotSent, NotSent]);
    let host = shop.host("a");
    shop.place(&host, "book").await.unwrap();
    shop.world.advance(ORDER_DEADLINE);
    shop.database.writes.borrow_mut().clear();
    host.resume_due(1).await.unwrap();
    // The claim, the deadline before the undo is sent, the end.
    assert_eq!(*shop.database.writes.borrow(), [Relaxed, Durable, Relaxed]);
    assert_eq!(shop.calls().last(), Some(&"undo"));
}

#[tokio::test]
async fn two_hosts_that_race_for_due_sagas_take_each_once() {
    let shop = Shop::open().await;
    let (first, second) = (shop.host("first"), shop.host("second"));
    for _ in 0..20 {
        shop.payments.script([NotSent, NotSent, NotSent]);
        shop.place(&first, "book").await.unwrap();
    }
    shop.world.advance(SECOND * 5);
    let (a, b) = tokio::join!(first.resume_due(16), second.resume_due(16));
    assert_eq!(a.unwrap().resumed + b.unwrap().resumed, 20);
    assert_eq!(shop.open_sagas().await, 0);
    assert_eq!(shop.count("SELECT count(*) FROM orders WHERE status = 'completed'").await, 20);
}

#[tokio::test]
async fn a_live_lease_is_respected_and_a_lapsed_one_is_not() {
    let shop = Shop::open().await;
    let order = shop.orphan("dead").await;
    let successor = shop.host("successor");
    assert_eq!(successor.resume_due(16).await.unwrap().resumed, 0);
    shop.world.advance(LEASE);
    assert_eq!(successor.resume_due(16).await.unwrap().resumed, 1);
    assert_eq!(shop.read(&successor, order.id).await.status, Status::Completed);
}

#[tokio::test]
async fn a_host_that_has_the_database_alone_takes_over_at_once() {
    let shop = Shop::open().await;
    shop.orphan("dead").await;
    let successor = shop.alone("successor");
    assert_eq!(successor.resume_due(16).await.unwrap().ended, 1);
}

#[tokio::test]
async fn a_read_of_an_order_whose_owner_is_gone_brings_it_up_to_date_first() {
    let shop = Shop::open().await;
    let order = shop.orphan("dead").await;
    shop.world.advance(LEASE);
    let seen = shop.read(&shop.host("restarted"), order.id).await;
    assert_eq!(seen.status, Status::Completed, "a client's view never goes backwards");
}

#[tokio::test]
async fn a_journal_that_cannot_be_replayed_parks_alone() {
    let shop = Shop::open().await;
    let host = shop.host("a");
    shop.payments.script([NotSent; 6]);
    let bad = shop.place(&host, "book").await.unwrap();
    let good = shop.place(&host, "book").await.unwrap();
    let newer = sql("UPDATE order_journal SET version = 99, event = '\"of_tomorrow\"' WHERE order_id = $1")
        .bind(bad.id.to_string());
    shop.database.execute(vec![newer], Durability::Durable).await.unwrap();
    shop.world.advance(SECOND * 5);
    let report = host.resume_due(16).await.unwrap();
    assert_eq!((report.resumed, report.ended, report.deferred), (2, 1, 1));
    assert_eq!(shop.read(&host, good.id).await.status, Status::Completed);
    assert_eq!(host.resume_due(16).await.unwrap().resumed, 0, "the bad one is not claimed again at once");
    assert!(shop.world.log.borrow().iter().any(|line| line.contains("version 99")));
}

// ---- idempotency ----

#[tokio::test]
async fn a_repeated_request_answers_the_same_order() {
    let shop = Shop::open().await;
    let host = shop.host("a");
    let context = context(&shop.world);
    let first = host.place(&context, request("book"), Some(claim(&shop, 1, 1))).await.unwrap();
    let again = host.place(&context, request("book"), Some(claim(&shop, 1, 1))).await.unwrap();
    assert_eq!((first.order.id, first.replayed, again.replayed), (again.order.id, false, true));
    let other = host.place(&context, request("pen"), Some(claim(&shop, 1, 2))).await;
    assert!(matches!(other, Err(OrderError::KeyReused)));
    assert_eq!(shop.calls(), ["process"]);
}

#[tokio::test]
async fn a_key_expires_after_its_saga_has_settled_and_not_before() {
    let shop = Shop::open().await;
    let host = shop.host("a");
    shop.payments.script([NotSent; 3]);
    let open = host.place(&context(&shop.world), request("book"), Some(claim(&shop, 1, 1))).await.unwrap();
    shop.world.advance(Duration::from_secs(25 * 3600));
    let again = host.place(&context(&shop.world), request("book"), Some(claim(&shop, 1, 1))).await.unwrap();
    assert_eq!(again.order.id, open.order.id, "its saga was still open");
    shop.recover(&host).await;
    // Another request, even: the key is free.
    let fresh = host.place(&context(&shop.world), request("pen"), Some(claim(&shop, 1, 2))).await.unwrap();
    assert_ne!(fresh.order.id, open.order.id);
    let again = host.place(&context(&shop.world), request("pen"), Some(claim(&shop, 1, 2))).await.unwrap();
    assert_eq!((again.order.id, again.replayed), (fresh.order.id, true));
}

#[tokio::test]
async fn a_duplicate_of_a_request_under_way_waits_and_then_answers_the_same_order() {
    let shop = Shop::open().await;
    let host = shop.host("a");
    let context = context(&shop.world);
    let (first, second) = tokio::join!(
        host.place(&context, request("book"), Some(claim(&shop, 1, 1))),
        host.place(&context, request("book"), Some(claim(&shop, 1, 1))),
    );
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first.order, second.order);
    assert_eq!([first.replayed, second.replayed].iter().filter(|replayed| **replayed).count(), 1);
    // One that waited long asks what became of it; nobody charges again.
    assert_eq!(shop.calls().iter().filter(|call| **call == "process").count(), 1);
}

#[tokio::test]
async fn an_order_of_the_first_release_keeps_its_key_and_its_messages() {
    let shop = Shop::open_at(&Schema { service: SCHEMA.service, migrations: &SCHEMA.migrations[..1] }).await;
    let (id, now) = ("01a22186-7dc0-79b7-aef0-b9a27b77249e", shop.world.now());
    let claim = claim(&shop, 1, 1);
    let placed = r#"{"placed":{"order_id":"01a22186-7dc0-79b7-aef0-b9a27b77249e",
        "total":{"minor":1250,"currency":"EUR"},"deadline":2,"cancel_until":3,"final_step":"succeeds"}}"#;
    let written = vec![
        sql("INSERT INTO orders (id, user_id, status, failure_reason, total_minor, currency, items, owner,
                                 correlation_id, created_at, updated_at)
             VALUES ($1, $2, 'payment_failed', 'declined', 1250, 'EUR', '[]', 'a', 'c0ffee', $3, $3)")
        .bind(id)
        .bind(alice().subject.as_str())
        .bind(now),
        sql("INSERT INTO order_journal (order_id, seq, version, at, event, status, trace_id)
             VALUES ($1, 0, 1, $2, $3, 'payment_pending', 'a017407bbb5c00d7')")
        .bind(id)
        .bind(now)
        .bind(placed),
        sql("INSERT INTO order_outbox (order_id, seq, type, payload) VALUES ($1, 0, 'order.x', '{}')")
            .bind(id),
        sql("INSERT INTO order_idempotency (scope, fingerprint, order_id, expires_at) VALUES ($1, $2, $3, $4)")
            .bind(Value::Bytes(claim.scope.to_vec()))
            .bind(Value::Bytes(claim.fingerprint.to_vec()))
            .bind(id)
            .bind(claim.expires_at),
    ];
    shop.database.execute(written, Durability::Durable).await.unwrap();

    SCHEMA.migrate(&shop.database, now).await.unwrap();
    let host = shop.host("b");
    let again = host.place(&context(&shop.world), request("book"), Some(claim.clone())).await.unwrap();
    assert_eq!((again.order.id.to_string().as_str(), again.replayed), (id, true));
    let other = IdempotencyClaim { fingerprint: [2; 32], ..claim };
    let reused = host.place(&context(&shop.world), request("pen"), Some(other)).await;
    assert!(matches!(reused, Err(OrderError::KeyReused)));
    let told = sql("SELECT order_id, seq, status, trace_id, correlation_id FROM order_messages");
    let rows = shop.database.query(told).await.unwrap().rows;
    let texts = [0, 2, 3, 4].map(|column| rows[0].text(column).unwrap());
    assert_eq!(texts, [id, "payment_pending", "a017407bbb5c00d7", "c0ffee"]);
}

// ---- breaker ----

#[tokio::test]
async fn with_an_open_breaker_nothing_is_written_before_the_intent_and_nothing_failed_after_it() {
    let shop = Shop::open().await;
    let host = shop.host("a");
    shop.limiter.open.set(true);
    let refused = shop.place(&host, "book").await;
    assert!(matches!(refused, Err(OrderError::Unavailable { .. })));
    assert_eq!(shop.count("SELECT count(*) FROM orders").await, 0);

    shop.limiter.open.set(false);
    let done = host.place(&context(&shop.world), request("book"), Some(claim(&shop, 1, 1))).await.unwrap();
    shop.limiter.open.set(true);
    let again = host.place(&context(&shop.world), request("book"), Some(claim(&shop, 1, 1))).await.unwrap();
    assert_eq!(again.order.id, done.order.id, "a duplicate still gets its order");
    let cancelled = host.cancel(&context(&shop.world), &alice(), done.order.id).await.unwrap();
    assert_eq!(cancelled.status, Status::Compensating, "it waits for payment; nothing is lost");
    shop.limiter.open.set(false);
    shop.recover(&host).await;
    assert_eq!(shop.read(&host, done.order.id).await.status, Status::Cancelled);
}

// ---- outbox, pages, storage ----

#[tokio::test]
async fn every_change_of_status_has_one_outbox_row_in_order() {
    let shop = Shop::open().await;
    let host = shop.host("a");
    shop.payments.script([NotSent, NotSent, NotSent, Pending]);
    let order = shop.place(&host, "fail-me").await.unwrap();
    shop.recover(&host).await;
    let told = sql("SELECT status FROM order_messages ORDER BY order_id, seq");
    let found = shop.database.query(told).await.unwrap();
    let statuses: Vec<&str> = found.rows.iter().map(|row| row.text(0).unwrap()).collect();
    assert_eq!(statuses, ["payment_pending", "compensating", "cancelled"]);
    shop.assert_fair(&shop.read(&host, order.id).await);
    assert_eq!(shop.count(settle_tests::acquirer_ledger::OUTBOX_GAPS).await, 0);
}

#[tokio::test]
async fn pages_show_every_order_once_newest_first() {
    let shop = Shop::open().await;
    let host = shop.host("a");
    let mut placed = Vec::new();
    for _ in 0..6 {
        placed.push(shop.place(&host, "book").await.unwrap().id);
        shop.world.advance(SECOND);
    }
    let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        pages += 1;
        let page = host.list(&alice(), Some(Status::Completed), after, 3).await.unwrap();
        seen.extend(page.orders.iter().map(|order| order.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    placed.reverse();
    assert_eq!((seen, pages), (placed, 2));
    assert!(host.list(&alice(), Some(Status::Paid), None, 3).await.unwrap().orders.is_empty());
}
