//! The steps of a checkout, by the calls that make them, and which faults can hit each.

use settle_host::sim::{Call, FAULTS, Fault, Step};
use settle_host::sql::{Statement, Value};

/// What one step is, for the faults that it can meet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    /// To the acquirer's disk, which is another company's: it never loses power.
    SturdyWrite,
    /// From one of our services to another.
    Call,
    /// From a client, who is on no machine of ours.
    Ask,
}

/// Every step that a campaign has to come to: all of the saga's events but `resolved_by_hand`, which
/// is no call, and all that payment, clients and the operator do.
const STEPS: [(Step, Kind); 35] = [
    ("order: read", Kind::Read),
    ("payment: read", Kind::Read),
    ("acquirer: read", Kind::Read),
    ("order: placed", Kind::Write),
    ("order: payment_approved", Kind::Write),
    ("order: payment_declined", Kind::Write),
    ("order: payment_pending", Kind::Write),
    ("order: charge_deferred", Kind::Write),
    ("order: deadline_passed", Kind::Write),
    ("order: payment_voided", Kind::Write),
    ("order: cancel_requested", Kind::Write),
    ("order: final_step_done", Kind::Write),
    ("order: final_step_failed", Kind::Write),
    ("order: undone", Kind::Write),
    ("order: undo_deferred", Kind::Write),
    ("order: undo_budget_spent", Kind::Write),
    ("order: redriven", Kind::Write),
    ("order: claim or release", Kind::Write),
    ("payment: authorizing", Kind::Write),
    ("payment: unknown", Kind::Write),
    ("payment: captured", Kind::Write),
    ("payment: declined", Kind::Write),
    ("payment: voided", Kind::Write),
    ("payment: partially_refunded", Kind::Write),
    ("payment: refunded", Kind::Write),
    ("payment: claim", Kind::Write),
    ("acquirer: write", Kind::SturdyWrite),
    ("call: process", Kind::Call),
    ("call: look up", Kind::Call),
    ("call: undo", Kind::Call),
    ("client: place", Kind::Ask),
    ("client: read", Kind::Ask),
    ("client: cancel", Kind::Ask),
    ("operator: redrive", Kind::Ask),
    ("operator: refund", Kind::Ask),
];
/// Tables and keys: no part of a saga.
const SET_UP: Step = "set up";
const OTHER: Step = "other";

impl Kind {
    fn meets(self, fault: Fault) -> bool {
        match fault {
            Fault::RequestLost
            | Fault::AnswerLost
            | Fault::AnswerLate
            | Fault::AnswerBroken
            | Fault::Duplicated
            | Fault::Partition => matches!(self, Kind::Call | Kind::Ask),
            Fault::StorageRefuses => matches!(self, Kind::Read | Kind::Write | Kind::SturdyWrite),
            Fault::StorageFull
            | Fault::StorageConflict
            | Fault::StorageUnknownNotDone
            | Fault::StorageUnknownDone
            | Fault::StorageSlow => matches!(self, Kind::Write | Kind::SturdyWrite),
            Fault::StorageCrash | Fault::StorageCrashInCommit => self == Kind::Write,
            Fault::HostCrash | Fault::AllCrash | Fault::ClockJump => self != Kind::Ask,
        }
    }
}

/// Every step with every fault that can hit it.
pub fn cells() -> impl Iterator<Item = (Step, Fault)> {
    let of_step = |(step, kind): &(Step, Kind)| {
        let (step, kind) = (*step, *kind);
        FAULTS.into_iter().filter(move |fault| kind.meets(*fault)).map(move |fault| (step, fault))
    };
    STEPS.iter().flat_map(of_step)
}

/// The step that a call makes.
pub fn step(call: &Call<'_>) -> Step {
    match *call {
        Call::Read { database } => named(database, "read"),
        Call::Write { statements, .. } if is_set_up(statements) => SET_UP,
        Call::Write { database: "order", statements } => {
            let journal =
                statements.iter().rev().find(|statement| statement.sql.contains("INTO order_journal"));
            journal.and_then(event_of).map_or("order: claim or release", |event| named("order", event))
        }
        Call::Write { database: "payment", statements } => {
            let outbox = statements.iter().find(|statement| statement.sql.contains("INTO payment_outbox"));
            outbox.and_then(status_of).map_or("payment: claim", |status| named("payment", status))
        }
        Call::Write { .. } => "acquirer: write",
        Call::Send { service: "payment", path, .. } => match path.rsplit('/').next() {
            Some("Process") => "call: process",
            Some("LookUp") => "call: look up",
            Some("Undo") => "call: undo",
            Some("refunds") => "operator: refund",
            _ => OTHER,
        },
        Call::Send { service: "order", method, path } => match path.rsplit('/').next() {
            Some("orders") if method == http::Method::POST => "client: place",
            Some("cancel") => "client: cancel",
            Some("redrive") => "operator: redrive",
            _ => "client: read",
        },
        Call::Send { .. } => OTHER,
    }
}

fn is_set_up(statements: &[Statement]) -> bool {
    statements.iter().any(|statement| statement.sql.contains("schema_versions"))
}

/// The event that a row of the journal holds: its one key, or all of it where it has no fields.
fn event_of(statement: &Statement) -> Option<&str> {
    statement.params.iter().find_map(|param| match param {
        Value::Text(text) => text.trim_start_matches('{').strip_prefix('"')?.split('"').next(),
        _ => None,
    })
}

/// The status that a row of payment's outbox tells, its third column.
fn status_of(statement: &Statement) -> Option<&str> {
    match statement.params.get(2) {
        Some(Value::Text(status)) => Some(status),
        _ => None,
    }
}

fn named(service: &str, what: &str) -> Step {
    let is = |step: &Step| step.split_once(": ") == Some((service, what));
    STEPS.iter().map(|(step, _)| *step).find(is).unwrap_or(OTHER)
}
