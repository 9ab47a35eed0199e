//! What the acquirer remembers: one row a key, one row a refund.

use std::time::Duration;

use settle_ports::{
    AcquirerError as Error, ChargeOutcome, Database, Durability, Migration, RefundOutcome, Row, Schema,
    SqlError, Standing, Statement, World, sql,
};
use settle_service_kit::ports::SqlDatabase;
use settle_types::{Currency, FailureReason, Money};

use crate::WORLD;
use crate::fault::{self, Fault};

/// Longest delay that a test may ask for.
const DELAY_MILLIS_MAX: u32 = 60_000;
/// Tries of a guarded write against its racers.
const WRITE_TRIES_MAX: u32 = 8;

pub const SCHEMA: Schema = Schema {
    service: "acquirer",
    migrations: &[Migration {
        version: 1,
        statements: &[
            "CREATE TABLE acquirer_charges (
               key TEXT PRIMARY KEY,
               state TEXT NOT NULL CHECK (state IN ('new', 'pending', 'taken', 'declined', 'voided')),
               amount_minor BIGINT NOT NULL,
               currency TEXT NOT NULL,
               method TEXT NOT NULL,
               captured_minor BIGINT NOT NULL DEFAULT 0,
               returned_minor BIGINT NOT NULL DEFAULT 0 CHECK (returned_minor <= captured_minor),
               captures BIGINT NOT NULL DEFAULT 0 CHECK (captures <= 1),
               charge_calls BIGINT NOT NULL DEFAULT 0,
               lookup_calls BIGINT NOT NULL DEFAULT 0,
               void_calls BIGINT NOT NULL DEFAULT 0,
               refund_calls BIGINT NOT NULL DEFAULT 0
             ) WITHOUT ROWID",
            "CREATE TABLE acquirer_refunds (
               refund_key TEXT PRIMARY KEY,
               key TEXT NOT NULL,
               amount_minor BIGINT NOT NULL CHECK (amount_minor > 0)
             ) WITHOUT ROWID",
        ],
    }],
};

/// What `charge_of` reads, in its order.
macro_rules! columns {
    () => {
        "state, amount_minor, currency, method, captured_minor, returned_minor,
         charge_calls, lookup_calls, void_calls, refund_calls"
    };
}

/// Ends a write that answers the row after it.
macro_rules! returning {
    () => {
        concat!(" RETURNING ", columns!())
    };
}

/// One key's row.
struct Charge {
    state: String,
    amount: i64,
    currency: String,
    method: String,
    captured: i64,
    returned: i64,
    charge_calls: u32,
    lookup_calls: u32,
    void_calls: u32,
    refund_calls: u32,
}

/// Amounts from which a currency is declined, in major units; `default` is for all others.
pub type Limits = Vec<(String, i64)>;

/// Parses `JPY=100000,default=1000`.
pub fn parse_limits(text: &str) -> Result<Limits, String> {
    let wrong = || "setting `acquirer_limits` must look like JPY=100000,default=1000".to_owned();
    let parse = |pair: &str| {
        let (currency, major) = pair.split_once('=').ok_or_else(wrong)?;
        Ok((currency.trim().to_owned(), major.trim().parse().map_err(|_| wrong())?))
    };
    text.split(',').map(parse).collect()
}

pub struct Ledger {
    pub database: SqlDatabase,
    pub limits: Limits,
}

impl Ledger {
    /// The smallest amount, in minor units, that is declined.
    fn limit_minor(&self, currency: &str) -> i64 {
        let of = |name: &str| self.limits.iter().find(|(known, _)| known == name).map(|(_, major)| *major);
        let major = of(currency).or_else(|| of("default")).unwrap_or(i64::MAX);
        let exponent = Currency::parse(currency).map_or(2, |currency| currency.exponent());
        major.saturating_mul(10_i64.saturating_pow(u32::from(exponent)))
    }

    /// What becomes of a charge: its state, what is captured, in how many captures.
    fn decision(&self, amount: i64, currency: &str, fault: Fault) -> (&'static str, i64, i64) {
        match fault {
            Fault::Decline => ("declined", 0, 0),
            _ if amount >= self.limit_minor(currency) => ("declined", 0, 0),
            Fault::Pending(_) => ("pending", 0, 0),
            _ => ("taken", amount, 1),
        }
    }

    /// Writes to one key's row and answers it after that.
    async fn write(&self, statement: Statement) -> Result<Option<Charge>, Error> {
        let done = self.database.execute(vec![statement], Durability::Relaxed).await.map_err(unreachable)?;
        let row = done.first().and_then(|outcome| outcome.rows.first());
        row.map(charge_of).transpose().map_err(unreachable)
    }

