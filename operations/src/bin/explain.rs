//! `settle explain ORDER_ID`: what happened to an order, step by step, and where the money is.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use serde_json::Value;
use settle_operations::{Books, Entry, Funds, Order, Running, Told, expected, shown};

/// Says in plain words what happened to an order and where its money is.
#[derive(Parser)]
#[command(name = "settle explain", version)]
struct Cli {
    order: String,
    /// The host's data directory; the host may be running.
    #[arg(long, default_value = ".settle")]
    data: PathBuf,
    /// Instead of a data directory, a running host: the origin of its order service.
    #[arg(long, requires_all = ["payment_url", "token"])]
    order_url: Option<String>,
    /// And of its payment service.
    #[arg(long)]
    payment_url: Option<String>,
    /// An administrator's token.
    #[arg(long)]
    token: Option<String>,
}

fn main() -> ExitCode {
    match explain(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("settle explain: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn explain(cli: &Cli) -> Result<()> {
    if let (Some(order), Some(payment), Some(token)) = (&cli.order_url, &cli.payment_url, &cli.token) {
        let origin = |url: &str| url.trim_end_matches('/').to_owned();
        let running = Running { order: origin(order), payment: origin(payment), token: token.clone() };
        let Told { order, journal, booked } = running.ask(&cli.order)?;
        tell(&order, &journal);
        println!("The acquirer's own ledger is not asked here; what follows is what our books say.");
        let kept = tell_booked(&order, booked);
        println!("{}", verdict(&order, kept, kept));
        return Ok(());
    }
    let books = Books::open(&cli.data)?;
    let order = books.order(&cli.order)?;
    tell(&order, &books.journal(&order.id)?);
    let taken = books.taken(&order.id)?;
    match taken {
        Some(taken) => println!(
            "The acquirer took {} and gave back {}: it keeps {}.",
            shown(&order, taken.captured),
            shown(&order, taken.returned),
            shown(&order, taken.kept())
        ),
        None => println!("The acquirer was never asked for money."),
    }
    let booked = tell_booked(&order, books.booked(&order.id)?);
    println!("{}", verdict(&order, taken.unwrap_or_default().kept(), booked));
    Ok(())
}

fn tell(order: &Order, journal: &[Entry]) {
    println!("Order {} over {} is {}.", order.id, shown(order, order.total.minor()), order.status);
    for entry in journal {
        println!("  {}  {:<16} {}", entry.at, entry.status, told(entry));
    }
}

/// Says what our books say; answers what is kept by them.
fn tell_booked(order: &Order, booked: Option<Funds>) -> i64 {
    match booked {
        Some(booked) => println!(
            "Our books say: captured {}, refunded {}.",
            shown(order, booked.captured),
            shown(order, booked.returned)
        ),
        None => println!("Our books have no payment for it."),
    }
    booked.unwrap_or_default().kept()
}

fn verdict(order: &Order, kept: i64, booked: i64) -> String {
    let id = &order.id;
    match (order.status.as_str(), expected(order)) {
        ("needs_attention", _) => format!(
            "PARKED: {} at stake ({}). Try again: POST /v1/orders/{id}/redrive; settled by hand: POST /v1/orders/{id}/resolve.",
            shown(order, kept),
            order.reason.as_deref().unwrap_or("no reason")
        ),
        (_, None) => {
            let due = order.due_at.map_or_else(|| "soon".to_owned(), |due| due.to_string());
            format!("OPEN: recovery goes on by itself, next at {due}.")
        }
        // A price may be returned in part, by a refund that the order does not know of.
        ("completed", Some(expected)) if kept <= expected && kept == booked => {
            format!("SETTLED: the customer paid {}.", shown(order, kept))
        }
        (_, Some(0)) if kept == 0 && booked == 0 => "SETTLED: fully undone, nothing is kept.".to_owned(),
        _ => "WRONG: order, books and acquirer do not agree; run `settle reconcile`.".to_owned(),
    }
}

/// An event in words.
fn told(entry: &Entry) -> String {
    let (name, fields) = match &entry.event {
        Value::String(name) => (name.as_str(), &Value::Null),
        Value::Object(event) => {
            event.iter().next().map_or(("nothing", &Value::Null), |(name, fields)| (name.as_str(), fields))
        }
        _ => ("nothing", &Value::Null),
    };
    let field = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
    match name {
        "placed" => "placed; the intent to charge is on the disk".to_owned(),
        "payment_approved" => format!("the acquirer approved (payment {})", field("payment_id")),
        "payment_declined" => format!("the acquirer declined: {}", field("reason")),
        "payment_pending" | "payment_pending_at_acquirer" => {
            "the acquirer has not decided; asked again later".to_owned()
        }
        "charge_deferred" | "payment_deferred" => {
            "payment did not answer: unknown, not failed; asked again with the same key".to_owned()
        }
        "deadline_passed" => "not approved in time: everything is undone".to_owned(),
        "payment_voided" => "the charge had been voided".to_owned(),
        "cancel_requested" => format!("cancel asked for by {}", field("by")),
        "final_step_done" => "the final step is done".to_owned(),
        "final_step_failed" => format!("the final step failed ({}): the money goes back", field("reason")),
        "undone" => "undone at the acquirer: nothing is kept".to_owned(),
        "undo_deferred" => "the undo got no answer; tried again later".to_owned(),
        "undo_budget_spent" => "the undo was tried often enough: parked for an operator".to_owned(),
        "redriven" => format!("an operator ({}) lets it try again", field("by")),
        "resolved_by_hand" => format!("settled by hand by {}: {}", field("by"), field("note")),
        other => other.replace('_', " "),
    }
}
