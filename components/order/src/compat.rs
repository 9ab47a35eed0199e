//! `orders.OrderService` of the described system: one product an order, amounts without a currency.

use std::rc::Rc;

use settle_order_core::{Caller, Item, NewOrder, Order, OrderError, Status};
use settle_proto::compat::orders as wire;
use settle_service_kit::http::{Call, Reply};
use settle_service_kit::problem::{Kind, Problem};
use settle_service_kit::rpc;

use crate::app::{self, App, WORLD};
use crate::requests::{self, caller_of, claim_of, invalid, key_of, new_order, problem_of};

pub use wire::SERVICE;

/// Whether a path names a method of the service, with its package or without.
pub fn is_method(path: &str) -> bool {
    path.starts_with("/orders.OrderService/") || path.starts_with("/OrderService/")
}

pub async fn answer(call: &Call) -> Reply {
    match admitted(call).await {
        Ok((app, caller)) => rpc::answer(call, |request| create_order(call, &app, &caller, request)).await,
        Err(problem) => rpc::refuse(call, &problem),
    }
}

/// The service and who calls it. Nothing of the body is read before.
async fn admitted(call: &Call) -> Result<(Rc<App>, Caller), Problem> {
    if !call.path.ends_with("/CreateOrder") {
        return Err(Problem::new(Kind::MethodNotAllowed, "Unknown method."));
    }
    if call.method != http::Method::POST {
        return Err(Problem::method_not_allowed("POST"));
    }
    let app = app::get().await.map_err(|error| error.problem(&WORLD, &call.context))?;
    let claims = app.auth.authenticate(call).await?;
    let caller = caller_of(&claims)?;
    Ok((app, caller))
}

async fn create_order(
    call: &Call,
    app: &Rc<App>,
    caller: &Caller,
    request: wire::CreateOrderRequest,
) -> Result<wire::OrderResponse, Problem> {
    let order = order_of(app, caller, request)?;
    // The described clients send no key: then every call is an order.
    let claim = match key_of(call)? {
        Some(key) => Some(claim_of(caller, "CreateOrder", &key, &order)?),
        None => None,
    };
    match requests::place(app, call, order, claim).await {
        Ok(placed) => Ok(response_of(&placed.order)),
        Err(error @ OrderError::Unavailable { .. }) => {
            let problem = problem_of(error, call);
            let (order_id, status) = (String::new(), "ERROR".to_owned());
            Ok(wire::OrderResponse { order_id, status, message: problem.detail })
        }
        Err(error) => Err(problem_of(error, call)),
    }
}

fn order_of(app: &Rc<App>, caller: &Caller, request: wire::CreateOrderRequest) -> Result<NewOrder, Problem> {
    let user_id = match request.user_id.as_str() {
        "" => None,
        user_id => Some(user_id.parse().map_err(|error| invalid(&error))?),
    };
    let product_id = request.product_id.parse().map_err(|error| invalid(&error))?;
    let unit_price = rpc::amount_of(request.amount, app.compat_currency)?;
    let items = vec![Item { product_id, quantity: 1, unit_price }];
    new_order(caller, user_id, items, None)
}

fn response_of(order: &Order) -> wire::OrderResponse {
    let reason = order.failure_reason.as_ref().map(ToString::to_string);
    let (status, message) = match order.status {
        Status::Completed => ("SUCCESS", "Order completed".to_owned()),
        Status::PaymentFailed => ("FAILED", format!("Payment failed: {}", reason.unwrap_or_default())),
        Status::Cancelled => {
            ("FAILED", format!("Order cancelled, payment returned: {}", reason.unwrap_or_default()))
        }
        Status::PaymentPending | Status::Paid | Status::Compensating | Status::NeedsAttention => {
            ("PENDING", format!("Order is {}", order.status.as_str()))
        }
    };
    wire::OrderResponse { order_id: order.id.to_string(), status: status.to_owned(), message }
}
