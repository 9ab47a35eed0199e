//! Calls as they are sent, put together once: the same few come again and again.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use settle_postgres::{Call, Part, compose_plainly};

use crate::sql::{Durability, Error, Statement};

/// Calls kept; past it, all are forgotten.
const CALLS_MAX: usize = 256;

#[derive(Default)]
pub struct Composed(Mutex<HashMap<String, Arc<Call>>>);

impl Composed {
    pub fn call(&self, statements: &[Statement], durability: Durability) -> Result<Arc<Call>, Error> {
        let key = key_of(statements, durability);
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(call) = known {
            return Ok(call);
        }
        let parts: Vec<Part<'_>> = statements.iter().map(part_of).collect();
        let call = compose_plainly(&parts, durability == Durability::Relaxed).map_err(Error::Invalid)?;
        let call = Arc::new(call);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= CALLS_MAX {
            kept.clear();
        }
        kept.insert(key, call.clone());
        Ok(call)
    }
}

/// All that a call's text depends on.
fn key_of(statements: &[Statement], durability: Durability) -> String {
    let mut key = String::from(if durability == Durability::Relaxed { "relaxed" } else { "durable" });
    for Statement { sql, params, expect } in statements {
        // Err: a String takes any text.
        let _ = write!(key, " {}:{sql} {} {expect:?}", sql.len(), params.len());
    }
    key
}

fn part_of(statement: &Statement) -> Part<'_> {
    Part { sql: &statement.sql, parameters: statement.params.len(), expect: statement.expect }
}
