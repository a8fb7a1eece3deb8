//! `GET /metrics`: what this process counts, in the text format of Prometheus.

use std::error::Error;
use std::io;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::Api;
use super::params::Params;
use super::problem::Problem;

/// Durations from a tenth of a millisecond to ten seconds.
const SECONDS: [f64; 16] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// Entries in one batch.
const ENTRIES: [f64; 13] =
    [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0];

const TIDY_INTERVAL: Duration = Duration::from_secs(5);

/// The recorder of this process. Nodes that run in one process share it.
static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Begins to collect, once in a process; before a node starts, so that it misses nothing. If the
/// program has a recorder of its own, that one stays, and this has nothing to show.
pub(crate) fn collect() -> Option<&'static PrometheusHandle> {
    let install = || {
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
            .and_then(|it| {
                it.set_buckets_for_metric(Matcher::Suffix("_entries".to_owned()), &ENTRIES)
            });
        let recorder = builder.and_then(PrometheusBuilder::install_recorder);
        let nothing = |error: &dyn Error| tracing::warn!("GET /metrics stays empty: {error}");
        let recorder = recorder.inspect_err(|error| nothing(error)).ok()?;
        tidy(recorder.clone()).inspect_err(|error| nothing(error)).ok()?;
        Some(recorder)
    };
    RECORDER.get_or_init(install).as_ref()
}

/// Moves what was recorded into the buckets now and then: if nobody asks for it, it must not pile up.
fn tidy(recorder: PrometheusHandle) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("metrics".to_owned()).spawn(move || {
        loop {
            thread::sleep(TIDY_INTERVAL);
            recorder.run_upkeep();
        }
    })
}

/// All metrics. Answered at once, with or without a leader.
pub(crate) async fn metrics(
    State(_): State<Arc<Api>>,
    request: Request,
) -> Result<Response, Problem> {
    Params::of_query(request.uri().query(), &[])?;
    let text = collect().map(PrometheusHandle::render);
    let mut response = Response::new(Body::from(text.unwrap_or_default()));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}
