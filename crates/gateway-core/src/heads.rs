//! Which header fields pass, in either direction.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Of one connection (RFC 9110, section 7.6.1), and those that name the client for whoever believes it.
const DROPPED: [&str; 15] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-authentication-info",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "host",
    "expect",
    "forwarded",
    "x-real-ip",
    // Our services know bearer tokens only.
    "cookie",
];
const DROPPED_PREFIXES: [&str; 4] = ["x-settle-", "x-forwarded-", "spin-", "proxy-"];
/// Of answers only: nobody needs to know what runs here.
const DROPPED_BACK: [&str; 3] = ["server", "x-powered-by", "via"];

fn passes(name: &HeaderName) -> bool {
    let name = name.as_str();
    !DROPPED.contains(&name) && !DROPPED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// The fields of a request that a service gets.
pub fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let trailers_only = |(name, value): &(&HeaderName, &HeaderValue)| {
        name.as_str() != "te" || value.as_bytes().eq_ignore_ascii_case(b"trailers")
    };
    let kept = headers.iter().filter(|(name, _)| passes(name)).filter(trailers_only);
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The fields of an answer that the client gets.
pub fn passed_back(headers: &HeaderMap) -> HeaderMap {
    let kept = headers.iter().filter(|(name, _)| passes(name) && !DROPPED_BACK.contains(&name.as_str()));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Fields that keep a browser from doing more with an answer than it is for. A page of our own brings
/// its own content policy.
pub const SECURED: [(&str, &str); 5] = [
    ("x-content-type-options", "nosniff"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cache-control", "no-store"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn map(rows: &[(&'static str, &'static str)]) -> HeaderMap {
        rows.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        headers.keys().map(HeaderName::as_str).collect()
    }

    #[test]
    fn fields_of_the_connection_and_of_trust_stay_here() {
        let sent = map(&[
            ("authorization", "Bearer x"),
            ("idempotency-key", "k"),
            ("te", "trailers"),
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("transfer-encoding", "chunked"),
            ("x-settle-peer", "127.0.0.1"),
            ("x-settle-client", "127.0.0.1"),
            ("x-forwarded-for", "127.0.0.1"),
            ("forwarded", "for=127.0.0.1"),
            ("cookie", "a=b"),
        ]);
        assert_eq!(names(&passed_on(&sent)), ["authorization", "idempotency-key", "te"]);
        assert!(passed_on(&map(&[("te", "gzip")])).is_empty());
        let answer =
            map(&[("content-type", "a/b"), ("server", "x"), ("connection", "close"), ("retry-after", "1")]);
        assert_eq!(names(&passed_back(&answer)), ["content-type", "retry-after"]);
    }

    #[test]
    fn a_repeated_field_stays_repeated() {
        let mut sent = map(&[("accept", "a/b")]);
        sent.append("accept", "c/d".parse().unwrap());
        assert_eq!(passed_on(&sent).get_all("accept").iter().count(), 2);
    }
}