    pub async fn charge(&self, key: &str, amount: Money, method: &str) -> Result<ChargeOutcome, Error> {
        let charge = self.arrived(key, amount, method).await?;
        let (fault, calls) = (fault::of(&charge.method), charge.charge_calls);
        if let Fault::DelayMillis(millis) = fault {
            WORLD.sleep(Duration::from_millis(u64::from(millis.min(DELAY_MILLIS_MAX)))).await;
        }
        if matches!(fault, Fault::Unreachable(times) if calls <= times) {
            return Err(Error::Unreachable("simulated".to_owned()));
        }
        if charge.state != "voided"
            && (charge.amount != amount.minor() || charge.currency != amount.currency().code())
        {
            return Ok(ChargeOutcome::DifferentAmount);
        }
        let decided = match fault {
            _ if charge.state == "new" => self.decide(key, &charge, fault).await?,
            Fault::DelayMillis(_) => None, // it may be another by now
            _ => Some(charge),
        };
        if matches!(fault, Fault::LostAnswer(times) if calls <= times) {
            return Err(lost("simulated"));
        }
        let decided = match decided {
            Some(decided) => decided,
            None => self.find(key).await?.ok_or_else(|| lost("no row"))?,
        };
        Ok(match decided.state.as_str() {
            "taken" if decided.returned == decided.captured => ChargeOutcome::Voided,
            "taken" => ChargeOutcome::Approved,
            "declined" => ChargeOutcome::Declined(decline_reason(fault)),
            "pending" => ChargeOutcome::Pending(key.to_owned()),
            "voided" => ChargeOutcome::Voided,
            _ => return Err(lost("not decided")),
        })
    }

