//! The components through wasmtime: typed WIT calls, fake ports, no network.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use settle_host::engine::{self, Compiler, Source};
use settle_host::guest::{Ctx, Grants};
use settle_host::http::outbound::{Connections, Outbound};
use settle_host::limits::Limits;
use settle_host::sql::Backend;
use settle_host::sql::sqlite::Sqlite;
use settle_tests::host::{cache, component};
use wasmtime::component::{Accessor, Component, HasData, Instance, Linker};
use wasmtime::{Engine, Store};

mod wit {
    wasmtime::component::bindgen!({
        inline: "package settle:tests;
                 world payment-api {
                     import settle:acquirer/acquirer@0.1.0;
                     export settle:payment/payments@0.1.0;
                 }",
        path: ["../wit/acquirer", "../wit/payment"],
    });
    pub mod order {
        wasmtime::component::bindgen!({
            inline: "package settle:tests-order; world order-api { export settle:order/orders@0.1.0; }",
            path: ["../wit/order"],
        });
    }
    pub mod identity {
        wasmtime::component::bindgen!({
            inline: "package settle:tests-identity; world identity-api { export settle:identity/tokens@0.1.0; }",
            path: ["../wit/identity"],
        });
    }
}

use wit::settle::acquirer::acquirer;

/// What the fake acquirer answers next, and what it was asked.
#[derive(Default)]
struct Script {
    charges: VecDeque<Result<acquirer::ChargeOutcome, acquirer::Error>>,
    voids: VecDeque<Result<acquirer::Standing, acquirer::Error>>,
    asked: Vec<String>,
}

static SCRIPT: Mutex<Script> =
    Mutex::new(Script { charges: VecDeque::new(), voids: VecDeque::new(), asked: Vec::new() });

struct FakeAcquirer;

impl HasData for FakeAcquirer {
    type Data<'a> = &'a mut Ctx;
}

impl acquirer::Host for Ctx {
    fn remembers_keys(&mut self) -> bool {
        true
    }
}

impl<T: Send> acquirer::HostWithStore<T> for FakeAcquirer {
    async fn charge(
        _: &Accessor<T, Self>,
        key: String,
        amount: acquirer::Money,
        _: Option<String>,
    ) -> Result<acquirer::ChargeOutcome, acquirer::Error> {
        let mut script = SCRIPT.lock().unwrap();
        script.asked.push(format!("charge {key} {} {}", amount.minor, amount.currency));
        script.charges.pop_front().expect("an unexpected charge")
    }

    async fn lookup(_: &Accessor<T, Self>, _: String) -> Result<acquirer::Standing, acquirer::Error> {
        Ok(acquirer::Standing::Unknown)
    }

    async fn refund(
        _: &Accessor<T, Self>,
        _: String,
        _: String,
        _: acquirer::Money,
    ) -> Result<acquirer::RefundOutcome, acquirer::Error> {
        Ok(acquirer::RefundOutcome::Refunded)
    }

    async fn void(_: &Accessor<T, Self>, key: String) -> Result<acquirer::Standing, acquirer::Error> {
        let mut script = SCRIPT.lock().unwrap();
        script.asked.push(format!("void {key}"));
        script.voids.pop_front().expect("an unexpected void")
    }
}

struct Bench {
    folder: tempfile::TempDir,
    engine: Engine,
}

impl Bench {
    fn new() -> Self {
        std::fs::create_dir_all(cache()).unwrap();
        Self { folder: tempfile::tempdir().unwrap(), engine: engine::engine().unwrap() }
    }

    fn load(&self, name: &str) -> Component {
        let source = Source { name: name.to_owned(), path: component(name), plugs: Vec::new() };
        engine::load(&self.engine, &source, &cache(), Compiler::Here).unwrap().component
    }

