//! JSON shapes of the order service: parsed into core types on the first line.

use serde::{Deserialize, Serialize};
use serde_json::json;
use settle_order_core::{HistoryEntry, Item, Order, Page, SagaSummary};
use settle_ports::DueReport;
use settle_types::{Money, PaymentMethod, UserId};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaceRequest {
    pub items: Vec<Item>,
    pub payment_method: Option<PaymentMethod>,
    /// For administrators: whose order it is.
    pub user_id: Option<UserId>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolveRequest {
    pub note: settle_types::FailureReason,
}

#[derive(Serialize)]
pub struct OrderBody<'a> {
    id: String,
    user_id: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason: Option<&'a str>,
    total: Money,
    items: &'a [Item],
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_id: Option<String>,
    created_at: String,
    updated_at: String,
}

pub fn order(order: &Order) -> OrderBody<'_> {
    OrderBody {
        id: order.id.to_string(),
        user_id: order.user_id.as_str(),
        status: order.status.as_str(),
        failure_reason: order.failure_reason.as_ref().map(|reason| reason.as_str()),
        total: order.total,
        items: &order.items,
        payment_id: order.payment_id.map(|id| id.to_string()),
        created_at: order.created_at.to_string(),
        updated_at: order.updated_at.to_string(),
    }
}

pub fn page(page: &Page) -> serde_json::Value {
    let data: Vec<OrderBody<'_>> = page.orders.iter().map(order).collect();
    match page.next {
        Some(next) => json!({ "data": data, "next_cursor": next.to_string() }),
        None => json!({ "data": data }),
    }
}

pub fn history(entries: &[HistoryEntry]) -> serde_json::Value {
    let entry = |entry: &HistoryEntry| {
        json!({
            "status": entry.status, "cause": entry.cause,
            "at": entry.at.to_string(), "trace_id": entry.trace_id,
        })
    };
    json!({ "entries": entries.iter().map(entry).collect::<Vec<_>>() })
}

pub fn sagas(summaries: &[SagaSummary]) -> serde_json::Value {
    let summary = |saga: &SagaSummary| {
        json!({
            "order_id": saga.order_id.to_string(), "state": saga.state.as_str(), "step": saga.step,
            "tries": saga.tries, "due_at": saga.due_at.map(|at| at.to_string()), "at_stake": saga.at_stake,
        })
    };
    json!({ "data": summaries.iter().map(summary).collect::<Vec<_>>() })
}

pub fn due_report(report: &DueReport) -> serde_json::Value {
    json!({
        "resumed": report.resumed, "ended": report.ended, "deferred": report.deferred,
        "more": report.more, "oldest_due_ms": report.oldest_due_ms,
    })
}
