//! Cross-origin requests of browsers (the Fetch standard's CORS protocol).

use http::{HeaderMap, Method};

/// Methods and fields that our services read, and fields of answers that a page may read.
const METHODS: &str = "GET, POST";
const REQUEST_FIELDS: &str = "authorization, content-type, idempotency-key, traceparent, x-correlation-id";
const ANSWER_FIELDS: &str = "idempotent-replayed, location, ratelimit-limit, ratelimit-remaining, \
     ratelimit-reset, retry-after, x-correlation-id";
/// How long a browser may remember a preflight's answer.
const REMEMBER_SECONDS: &str = "600";

/// Who may call from a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    origins: Vec<String>,
    credentials: bool,
}

/// Why a setting is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CorsError {
    /// Any page could act for the user who looks at it.
    #[error("`*` cannot be used with credentials")]
    AnyOriginWithCredentials,
    #[error("`{0}` is no origin like https://shop.example")]
    NotAnOrigin(String),
}

/// A browser's question before the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preflight {
    /// It is none.
    No,
    /// Answer 204 with these fields; without any, the browser refuses.
    Answer(Vec<(&'static str, String)>),
}

impl Cors {
    /// From a list like `https://shop.example, https://admin.example`, or `*`. Empty: no page may call.
    pub fn parse(origins: &str, credentials: bool) -> Result<Self, CorsError> {
        let origins: Vec<String> =
            origins.split(',').map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned).collect();
        for origin in &origins {
            if origin == "*" {
                if credentials {
                    return Err(CorsError::AnyOriginWithCredentials);
                }
                continue;
            }
            let authority = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            if authority.is_none_or(|text| text.is_empty() || text.contains(['/', '*', ' '])) {
                return Err(CorsError::NotAnOrigin(origin.clone()));
            }
        }
        Ok(Self { origins, credentials })
    }

    pub fn preflight(&self, method: &Method, headers: &HeaderMap) -> Preflight {
        let asks = headers.contains_key("access-control-request-method") && headers.contains_key("origin");
        if method != Method::OPTIONS || !asks {
            return Preflight::No;
        }
        let mut fields = self.fields(headers);
        if fields.iter().any(|(name, _)| *name == "access-control-allow-origin") {
            fields.retain(|(name, _)| *name != "access-control-expose-headers");
            fields.push(("access-control-allow-methods", METHODS.to_owned()));
            fields.push(("access-control-allow-headers", REQUEST_FIELDS.to_owned()));
            fields.push(("access-control-max-age", REMEMBER_SECONDS.to_owned()));
        }
        Preflight::Answer(fields)
    }

    /// The fields of an answer to a request with these fields.
    pub fn fields(&self, headers: &HeaderMap) -> Vec<(&'static str, String)> {
        if self.origins.is_empty() {
            return Vec::new();
        }
        // Caches keep answers for different origins apart.
        let mut fields = vec![("vary", "origin".to_owned())];
        let Some(origin) = headers.get("origin").and_then(|value| value.to_str().ok()) else { return fields };
        let any = self.origins.iter().any(|known| known == "*");
        if !any && !self.origins.iter().any(|known| known == origin) {
            return fields;
        }
        let allowed = if any { "*" } else { origin };
        fields.push(("access-control-allow-origin", allowed.to_owned()));
        if self.credentials {
            fields.push(("access-control-allow-credentials", "true".to_owned()));
        }
        fields.push(("access-control-expose-headers", ANSWER_FIELDS.to_owned()));
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(origin: &str) -> HeaderMap {
        let rows = [("origin", origin), ("access-control-request-method", "POST")];
        rows.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn allowed(cors: &Cors, origin: &str) -> Option<String> {
        let Preflight::Answer(fields) = cors.preflight(&Method::OPTIONS, &from(origin)) else { panic!() };
        fields.into_iter().find(|(name, _)| *name == "access-control-allow-origin").map(|(_, value)| value)
    }

    #[test]
    fn only_listed_origins_are_allowed() {
        let cors = Cors::parse("https://shop.example, http://localhost:3000", false).unwrap();
        assert_eq!(allowed(&cors, "https://shop.example").as_deref(), Some("https://shop.example"));
        assert_eq!(allowed(&cors, "http://localhost:3000").as_deref(), Some("http://localhost:3000"));
        for other in ["https://shop.example.evil", "http://shop.example", "null", "https://SHOP.example"] {
            assert_eq!(allowed(&cors, other), None, "{other}");
        }
        assert_eq!(allowed(&Cors::default(), "https://shop.example"), None);
        assert_eq!(allowed(&Cors::parse("*", false).unwrap(), "https://x.example").as_deref(), Some("*"));
    }

    #[test]
    fn any_origin_and_credentials_exclude_each_other() {
        assert_eq!(Cors::parse("*", true), Err(CorsError::AnyOriginWithCredentials));
        for bad in ["shop.example", "https://", "https://a/b", "https://*.example", "ftp://a"] {
            assert_eq!(Cors::parse(bad, false), Err(CorsError::NotAnOrigin(bad.to_owned())));
        }
    }

    #[test]
    fn an_answer_varies_by_origin_and_credentials_are_told() {
        let cors = Cors::parse("https://shop.example", true).unwrap();
        let fields = cors.fields(&from("https://shop.example"));
        assert!(fields.contains(&("vary", "origin".to_owned())));
        assert!(fields.contains(&("access-control-allow-credentials", "true".to_owned())));
        assert_eq!(cors.fields(&HeaderMap::new()), [("vary", "origin".to_owned())]);
        assert_eq!(cors.preflight(&Method::POST, &from("https://shop.example")), Preflight::No);
        assert_eq!(cors.preflight(&Method::OPTIONS, &HeaderMap::new()), Preflight::No);
    }
}