    async fn instance(&self, name: &str, settings: &[(&str, &str)]) -> (Store<Ctx>, Instance) {
        let mut linker: Linker<Ctx> = engine::linker(&self.engine).unwrap();
        acquirer::add_to_linker::<_, FakeAcquirer>(&mut linker, |ctx| ctx).unwrap();
        let database: Arc<dyn Backend> =
            Arc::new(Sqlite::open(&self.folder.path().join(format!("{name}.db"))).unwrap());
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let grants = Grants {
            databases: Arc::new(HashMap::from([(name.to_owned(), database)])),
            settings: Arc::new(settings.collect()),
            limits: Arc::new(Limits::default()),
            outbound: Outbound::new(Connections::new(), Vec::new()),
            world: Arc::new(settle_host::world::Real),
        };
        let mut store = Store::new(&self.engine, Ctx::new(&grants));
        store.set_epoch_deadline(1_000_000);
        let instance = linker.instantiate_async(&mut store, &self.load(name)).await.unwrap();
        (store, instance)
    }
}

/// What each component needs from its host, besides clocks, randomness, stderr and HTTP: nothing else.
#[test]
fn components_import_only_what_they_need() {
    let bench = Bench::new();
    let expected = BTreeMap::from([
        ("identity", vec!["settle:config/store", "settle:limits/limiter", "settle:sql/database"]),
        (
            "order",
            vec![
                "settle:config/store",
                "settle:limits/limiter",
                "settle:sql/database",
                "settle:unary/client",
            ],
        ),
        (
            "payment",
            vec![
                "settle:acquirer/acquirer",
                "settle:config/store",
                "settle:limits/limiter",
                "settle:sql/database",
                "settle:unary/client",
            ],
        ),
        ("acquirer_simulator", vec!["settle:config/store", "settle:sql/database"]),
    ]);
    for (name, expected) in expected {
        let component = bench.load(name);
        let ty = component.component_type();
        let imports: BTreeSet<String> =
            ty.imports(&bench.engine).map(|(import, _)| import.to_owned()).collect();
        let unversioned = |import: &String| import.split('@').next().unwrap().to_owned();
        let ours: Vec<String> =
            imports.iter().filter(|import| import.starts_with("settle:")).map(unversioned).collect();
        assert_eq!(ours, expected, "{name}");
        let foreign: Vec<&String> =
            imports.iter().filter(|i| !i.starts_with("settle:") && !i.starts_with("wasi:")).collect();
        assert!(foreign.is_empty(), "{name} imports {foreign:?}");
        // `wasi:filesystem/preopens` comes with the standard library; the host preopens nothing.
        let sockets: Vec<&String> = imports.iter().filter(|i| i.starts_with("wasi:sockets")).collect();
        assert!(sockets.is_empty(), "{name} imports {sockets:?}");
    }
}

#[tokio::test]
async fn payment_takes_once_and_never_after_an_undo() {
    use wit::exports::settle::payment::payments::{Charge, Money, ProcessOutcome, Status};
    let bench = Bench::new();
    let (mut store, instance) = bench.instance("payment", &[]).await;
    let world = wit::PaymentApi::new(&mut store, &instance).unwrap();
    let eur = |minor| Money { minor, currency: "EUR".to_owned() };
    let charge = |key: &str, minor| Charge {
        key: key.to_owned(),
        order_id: "o".to_owned(),
        amount: eur(minor),
        method: None,
    };
    {
        let mut script = SCRIPT.lock().unwrap();
        script.charges.push_back(Err(acquirer::Error::OutcomeUnknown("lost".to_owned())));
        script.charges.push_back(Ok(acquirer::ChargeOutcome::Approved));
        script.voids.push_back(Ok(acquirer::Standing::Voided));
    }
    store
        .run_concurrent(async |accessor| {
            let payments = world.settle_payment_payments();
            let lost = payments.call_process(accessor, charge("a", 700)).await.unwrap();
            assert!(lost.is_err(), "{lost:?}");
            let found = payments.call_process(accessor, charge("a", 700)).await.unwrap().unwrap();
            let ProcessOutcome::Captured(payment) = found else { panic!("{found:?}") };
            assert_eq!((payment.captured, payment.status), (700, Status::Captured));
            let other = payments.call_process(accessor, charge("a", 701)).await.unwrap().unwrap();
            assert!(matches!(other, ProcessOutcome::ExistsWithDifferentAmount(_)), "{other:?}");

            let undone = payments
                .call_undo(accessor, "b".into(), "o".into(), eur(5), "test".into())
                .await
                .unwrap()
                .unwrap();
            assert_eq!(undone.status, Status::Voided);
            let late = payments.call_process(accessor, charge("b", 5)).await.unwrap().unwrap();
            assert!(matches!(late, ProcessOutcome::Voided(_)), "{late:?}");
            let bad = payments.call_process(accessor, charge("c", -1)).await.unwrap();
            assert!(bad.is_err(), "{bad:?}");
        })
        .await
        .unwrap();
    let asked = SCRIPT.lock().unwrap().asked.clone();
    assert_eq!(asked, ["charge a 700 EUR", "charge a 700 EUR", "void b"], "and nothing more");
}

