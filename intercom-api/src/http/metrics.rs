//! `/metrics`: what is counted and what is held, as Prometheus reads it (text format 0.0.4).
//!
//! Asked of the SIP thread when somebody looks, so that nothing is published for nobody. Names of events are our own words
//! (letters, digits, `_`), so nothing has to be escaped.

use super::ApiState;
use super::listener::Peer;
use super::route::{Needs, Route};
use super::v1::Problem;
use crate::control::{Answer, Numbers, Order};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::collections::BTreeMap;
use std::fmt::Write as _;

pub fn route() -> Route {
    Route::get("/metrics", metrics, "What is counted and what is held, as Prometheus reads it; open on the machine itself")
        .needs(Needs::InstallationOrLoopback)
        .other("Text format 0.0.4", "text/plain")
}

async fn metrics(State(state): State<ApiState>) -> Result<Response, Problem> {
    match state.control.order(Order::Numbers).await {
        Ok(Answer::Numbers(mut numbers)) => {
            numbers.events.extend(state.events.log.counts());
            let text = write(&numbers, &state.doorkeeper.refused());
            Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
        }
        Ok(_) => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "no numbers")),
        Err(error) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
    }
}

/// D-32: open on loopback. What a proxy on the same machine passes on comes from elsewhere and needs the token.
pub fn is_open_to(request: &Request) -> bool {
    let peer = request.extensions().get::<ConnectInfo<Peer>>();
    request.uri().path() == "/metrics"
        && peer.is_some_and(|ConnectInfo(Peer(peer))| peer.ip().to_canonical().is_loopback())
        && !["forwarded", "x-forwarded-for", "x-real-ip", "via"].iter().any(|name| request.headers().contains_key(*name))
}

fn write(numbers: &Numbers, refused: &BTreeMap<&'static str, u64>) -> String {
    let mut text = String::from(
        "# HELP doorline_sip_events_total Everything refused, dropped or given up, by name.\n\
         # TYPE doorline_sip_events_total counter\n",
    );
    for (name, count) in &numbers.events {
        let _ = writeln!(text, "doorline_sip_events_total{{name=\"{name}\"}} {count}");
    }
    text.push_str(
        "# HELP doorline_http_refused_total Requests that went no further, by name.\n\
         # TYPE doorline_http_refused_total counter\n",
    );
    for (name, count) in refused {
        let _ = writeln!(text, "doorline_http_refused_total{{name=\"{name}\"}} {count}");
    }
    for (name, value) in &numbers.gauges {
        let _ = write!(text, "# TYPE doorline_{name} gauge\ndoorline_{name} {value}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_prometheus_reads_them() {
        let numbers = Numbers { events: [("banned", 3)].into(), gauges: vec![("legs", 2)] };
        let text = write(&numbers, &[("replay", 1)].into());
        assert!(text.contains("\ndoorline_sip_events_total{name=\"banned\"} 3\n"), "{text}");
        assert!(text.contains("\ndoorline_http_refused_total{name=\"replay\"} 1\n"), "{text}");
        assert!(text.ends_with("# TYPE doorline_legs gauge\ndoorline_legs 2\n"), "{text}");
    }
}
