//! The dashboard at `/`: one page without data. It asks for the token and then for the data. Its
//! parts are put together once; the policy names the two by their hashes, so nothing else runs in
//! it, nothing is loaded from elsewhere, and nobody may frame it.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha256};

const FRAME: &str = include_str!("dashboard/page.html");
const STYLE: &str = include_str!("dashboard/look.css");
/// One after the other in one scope.
const SCRIPTS: [&str; 4] = [
    include_str!("dashboard/live.js"),
    include_str!("dashboard/list.js"),
    include_str!("dashboard/one.js"),
    include_str!("dashboard/main.js"),
];

struct Page {
    text: String,
    policy: String,
}

static PAGE: LazyLock<Page> = LazyLock::new(|| {
    let script = format!("\"use strict\";\n{}", SCRIPTS.concat());
    let policy = format!(
        "default-src 'none'; style-src {}; script-src {}; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(&script)
    );
    let text = FRAME.replace("{{style}}", STYLE).replace("{{script}}", &script);
    Page { text, policy }
});

/// A source of a content security policy: just this text.
fn hash(text: &str) -> String {
    format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(text)))
}

/// The answer to `GET /`.
pub(super) async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, PAGE.policy.as_str()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, PAGE.text.as_str()).into_response()
}
