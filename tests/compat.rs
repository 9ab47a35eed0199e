//! Clients of the described system: their JSON and their gRPC, through the gateway and at the services.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::{Value, json};
use settle_proto::compat::{orders, payments};
use settle_proto::health_v1 as health;
use settle_tests::client::{Answer, Client};
use settle_tests::grpc;
use settle_tests::host::Host;

/// Logs in as the described clients do.
async fn login(client: Client, origin: &str, path: &str) -> Client {
    let body = json!({ "username": "admin", "password": "password" });
    let answer = client.post(&format!("{origin}{path}"), &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    client.with_token(answer.json()["token"].as_str().unwrap())
}

async fn create(client: &Client, url: &str, product: &str, amount: f64) -> Value {
    let body = json!({ "userId": "customer-7", "productId": product, "amount": amount });
    let answer = client.post(url, &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[tokio::test]
async fn orders_are_placed_as_json_with_each_outcome() {
    let host = Host::start(&[]);
    let gateway = host.url("gateway");
    let admin = login(host.edge(), &gateway, "/auth/login").await;
    for url in [
        format!("{gateway}/OrderService/CreateOrder"),
        format!("{gateway}/orders.OrderService/CreateOrder"),
        format!("{}/orders.OrderService/CreateOrder", host.url("order")),
    ] {
        let done = create(&admin, &url, "book", 19.99).await;
        assert_eq!(done["status"], "SUCCESS", "{done}");
        let order = admin.order(done["orderId"].as_str().unwrap()).await;
        assert_eq!(order["total"], json!({ "minor": 1999, "currency": "USD" }));
        assert_eq!(order["user_id"], "customer-7");
        assert_eq!(create(&admin, &url, "book", 999.99).await["status"], "SUCCESS");
        let declined = create(&admin, &url, "book", 1000.0).await;
        assert_eq!(declined["status"], "FAILED", "{declined}");
        assert!(declined["message"].as_str().unwrap().contains("over the limit"), "{declined}");
        let failed = create(&admin, &url, "fail-me", 20.0).await;
        assert_eq!(failed["status"], "FAILED", "{failed}");
        let order = admin.order(failed["orderId"].as_str().unwrap()).await;
        assert_eq!(order["status"], "cancelled");
        assert_eq!(admin.payment_of(order["id"].as_str().unwrap()).await["refunded"], 2000);
    }
    let snake = json!({ "user_id": "customer-7", "product_id": "book", "amount": 5 });
    let url = format!("{gateway}/OrderService/CreateOrder");
    assert_eq!(admin.post(&url, &snake).await.json()["status"], "SUCCESS");
    // A key makes it repeatable; without one every call is an order.
    let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
    let place = async || {
        let answer = admin.send(http::Method::POST, &url, &headers, snake.to_string()).await.unwrap();
        answer.json()["orderId"].clone()
    };
    assert_eq!(place().await, place().await);
}

#[tokio::test]
async fn who_may_not_order_is_told_so_and_bad_input_is_named() {
    let host = Host::start(&[]);
    let url = format!("{}/OrderService/CreateOrder", host.url("gateway"));
    let body = json!({ "userId": "someone", "productId": "book", "amount": 5.0 });
    let nobody = host.edge().post(&url, &body).await;
    assert_eq!((nobody.status, nobody.problem().as_str()), (401, "unauthenticated"));
    let alice = host.edge().register("alice").await;
    let for_another = alice.post(&url, &body).await;
    assert_eq!((for_another.status, for_another.problem().as_str()), (403, "forbidden"));
    let own = alice.post(&url, &json!({ "productId": "book", "amount": 5.0 })).await;
    assert_eq!(own.json()["status"], "SUCCESS", "{own:?}");
    let refused = async |body: Value| {
        let answer: Answer = alice.post(&url, &body).await;
        (answer.status, answer.json()["detail"].as_str().unwrap_or_default().to_owned())
    };
    for (amount, why) in [
        (json!(0), "more than zero"),
        (json!(-1), "more than zero"),
        (json!(1.001), "more decimals"),
        (json!(1e300), "too large"),
        (json!("12"), "invalid type"),
        (Value::Null, "invalid type"),
    ] {
        let (status, detail) = refused(json!({ "productId": "book", "amount": amount })).await;
        assert!(status == 422 && detail.contains(why), "{amount}: {status} {detail}");
    }
    let (status, detail) = refused(json!({ "productId": "", "amount": 1 })).await;
    assert!(status == 422 && detail.contains("product_id must not be empty"), "{detail}");
    let unknown = alice.post(&format!("{}/OrderService/Nothing", host.url("gateway")), &json!({})).await;
    assert_eq!(unknown.status, 405);
}

#[tokio::test]
async fn payments_are_made_once_an_order_as_json() {
    let host = Host::start(&[]);
    let admin = login(host.client(), &host.url("identity"), "/login").await;
    let base = format!("{}/payments.PaymentService", host.url("payment"));
    let process = async |order: &str, amount: f64| {
        let body = json!({ "order_id": order, "amount": amount, "user_id": "u" });
        admin.post(&format!("{base}/ProcessPayment"), &body).await.json()
    };
    let first = process("order 17 \u{e4}", 12.5).await;
    assert_eq!(first["success"], true, "{first}");
    assert_eq!(process("order 17 \u{e4}", 12.5).await, first);
    let other = process("order 17 \u{e4}", 13.0).await;
    assert_eq!(
        (other["success"].as_bool(), other["status_message"].as_str()),
        (Some(false), Some("already paid with another amount"))
    );
    let declined = process("order-18", 1000.0).await;
    assert_eq!(declined["success"], false, "{declined}");
    let refund = async |id: &str| {
        let body = json!({ "payment_id": id, "reason": "test" });
        admin.post(&format!("{base}/RefundPayment"), &body).await
    };
    let id = first["payment_id"].as_str().unwrap();
    for _ in 0..2 {
        assert_eq!(refund(id).await.json()["success"], true);
    }
    let payment = admin.get(&format!("{}/v1/payments/{id}", host.url("payment"))).await.json();
    assert_eq!((payment["captured"].as_i64(), payment["refunded"].as_i64()), (Some(1250), Some(1250)));
    assert_eq!(refund(declined["payment_id"].as_str().unwrap()).await.json()["success"], false);
    assert_eq!(refund("nothing").await.status, 404);
}

#[tokio::test]
async fn payment_needs_no_token_on_this_machine_in_development_and_always_elsewhere() {
    let body = json!({ "order_id": "o-1", "amount": 1.0, "user_id": "u" });
    let host = Host::start(&[]);
    let pay = async |host: &Host, origin: &str, headers: &[(&str, &str)]| {
        let url = format!("{origin}/payments.PaymentService/ProcessPayment");
        let headers = [&[("content-type", "application/json")], headers].concat();
        host.client().send(http::Method::POST, &url, &headers, body.to_string()).await.unwrap().status
    };
    assert_eq!(pay(&host, &host.url("payment"), &[]).await, 200);
    assert_eq!(pay(&host, &host.url("payment_grpc"), &[]).await, 200);
    assert_eq!(pay(&host, &host.url("payment"), &[("authorization", "Bearer junk")]).await, 401);
    // Nobody gets in through the gateway, whatever it says of itself.
    for claim in
        [("x-settle-peer", "127.0.0.1"), ("x-settle-client", "127.0.0.1"), ("x-forwarded-for", "127.0.0.1")]
    {
        assert_eq!(pay(&host, &host.url("gateway"), &[claim]).await, 401, "{claim:?}");
    }
    // Only the described interface, not ours.
    let list = host.client().get(&format!("{}/v1/payments?order_id=o-1", host.url("payment"))).await;
    assert_eq!(list.status, 401);

    let production = ["--profile", "production", "--listen", "127.0.0.1"];
    let host = Host::start(&production);
    assert_eq!(pay(&host, &host.url("payment"), &[]).await, 401);
    assert_eq!(pay(&host, &host.url("payment"), &[("x-settle-peer", "127.0.0.1")]).await, 401);
}

#[tokio::test]
async fn the_same_over_grpc() {
    let host = Host::start(&[]);
    let admin = login(host.edge(), &host.url("gateway"), "/auth/login").await;
    let token = Some(admin.token.as_str());
    for origin in [host.url("gateway_grpc"), host.url("order")] {
        let create = async |product: &str, amount, token| {
            let request = orders::CreateOrderRequest {
                user_id: "customer-7".into(),
                product_id: product.into(),
                amount,
            };
            let method = "/orders.OrderService/CreateOrder";
            grpc::call::<orders::OrderResponse>(&origin, method, token, &request).await
        };
        assert_eq!(create("book", 5.25, token).await.unwrap().status, "SUCCESS");
        assert_eq!(create("book", 1000.0, token).await.unwrap().status, "FAILED");
        assert_eq!(create("fail-me", 5.25, token).await.unwrap().status, "FAILED");
        assert_eq!(create("book", 5.25, None).await, Err("16".to_owned()));
        assert_eq!(create("book", f64::NAN, token).await, Err("3".to_owned()));
        assert_eq!(create("", 1.0, token).await, Err("3".to_owned()));
    }
    for origin in [host.url("gateway_grpc"), host.url("payment_grpc"), host.url("payment")] {
        let request = payments::PaymentRequest { order_id: "g-1".into(), amount: 7.5, user_id: "u".into() };
        let method = "/payments.PaymentService/ProcessPayment";
        let paid: payments::PaymentResponse = grpc::call(&origin, method, token, &request).await.unwrap();
        assert!(paid.success, "{paid:?}");
        let request = payments::RefundRequest { payment_id: paid.payment_id, reason: "r".into() };
        let method = "/payments.PaymentService/RefundPayment";
        let back: payments::PaymentResponse = grpc::call(&origin, method, token, &request).await.unwrap();
        assert!(back.success, "{back:?}");
    }
}

#[tokio::test]
async fn every_grpc_port_tells_its_health() {
    let host = Host::start(&[]);
    let serving = Ok(i32::from(health::ServingStatus::Serving));
    let rows = [
        ("gateway_grpc", "", serving.clone()),
        ("gateway_grpc", orders::SERVICE, serving.clone()),
        ("gateway_grpc", payments::SERVICE, serving.clone()),
        ("gateway_grpc", "nobody.Service", Err("5".to_owned())),
        ("order", "", serving.clone()),
        ("order", orders::SERVICE, serving.clone()),
        ("order", payments::SERVICE, Err("5".to_owned())),
        ("payment_grpc", "", serving.clone()),
        ("payment_grpc", payments::SERVICE, serving),
    ];
    for (port, service, expected) in rows {
        let request = health::HealthCheckRequest { service: service.to_owned() };
        let method = "/grpc.health.v1.Health/Check";
        let answer = grpc::call::<health::HealthCheckResponse>(&host.url(port), method, None, &request).await;
        assert_eq!(answer.map(|answer| answer.status), expected, "{port} {service}");
    }
    let request = health::HealthCheckRequest::default();
    let (origin, method) = (host.url("order"), "/grpc.health.v1.Health/Watch");
    let watch = grpc::call::<health::HealthCheckResponse>(&origin, method, None, &request).await;
    assert_eq!(watch.map(|answer| answer.status), Err("12".to_owned()));
}

/// Asks one question after the other on one open stream, as tools do.
#[tokio::test]
async fn every_grpc_port_describes_its_services() {
    use settle_proto::reflection_v1::{Answer, Asked, ServerReflectionRequest};
    let host = Host::start(&[]);
    let (order, payment) = (orders::SERVICE, payments::SERVICE);
    for (port, services) in [
        ("gateway_grpc", vec![order, payment, health::SERVICE]),
        ("order", vec![order, health::SERVICE]),
        ("payment_grpc", vec![payment, settle_proto::payment_v1::SERVICE, health::SERVICE]),
    ] {
        for version in ["v1", "v1alpha"] {
            let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
            let mut stream = grpc::Stream::open(&host.url(port), &path).await;
            let mut ask = async |asked| {
                let request = ServerReflectionRequest { host: String::new(), asked: Some(asked) };
                stream
                    .ask::<settle_proto::reflection_v1::ServerReflectionResponse>(&request)
                    .await
                    .answer
                    .unwrap()
            };
            let Answer::Services(listed) = ask(Asked::ListServices(String::new())).await else { panic!() };
            let listed: Vec<String> = listed.service.into_iter().map(|service| service.name).collect();
            assert_eq!(listed, services, "{port}");
            for service in &services {
                let Answer::FileDescriptors(files) =
                    ask(Asked::FileContainingSymbol((*service).to_owned())).await
                else {
                    panic!("{service}")
                };
                let file: prost_types::FileDescriptorProto =
                    prost::Message::decode(files.file_descriptor_proto[0].as_slice()).unwrap();
                assert_eq!(format!("{}.{}", file.package(), file.service[0].name()), *service);
                let found = ask(Asked::FileByFilename(file.name().to_owned())).await;
                assert_eq!(found, Answer::FileDescriptors(files));
            }
            let unknown = ask(Asked::FileContainingSymbol("no.Such".to_owned())).await;
            assert!(matches!(unknown, Answer::Error(error) if error.error_code == 5));
            assert_eq!(stream.finish().await, "0");
        }
    }
}