#[tokio::test]
async fn an_order_waits_when_payment_cannot_be_reached() {
    use wit::order::exports::settle::order::orders::{Caller, Error, Item, Money, NewOrder, Status};
    let bench = Bench::new();
    let (mut store, instance) = bench.instance("order", &[("order_client_secret", "x")]).await;
    let world = wit::order::OrderApi::new(&mut store, &instance).unwrap();
    let caller = |subject: &str| Caller { issuer: "us".into(), subject: subject.into(), admin: false };
    let unit_price = Money { minor: 100, currency: "EUR".into() };
    let item = Item { product_id: "p".into(), quantity: 2, unit_price };
    let new_order = |items| NewOrder {
        caller: caller("alice"),
        user_id: None,
        items,
        payment_method: None,
        idempotency_key: Some("k".into()),
    };
    store
        .run_concurrent(async |accessor| {
            let orders = world.settle_order_orders();
            let empty = orders.call_place(accessor, new_order(vec![])).await.unwrap();
            assert!(matches!(empty, Err(Error::Invalid(_))), "{empty:?}");
            let placed = orders.call_place(accessor, new_order(vec![item.clone()])).await.unwrap().unwrap();
            assert_eq!((placed.status, placed.total.minor), (Status::PaymentPending, 200));
            let hidden = orders.call_get(accessor, caller("bob"), placed.id.clone()).await.unwrap();
            assert!(matches!(hidden, Err(Error::NotFound)), "{hidden:?}");
            let cancelled = orders.call_cancel(accessor, caller("alice"), placed.id.clone()).await.unwrap();
            assert!(
                matches!(cancelled, Err(Error::OutcomeUnknown)),
                "stored, and not shown before payment answers: {cancelled:?}"
            );
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn identity_tells_unknown_users_and_wrong_passwords_alike() {
    use wit::identity::exports::settle::identity::tokens::Error;
    let bench = Bench::new();
    let seed = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let settings = [("token_signing_key", seed), ("seed_admin_password", "long enough")];
    let (mut store, instance) = bench.instance("identity", &settings).await;
    let world = wit::identity::IdentityApi::new(&mut store, &instance).unwrap();
    store
        .run_concurrent(async |accessor| {
            let tokens = world.settle_identity_tokens();
            for (username, password) in [("admin", "wrong"), ("nobody", "long enough"), ("", "")] {
                let refused = tokens.call_issue(accessor, username.into(), password.into()).await.unwrap();
                assert!(matches!(refused, Err(Error::WrongCredentials)), "{refused:?}");
            }
            let token =
                tokens.call_issue(accessor, "Admin".into(), "long enough".into()).await.unwrap().unwrap();
            assert_eq!((token.jwt.split('.').count(), token.expires_in_seconds), (3, 3600));
            let jwks = tokens.call_jwks(accessor).await.unwrap().unwrap();
            assert!(jwks.contains("Ed25519"));
        })
        .await
        .unwrap();
}
