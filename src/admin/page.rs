//! The status page: plain HTML, CSS and JavaScript inside the binary, nothing from elsewhere.

use axum::{Router, response::IntoResponse, routing::get};
use http::header;

/// Nothing but the page's own files, and nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page and its files.
pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", file("text/html; charset=utf-8", include_str!("ui/index.html")))
        .route("/ui/page.js", file("text/javascript; charset=utf-8", include_str!("ui/page.js")))
        .route("/ui/page.css", file("text/css; charset=utf-8", include_str!("ui/page.css")))
        .route("/ui/mark.svg", file("image/svg+xml", include_str!("ui/mark.svg")))
}

fn file<S: Clone + Send + Sync + 'static>(
    kind: &'static str,
    text: &'static str,
) -> axum::routing::MethodRouter<S> {
    get(move || async move {
        let headers = [
            (header::CONTENT_TYPE, kind),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::CACHE_CONTROL, "no-cache"),
        ];
        (headers, text).into_response()
    })
}
