//! What an error of the server means for the caller of the storage port.

use crate::compose::UNMET;

/// The server's answer was an error. A lost connection is the caller's to judge: a write whose
/// answer did not come has an unknown outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The part with this index met another number of rows; nothing was written.
    Unmet(u32),
    /// A constraint refused the write.
    Conflict,
    /// Rolled back; the same call may be tried again.
    NotApplied,
    /// The server ended the session; a write may have been committed before.
    Ended,
    /// The statement is wrong or not allowed.
    Invalid,
    /// Over a limit of the server.
    TooLarge,
}

/// Judges an error by its SQLSTATE (PostgreSQL, appendix A) and message.
pub fn failure_of(sqlstate: &str, message: &str) -> Failure {
    if sqlstate == "22P02"
        && let Some((_, rest)) = message.split_once(UNMET)
        && let Some(Ok(index)) = rest.split(':').next().map(str::parse)
    {
        return Failure::Unmet(index);
    }
    match sqlstate {
        // read_only_sql_transaction: the server became a standby
        "25006" | "55P03" | "57014" | "57P03" => Failure::NotApplied,
        _ => match sqlstate.get(..2).unwrap_or_default() {
            "23" => Failure::Conflict,
            // transaction rollback, insufficient resources, system and internal errors
            "40" | "53" | "58" | "XX" => Failure::NotApplied,
            "08" | "57" => Failure::Ended,
            "54" => Failure::TooLarge,
            _ => Failure::Invalid,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_judged_by_what_they_leave_behind() {
        let rows = [
            ("22P02", "invalid input syntax for type bigint: \"settle:unmet:3:0\"", Failure::Unmet(3)),
            ("22P02", "invalid input syntax for type bigint: \"x\"", Failure::Invalid),
            ("23505", "duplicate key", Failure::Conflict),
            ("23514", "check", Failure::Conflict),
            ("40P01", "deadlock", Failure::NotApplied),
            ("53300", "too many connections", Failure::NotApplied),
            ("57014", "statement timeout", Failure::NotApplied),
            ("25006", "read only", Failure::NotApplied),
            ("57P01", "terminating connection due to administrator command", Failure::Ended),
            ("42501", "permission denied", Failure::Invalid),
            ("54000", "limit", Failure::TooLarge),
            ("", "", Failure::Invalid),
        ];
        for (code, message, expected) in rows {
            assert_eq!(failure_of(code, message), expected, "{code} {message}");
        }
    }
}
