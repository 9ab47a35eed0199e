//! The published API and a page that shows it. Everything is in the component: it works offline.

use settle_service_kit::http::{Call, Reply};
use settle_service_kit::problem::Problem;

/// The page's own files and nothing else.
const PAGE_POLICY: &str =
    "default-src 'none'; connect-src 'self'; script-src 'self'; style-src 'self'; frame-ancestors 'none'";

/// Path, media type, text.
const FILES: [(&str, &str, &str); 4] = [
    ("/openapi.json", "application/json", include_str!("../../../docs/openapi.json")),
    ("/docs", "text/html; charset=utf-8", include_str!("../docs/index.html")),
    ("/docs/page.js", "text/javascript; charset=utf-8", include_str!("../docs/page.js")),
    ("/docs/style.css", "text/css; charset=utf-8", include_str!("../docs/style.css")),
];

/// The file at the call's path, if it is one.
pub fn file(call: &Call) -> Option<Result<Reply, Problem>> {
    let (_, media_type, text) = FILES.iter().find(|(path, ..)| *path == call.path)?;
    Some(match call.method {
        http::Method::GET => Ok(Reply::new(200, text.as_bytes().to_vec())
            .header("content-type", *media_type)
            .header("content-security-policy", PAGE_POLICY)
            .header("cache-control", "public, max-age=300")),
        _ => Err(Problem::method_not_allowed("GET")),
    })
}
