//! Whose a path is.

/// Longest path and query.
const TARGET_BYTES_MAX: usize = 4096;

/// A service behind the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upstream {
    Identity,
    Order,
    Payment,
}

impl Upstream {
    pub const ALL: [Upstream; 3] = [Upstream::Identity, Upstream::Order, Upstream::Payment];

    pub fn name(self) -> &'static str {
        match self {
            Upstream::Identity => "identity",
            Upstream::Order => "order",
            Upstream::Payment => "payment",
        }
    }
}

/// What is served at the edge: a path, and all below it where it ends with `/`. Calls between services
/// (`/oauth/token`, `settle.payment.v1`, recovery) are not.
pub const ROUTES: [(&str, Upstream); 16] = [
    ("/auth/login", Upstream::Identity),
    ("/login", Upstream::Identity),
    ("/v1/tokens", Upstream::Identity),
    ("/v1/tokens/", Upstream::Identity),
    ("/v1/users", Upstream::Identity),
    ("/v1/users/", Upstream::Identity),
    ("/.well-known/jwks.json", Upstream::Identity),
    ("/v1/orders", Upstream::Order),
    ("/v1/orders/", Upstream::Order),
    ("/v1/sagas", Upstream::Order),
    ("/OrderService/", Upstream::Order),
    ("/orders.OrderService/", Upstream::Order),
    ("/v1/payments", Upstream::Payment),
    ("/v1/payments/", Upstream::Payment),
    ("/PaymentService/", Upstream::Payment),
    ("/payments.PaymentService/", Upstream::Payment),
];

/// The service that answers a path, if the edge shows one.
pub fn upstream_of(path: &str) -> Option<Upstream> {
    let is_at = |route: &str| {
        if route.ends_with('/') { path.len() > route.len() && path.starts_with(route) } else { path == route }
    };
    ROUTES.iter().find(|(route, _)| is_at(route)).map(|(_, upstream)| *upstream)
}

/// Why a target is not passed on: two readers might understand it differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(pub &'static str);

/// Refuses targets that somebody behind us could read otherwise than we do.
pub fn checked(path: &str, query: &str) -> Result<(), Refused> {
    if path.len().saturating_add(query.len()) > TARGET_BYTES_MAX {
        return Err(Refused("The request target is too long."));
    }
    if !path.starts_with('/') {
        return Err(Refused("The request target is no path."));
    }
    let bytes = path.bytes().chain(query.bytes());
    if bytes.into_iter().any(|byte| !byte.is_ascii_graphic() || byte == b'\\' || byte == b'#') {
        return Err(Refused("The request target has characters that must be encoded."));
    }
    // No path of ours needs an encoded character.
    if path.contains('%') {
        return Err(Refused("The path has an encoded character."));
    }
    if path.split('/').skip(1).any(|part| part == "." || part == "..") || path.contains("//") {
        return Err(Refused("The path is not in its plain form."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_belongs_to_one_service_or_to_none() {
        let rows = [
            ("/v1/orders", Some(Upstream::Order)),
            ("/v1/orders/x/cancel", Some(Upstream::Order)),
            ("/OrderService/CreateOrder", Some(Upstream::Order)),
            ("/v1/payments/x/refunds", Some(Upstream::Payment)),
            ("/auth/login", Some(Upstream::Identity)),
            ("/v1/ordersx", None),
            ("/OrderService/", None),
            ("/oauth/token", None),
            ("/settle.payment.v1.PaymentService/Process", None),
            ("/v1/recovery/resume-due", None),
            ("/", None),
        ];
        for (path, expected) in rows {
            assert_eq!(upstream_of(path), expected, "{path}");
        }
    }

    #[test]
    fn targets_with_two_readings_are_refused() {
        for (path, query) in [("/v1/orders", "status=paid&after=%20"), ("/", ""), ("/a.b/C", "")] {
            assert_eq!(checked(path, query), Ok(()), "{path}");
        }
        let long = format!("/{}", "x".repeat(TARGET_BYTES_MAX));
        let bad =
            ["", "v1", "//v1", "/v1//orders", "/v1/../x", "/v1/.", "/v1%2forders", "/v1/%2e%2e/x", "/a\\b"];
        for path in bad.into_iter().chain(["/v1/orders\0", "/\u{e4}", "/a#b", "*", long.as_str()]) {
            assert!(checked(path, "").is_err(), "{path}");
        }
        assert!(checked("/", "a b").is_err());
    }
}
