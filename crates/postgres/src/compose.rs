//! One call as one statement.

use std::fmt::Write as _;

use crate::text::{Token, Tokens, first_word, has_word};

/// What the error text of a missed expectation begins with; the number of the part follows.
pub(crate) const UNMET: &str = "settle:unmet:";

/// One statement of a call.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    pub sql: &'a str,
    /// How many parameters it has; they are numbered from `$1`.
    pub parameters: usize,
    /// Rows that it must affect.
    pub expect: Option<u64>,
}

/// How to send a call, and how to read what comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// As it is: rows come back, or the host's count of affected rows.
    Plain { sql: String, returns_rows: bool },
    /// One row comes back, with the count of affected rows of each part, as a bigint.
    Counts { sql: String },
    /// The rows of the only part come back. Fewer than expected means that nothing matched and
    /// nothing was written; more were refused by the statement itself.
    Rows { sql: String, expect: Option<u64> },
}

/// Puts the statements of one call together. Parameters follow each other in the parts' order.
///
/// Errors, as text: a statement that is not allowed here.
pub fn compose(parts: &[Part<'_>], relaxed: bool) -> Result<Call, String> {
    match compose_plainly(parts, relaxed)? {
        Call::Plain { returns_rows: false, .. } if !parts.iter().any(|part| is_definition(part.sql)) => {
            counts(parts, relaxed)
        }
        call => Ok(call),
    }
}

/// As `compose`, for a host that itself tells how many rows a statement affected.
pub fn compose_plainly(parts: &[Part<'_>], relaxed: bool) -> Result<Call, String> {
    for part in parts {
        check(part.sql)?;
    }
    match parts {
        [] => Err("a call has at least one statement".to_owned()),
        [only] if is_definition(only.sql) => {
            Ok(Call::Plain { sql: only.sql.to_owned(), returns_rows: false })
        }
        [only] if !relaxed && only.expect.is_none() => {
            let returns_rows = has_word(only.sql, "RETURNING") || first_word(only.sql) == "SELECT";
            Ok(Call::Plain { sql: only.sql.to_owned(), returns_rows })
        }
        [only] if has_word(only.sql, "RETURNING") => Ok(rows(only, relaxed)),
        several => counts(several, relaxed),
    }
}

const ALLOWED: [&str; 6] = ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "DO"];

/// Transactions and sessions belong to the host.
fn check(sql: &str) -> Result<(), String> {
    let first = first_word(sql);
    if ALLOWED.iter().any(|allowed| first.eq_ignore_ascii_case(allowed)) {
        Ok(())
    } else {
        Err(format!("a statement that begins with `{first}` is not allowed"))
    }
}

/// A block of definitions has no parameters and no count.
fn is_definition(sql: &str) -> bool {
    first_word(sql).eq_ignore_ascii_case("DO")
}

/// For this statement alone, and evaluated because the main query reads it.
const RELAXED: &str = "relaxed AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))";

fn rows(part: &Part<'_>, relaxed: bool) -> Call {
    let mut sql = format!("WITH p0 AS ({})", part.sql);
    if relaxed {
        sql.push_str(", ");
        sql.push_str(RELAXED);
    }
    sql.push_str(" SELECT p0.* FROM p0");
    if relaxed {
        sql.push_str(", relaxed");
    }
    if let Some(expect) = part.expect {
        let _ = write!(
            sql,
            " WHERE (SELECT CASE WHEN count(*) <> {expect} THEN CAST('{UNMET}0:' || count(*) AS bigint) \
             ELSE 0 END FROM p0) = 0"
        );
    }
    Call::Rows { sql, expect: part.expect }
}

fn counts(parts: &[Part<'_>], relaxed: bool) -> Result<Call, String> {
    let (mut with, mut counted, mut checked) = (String::new(), String::new(), String::new());
    let mut offset = 0;
    for (index, part) in parts.iter().enumerate() {
        if is_definition(part.sql) || has_word(part.sql, "RETURNING") {
            return Err("a statement that returns rows stands alone in its call".to_owned());
        }
        let comma = if index == 0 { "" } else { ", " };
        let _ = write!(with, "{comma}p{index} AS (");
        renumber(part.sql, offset, &mut with);
        let reads = first_word(part.sql).eq_ignore_ascii_case("SELECT");
        with.push_str(if reads { ")" } else { " RETURNING 1)" });
        offset += part.parameters;
        let _ = write!(counted, "{comma}(SELECT count(*) FROM p{index}) AS c{index}");
        let affected = if reads { "0".to_owned() } else { format!("c{index}") };
        // The cast of a text that only exists when the count is wrong fails, and with it everything.
        let _ = match part.expect {
            Some(expect) => write!(
                checked,
                "{comma}CASE WHEN c{index} <> {expect} THEN CAST('{UNMET}{index}:' || c{index} AS bigint) \
                 ELSE {affected} END"
            ),
            None => write!(checked, "{comma}{affected}"),
        };
    }
    if relaxed {
        let _ = write!(with, ", {RELAXED}");
        counted.push_str(", (SELECT count(*) FROM relaxed) AS relaxed");
        checked.push_str(", relaxed");
    }
    // OFFSET 0 keeps the server from writing each count out wherever it is named.
    Ok(Call::Counts {
        sql: format!("WITH {with} SELECT {checked} FROM (SELECT {counted} OFFSET 0) AS counted"),
    })
}

fn renumber(sql: &str, offset: usize, out: &mut String) {
    for token in Tokens(sql) {
        match token {
            Token::Word(text) | Token::Other(text) => out.push_str(text),
            Token::Parameter(number) => {
                let number = usize::try_from(number).unwrap_or(usize::MAX).saturating_add(offset);
                let _ = write!(out, "${number}");
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn part(sql: &str, parameters: usize, expect: Option<u64>) -> Part<'_> {
        Part { sql, parameters, expect }
    }

    #[test]
    fn a_lone_statement_stays_as_it_is() {
        let call = compose_plainly(&[part("INSERT INTO a VALUES ($1)", 1, None)], false).unwrap();
        assert_eq!(call, Call::Plain { sql: "INSERT INTO a VALUES ($1)".into(), returns_rows: false });
        let call = compose(&[part("DELETE FROM a RETURNING b", 0, None)], false).unwrap();
        assert!(matches!(call, Call::Plain { returns_rows: true, .. }));
    }

    #[test]
    fn parts_are_numbered_on_and_checked_in_order() {
        let parts = [
            part("INSERT INTO a VALUES ($1, '$1')", 1, None),
            part("UPDATE b SET x = $2 WHERE y = $1", 2, Some(1)),
        ];
        let Call::Counts { sql } = compose(&parts, false).unwrap() else { panic!() };
        assert_eq!(
            sql,
            "WITH p0 AS (INSERT INTO a VALUES ($1, '$1') RETURNING 1), \
             p1 AS (UPDATE b SET x = $3 WHERE y = $2 RETURNING 1) \
             SELECT c0, CASE WHEN c1 <> 1 THEN CAST('settle:unmet:1:' || c1 AS bigint) ELSE c1 END \
             FROM (SELECT (SELECT count(*) FROM p0) AS c0, (SELECT count(*) FROM p1) AS c1 OFFSET 0) AS counted"
        );
    }

    #[test]
    fn what_belongs_to_the_host_is_refused() {
        for sql in ["COMMIT", "begin", "SET ROLE x", "RESET ALL", "COPY a TO '/x'", "/**/ROLLBACK", "", "'x'"]
        {
            assert!(compose(&[part(sql, 0, None)], false).is_err(), "{sql}");
        }
        let two = [part("DELETE FROM a RETURNING b", 0, None), part("DELETE FROM c", 0, None)];
        assert!(compose(&two, false).is_err());
        assert!(compose(&[], true).is_err());
    }
}
