//! The page and the documents that travel with it: static files, embedded in the binary.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use xxhash_rust::xxh3::xxh3_128;

use super::Api;

/// Nothing but our own files, no inline code, no frames.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'self'; \
                      frame-ancestors 'none'";
const CROSS_ORIGIN_OPENER_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-opener-policy");

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const MARKDOWN: &str = "text/markdown; charset=utf-8";

macro_rules! page_file {
    ($name:literal) => {
        include_bytes!(concat!("../../page/", $name))
    };
}

/// Path, media type and content of every file. A test compares it with the directory `page/`.
const FILES: &[(&str, &str, &[u8])] = &[
    ("/", HTML, page_file!("index.html")),
    ("/app.css", CSS, page_file!("app.css")),
    ("/app.js", SCRIPT, page_file!("app.js")),
    ("/cluster.js", SCRIPT, page_file!("cluster.js")),
    ("/icon.svg", SVG, page_file!("icon.svg")),
    ("/ranking.js", SCRIPT, page_file!("ranking.js")),
    ("/scores.js", SCRIPT, page_file!("scores.js")),
    ("/service.js", SCRIPT, page_file!("service.js")),
    ("/words.js", SCRIPT, page_file!("words.js")),
    ("/docs/errors.md", MARKDOWN, include_bytes!("../../docs/errors.md")),
];

/// Adds a route for each file.
pub(crate) fn routes(router: Router<Arc<Api>>) -> Router<Arc<Api>> {
    FILES.iter().fold(router, |router, &(path, media_type, content)| {
        let tag = format!("\"{:032x}\"", xxh3_128(content));
        let tag = HeaderValue::try_from(tag).expect("hexadecimal digits make a header");
        let answer = move |headers: HeaderMap| {
            let response = file(media_type, content, &tag, &headers);
            async move { response }
        };
        router.route(path, get(answer))
    })
}

/// The file, or 304 if the browser has this very content.
fn file(
    media_type: &'static str,
    content: &'static [u8],
    tag: &HeaderValue,
    asked: &HeaderMap,
) -> Response {
    let known = asked.get_all(IF_NONE_MATCH).iter().any(|tags| has_tag(tags, tag));
    let body = if known { Body::empty() } else { Body::from(Bytes::from_static(content)) };
    let mut response = Response::new(body);
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(ETAG, tag.clone());
    // Kept by browsers, but asked for each time: a new binary shows its new page at once.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CROSS_ORIGIN_OPENER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// Does this list of tags hold that one, weak or strong (RFC 9110 §13.1.2)?
fn has_tag(tags: &HeaderValue, tag: &HeaderValue) -> bool {
    let (Ok(tags), Ok(tag)) = (tags.to_str(), tag.to_str()) else { return false };
    tags.split(',')
        .map(str::trim)
        .any(|other| other == "*" || other.strip_prefix("W/").unwrap_or(other) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_page_is_served() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/page");
        let mut there: Vec<String> = std::fs::read_dir(directory)
            .unwrap()
            .map(|file| format!("/{}", file.unwrap().file_name().to_str().unwrap()))
            .map(|path| if path == "/index.html" { "/".to_owned() } else { path })
            .collect();
        there.sort();
        let page = FILES.iter().filter(|(path, ..)| !path.starts_with("/docs/"));
        let mut served: Vec<&str> = page.map(|(path, ..)| *path).collect();
        served.sort_unstable();
        assert_eq!(served, there);
    }

    #[test]
    fn a_tag_is_found_in_a_list() {
        let tag = HeaderValue::from_static("\"a\"");
        for tags in ["\"a\"", "W/\"a\"", "\"b\", \"a\"", "*"] {
            assert!(has_tag(&HeaderValue::from_str(tags).unwrap(), &tag), "{tags}");
        }
        for tags in ["\"b\"", "a", ""] {
            assert!(!has_tag(&HeaderValue::from_str(tags).unwrap(), &tag), "{tags}");
        }
    }
}
