//! `settle reconcile`: do orders, our books and the acquirer's ledger agree?

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use settle_operations::{Books, Order, expected, shown};

/// Compares every order with payment's ledger and the acquirer's; lists differences and parked money,
/// with the command that repairs each. Exit code 1 when something differs.
#[derive(Parser)]
#[command(name = "settle reconcile", version)]
struct Cli {
    /// The host's data directory; the host may be running.
    #[arg(long, default_value = ".settle")]
    data: PathBuf,
}

fn main() -> ExitCode {
    match reconcile(&Cli::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("settle reconcile: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Answers how many orders differ.
fn reconcile(cli: &Cli) -> Result<u32> {
    let books = Books::open(&cli.data)?;
    let (mut settled, mut open, mut parked, mut differing) = (0_u32, 0_u32, 0_u32, 0_u32);
    for order in books.orders()? {
        match expected(&order) {
            None if order.status == "needs_attention" => {
                parked += 1;
                let at_stake = books.taken(&order.id)?.unwrap_or_default().kept();
                println!(
                    "PARKED  {} {} at stake; POST /v1/orders/{}/redrive, or /resolve once settled by hand",
                    order.id,
                    shown(&order, at_stake),
                    order.id
                );
            }
            None => open += 1,
            Some(expected) => match difference(&books, &order, expected)? {
                Some(what) => {
                    differing += 1;
                    println!("DIFFERS {} {what}", order.id);
                }
                None => settled += 1,
            },
        }
    }
    println!("{settled} settled and equal, {open} open, {parked} parked, {differing} differ");
    Ok(differing)
}

fn difference(books: &Books, order: &Order, expected: i64) -> Result<Option<String>> {
    let kept = books.taken(&order.id)?.unwrap_or_default().kept();
    let booked = books.booked(&order.id)?.unwrap_or_default().kept();
    let entries = books.entries(&order.id)?;
    let show = |minor| shown(order, minor);
    Ok(if booked != entries {
        Some(format!("payment's document keeps {}, its double entries {}", show(booked), show(entries)))
    } else if kept > booked {
        Some(format!(
            "the acquirer keeps {} and we know of {}; refund the rest at the acquirer",
            show(kept),
            show(booked)
        ))
    } else if kept < booked {
        Some(format!(
            "the acquirer keeps {} and our books say {}; claim it at the acquirer",
            show(kept),
            show(booked)
        ))
    } else if kept > expected {
        Some(format!(
            "{} and {} is kept; POST /v1/payments/ID/refunds for it (GET /v1/payments?order_id={})",
            order.status,
            show(kept),
            order.id
        ))
    } else {
        None
    })
}