    /// Counts a call and answers its row. A new charge is decided in the same write, unless its fault
    /// is met before.
    async fn arrived(&self, key: &str, amount: Money, method: &str) -> Result<Charge, Error> {
        let (minor, currency) = (amount.minor(), amount.currency().code());
        let (state, captured, captures) = match fault::of(method) {
            Fault::DelayMillis(_) | Fault::Unreachable(_) => ("new", 0, 0),
            fault => self.decision(minor, currency, fault),
        };
        let first = sql("INSERT INTO acquirer_charges
               (key, state, amount_minor, currency, method, captured_minor, captures, charge_calls)
             VALUES ($1, $2, $3, $4, $5, $6, $7, 1)
             ON CONFLICT (key) DO NOTHING");
        let first = first.bind(key).bind(state).bind(minor).bind(currency).bind(method);
        let first = vec![first.bind(captured).bind(captures)];
        let done = self.database.execute(first, Durability::Relaxed).await.map_err(unreachable)?;
        if done.first().is_some_and(|outcome| outcome.affected == 1) {
            return Ok(Charge {
                state: state.to_owned(),
                amount: minor,
                currency: currency.to_owned(),
                method: method.to_owned(),
                captured,
                returned: 0,
                charge_calls: 1,
                lookup_calls: 0,
                void_calls: 0,
                refund_calls: 0,
            });
        }
        let again = sql(concat!(
            "UPDATE acquirer_charges SET charge_calls = charge_calls + 1 WHERE key = $1",
            returning!()
        ));
        self.write(again.bind(key)).await?.ok_or_else(|| lost("no row"))
    }

    /// Decides a new charge, once, and answers the row after it: the state is the guard, so a void
    /// that came first wins. `None`: it was decided before.
    async fn decide(&self, key: &str, charge: &Charge, fault: Fault) -> Result<Option<Charge>, Error> {
        let (state, captured, captures) = self.decision(charge.amount, &charge.currency, fault);
        let decided = sql(concat!(
            "UPDATE acquirer_charges SET state = $1, captured_minor = $2, captures = $3
             WHERE key = $4 AND state = 'new'",
            returning!()
        ));
        self.write(decided.bind(state).bind(captured).bind(captures).bind(key)).await
    }

    pub async fn lookup(&self, key: &str) -> Result<Standing, Error> {
        let counted = sql(concat!(
            "UPDATE acquirer_charges SET lookup_calls = lookup_calls + 1 WHERE key = $1",
            returning!()
        ))
        .bind(key);
        let Some(charge) = self.write(counted).await? else { return Ok(Standing::Unknown) };
        let fault = fault::of(&charge.method);
        let decides = charge.state == "pending"
            && matches!(fault, Fault::Pending(lookups) if charge.lookup_calls >= lookups);
        if decides {
            let statement =
                sql("UPDATE acquirer_charges SET state = 'taken', captured_minor = amount_minor, captures = captures + 1
                     WHERE key = $1 AND state = 'pending'")
                .bind(key);
            self.database.execute(vec![statement], Durability::Relaxed).await.map_err(unreachable)?;
        }
        let decided = self.find(key).await?.ok_or_else(|| lost("no row"))?;
        standing_of(&decided, key)
    }

    pub async fn refund(&self, key: &str, refund_key: &str, amount: Money) -> Result<RefundOutcome, Error> {
        let counted = sql(concat!(
            "UPDATE acquirer_charges SET refund_calls = refund_calls + 1 WHERE key = $1",
            returning!()
        ))
        .bind(key);
        let Some(charge) = self.write(counted).await?.filter(|charge| charge.state == "taken") else {
            return Ok(RefundOutcome::NotCaptured);
        };
        let statements = vec![
            sql("INSERT INTO acquirer_refunds (refund_key, key, amount_minor) VALUES ($1, $2, $3)
                 ON CONFLICT (refund_key) DO NOTHING")
            .bind(refund_key)
            .bind(key)
            .bind(amount.minor())
            .expect_rows(1),
            sql("UPDATE acquirer_charges SET returned_minor = returned_minor + $1
                 WHERE key = $2 AND returned_minor + $1 <= captured_minor")
            .bind(amount.minor())
            .bind(key)
            .expect_rows(1),
        ];
        let outcome = match self.database.execute(statements, Durability::Relaxed).await {
            Ok(_) | Err(SqlError::Unmet(0)) => RefundOutcome::Refunded, // once for each refund key
            Err(SqlError::Unmet(_)) => RefundOutcome::ExceedsRemaining,
            Err(error) => return Err(unreachable(error)),
        };
        let fault = fault::of(&charge.method);
        if matches!(fault, Fault::RefundLostAnswer(times) if charge.refund_calls <= times) {
            return Err(lost("simulated"));
        }
        Ok(outcome)
    }

    pub async fn void(&self, key: &str) -> Result<Standing, Error> {
        for _ in 0..WRITE_TRIES_MAX {
            let counted = sql(concat!(
                "INSERT INTO acquirer_charges (key, state, amount_minor, currency, method, void_calls)
                     VALUES ($1, 'voided', 0, '', '', 1)
                     ON CONFLICT (key) DO UPDATE SET void_calls = acquirer_charges.void_calls + 1",
                returning!()
            ))
            .bind(key);
            let Some(charge) = self.write(counted).await? else { return Err(lost("no row")) };
            let fault = fault::of(&charge.method);
            if matches!(fault, Fault::VoidFails(times) if charge.void_calls <= times) {
                return Err(Error::Unreachable("simulated".to_owned()));
            }
            let statement = match charge.state.as_str() {
                "taken" => sql("UPDATE acquirer_charges SET returned_minor = captured_minor
                                WHERE key = $1 AND state = $2"),
                "new" | "pending" => {
                    sql("UPDATE acquirer_charges SET state = 'voided' WHERE key = $1 AND state = $2")
                }
                _ => return standing_of(&charge, key),
            };
            let statement = statement.bind(key).bind(charge.state.as_str());
            let done =
                self.database.execute(vec![statement], Durability::Relaxed).await.map_err(unreachable)?;
            if done.first().is_none_or(|outcome| outcome.affected == 0) {
                continue; // a charge was decided meanwhile: look again
            }
            if matches!(fault, Fault::VoidLostAnswer(times) if charge.void_calls <= times) {
                return Err(lost("simulated"));
            }
            let decided = self.find(key).await?.ok_or_else(|| lost("no row"))?;
            return standing_of(&decided, key);
        }
        Err(Error::Unreachable("too many racers".to_owned()))
    }

    async fn find(&self, key: &str) -> Result<Option<Charge>, Error> {
        let statement =
            sql(concat!("SELECT ", columns!(), " FROM acquirer_charges WHERE key = $1")).bind(key);
        let found = self.database.query(statement).await.map_err(unreachable)?;
        found.rows.first().map(charge_of).transpose().map_err(unreachable)
    }
}

fn standing_of(charge: &Charge, key: &str) -> Result<Standing, Error> {
    Ok(match charge.state.as_str() {
        "taken" => {
            let currency = Currency::parse(&charge.currency).map_err(|error| lost(&error.to_string()))?;
            let money = |minor| Money::new(minor, currency);
            Standing::Taken { captured: money(charge.captured), returned: money(charge.returned) }
        }
        "declined" => Standing::Declined(decline_reason(fault::of(&charge.method))),
        "voided" => Standing::Voided,
        "pending" => Standing::Pending(key.to_owned()),
        _ => Standing::Unknown,
    })
}

fn decline_reason(fault: Fault) -> FailureReason {
    FailureReason::lossy(match fault {
        Fault::Decline => "declined by the issuer",
        _ => "amount over the limit",
    })
}

fn charge_of(row: &Row) -> Result<Charge, SqlError> {
    Ok(Charge {
        state: row.text(0)?.to_owned(),
        amount: row.int(1)?,
        currency: row.text(2)?.to_owned(),
        method: row.text(3)?.to_owned(),
        captured: row.int(4)?,
        returned: row.int(5)?,
        charge_calls: row.u32(6)?,
        lookup_calls: row.u32(7)?,
        void_calls: row.u32(8)?,
        refund_calls: row.u32(9)?,
    })
}

fn unreachable(error: SqlError) -> Error {
    match error {
        SqlError::OutcomeUnknown(text) => Error::OutcomeUnknown(text),
        other => Error::Unreachable(other.to_string()),
    }
}

fn lost(why: &str) -> Error {
    Error::OutcomeUnknown(why.to_owned())
}
