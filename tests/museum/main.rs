//! Real defects of others, each with its public report, as a scenario that must not happen here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod cents_of_partial_refunds;
mod charged_again_after_a_timeout;
mod compensation_lost_by_a_restart;
mod double_capture_by_two_workflows;
mod duplicate_removes_the_record;
mod guard_in_an_open_transaction;
mod journal_of_a_newer_release;
mod late_paid_revives_a_refunded_order;
mod lock_expires_in_mid_step;
mod outbox_skips_a_late_commit;
mod paid_after_the_cancel;
mod quantities_that_wrap;
mod record_before_the_effect;
mod record_expires_while_open;
mod refund_recorded_twice;
mod refunds_race_past_the_capture;
mod retry_with_a_new_key;
mod rollback_before_the_action;
mod same_key_other_request;
mod three_decimals_and_none;
