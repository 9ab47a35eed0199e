//! Correlation id, trace context and deadline of a call: taken from its headers, or begun here.

use std::time::Duration;

use http::HeaderMap;
use opentelemetry::trace::{SpanId, TraceFlags, TraceId};
use settle_ports::{CallContext, World};

/// Time that a request has when its caller names none.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// When a caller whose request was refused for the moment may come again.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Kept back from the caller's deadline for writing the answer.
const ANSWER_TIME: Duration = Duration::from_millis(200);
const CORRELATION_ID_BYTES_MAX: usize = 128;

pub const CORRELATION_ID: &str = "x-correlation-id";
pub const TRACEPARENT: &str = "traceparent";
/// gRPC's own header for the remaining time; our HTTP calls carry it too.
pub const TIMEOUT: &str = "grpc-timeout";

/// The context of a request with these headers.
pub fn of_request(headers: &HeaderMap, world: &impl World) -> CallContext {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let correlation_id = text(CORRELATION_ID)
        .filter(|id| !id.is_empty() && id.len() <= CORRELATION_ID_BYTES_MAX)
        .filter(|id| id.bytes().all(|byte| byte.is_ascii_graphic()))
        .map_or_else(|| hex_of(world.random()), str::to_owned);
    let limit = text(TIMEOUT).and_then(parse_timeout).unwrap_or(REQUEST_DEADLINE).min(REQUEST_DEADLINE);
    CallContext {
        correlation_id,
        traceparent: child_of(text(TRACEPARENT), world),
        deadline: world.now().plus(limit.saturating_sub(ANSWER_TIME)),
    }
}

fn hex_of((high, low): (u64, u64)) -> String {
    format!("{high:016x}{low:016x}")
}

/// A span of ours under the caller's trace (W3C Trace Context), or under a new one.
fn child_of(parent: Option<&str>, world: &impl World) -> String {
    let (trace, flags) = parent.and_then(parse_traceparent).unwrap_or_else(|| {
        let (high, low) = world.random();
        (TraceId::from((u128::from(high) << 64) | u128::from(low)), TraceFlags::SAMPLED)
    });
    let span = SpanId::from(world.random().0);
    format!("00-{trace}-{span}-{:02x}", flags.to_u8())
}

fn parse_traceparent(text: &str) -> Option<(TraceId, TraceFlags)> {
    let mut fields = text.split('-');
    let (version, trace, span, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    if version.len() != 2 || version == "ff" || trace.len() != 32 || span.len() != 16 || flags.len() != 2 {
        return None;
    }
    let trace = TraceId::from_hex(trace).ok().filter(|id| *id != TraceId::INVALID)?;
    SpanId::from_hex(span).ok().filter(|id| *id != SpanId::INVALID)?;
    Some((trace, TraceFlags::new(u8::from_str_radix(flags, 16).ok()?)))
}

/// gRPC's timeout: at most eight digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount.saturating_mul(3600))),
        "M" => Some(Duration::from_secs(amount.saturating_mul(60))),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// The headers that carry a context to another service.
pub fn headers_of(context: &CallContext, remaining: Duration) -> Vec<(&'static str, String)> {
    let millis = remaining.as_millis().min(99_999_999);
    let mut headers = vec![(CORRELATION_ID, context.correlation_id.clone()), (TIMEOUT, format!("{millis}m"))];
    if !context.traceparent.is_empty() {
        headers.push((TRACEPARENT, context.traceparent.clone()));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use settle_types::Timestamp;

    struct Fixed;
    impl World for Fixed {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(1_000_000)
        }
        fn random(&self) -> (u64, u64) {
            (1, 2)
        }
        async fn sleep(&self, _: Duration) {}
        fn log(&self, _: &'static str, _: &str, _: &CallContext) {}
    }

    fn context(rows: &[(&'static str, &str)]) -> CallContext {
        let headers = rows.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap()));
        of_request(&headers.collect(), &Fixed)
    }

    #[test]
    fn a_trace_goes_on_and_a_broken_one_is_begun_anew() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        let child = context(&[(TRACEPARENT, parent)]).traceparent;
        assert_eq!(child, "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000001-00");
        for bad in ["", "00-0-0-00", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", "x"] {
            let begun = context(&[(TRACEPARENT, bad)]).traceparent;
            assert_eq!(begun, "00-00000000000000010000000000000002-0000000000000001-01", "{bad}");
        }
    }

    #[test]
    fn a_correlation_id_is_kept_when_it_is_harmless() {
        assert_eq!(context(&[(CORRELATION_ID, "abc-1")]).correlation_id, "abc-1");
        let made = "00000000000000010000000000000002";
        assert_eq!(context(&[(CORRELATION_ID, "a b")]).correlation_id, made);
        assert_eq!(context(&[(CORRELATION_ID, &"x".repeat(129))]).correlation_id, made);
    }

    #[test]
    fn a_deadline_is_the_callers_but_never_longer_than_ours() {
        let millis = |text| context(&[(TIMEOUT, text)]).deadline.as_millis() - 1_000_000;
        assert_eq!(millis("1S"), 800);
        assert_eq!(millis("500m"), 300);
        assert_eq!(millis("1H"), 9_800);
        assert_eq!(millis("junk"), 9_800);
        assert_eq!(millis("100m"), 0);
    }
}
