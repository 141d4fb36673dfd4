//! `/metrics`: what is counted and what is held, as Prometheus reads it (text format 0.0.4).
//!
//! Asked of the SIP thread when somebody looks, so that nothing is published for nobody. Names of events are our own words
//! (letters, digits, `_`), so nothing has to be escaped.

use super::ApiState;
use super::route::{Needs, Route};
use super::v1::Problem;
use crate::control::{Answer, Numbers, Order};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::fmt::Write as _;
use std::net::SocketAddr;

pub fn route() -> Route {
    Route::get("/metrics", metrics, "What is counted and what is held, as Prometheus reads it; open on the machine itself")
        .needs(Needs::InstallationOrLoopback)
        .other("Text format 0.0.4", "text/plain")
}

async fn metrics(State(state): State<ApiState>) -> Result<Response, Problem> {
    match state.control.order(Order::Numbers).await {
        Ok(Answer::Numbers(numbers)) => {
            Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], write(&numbers)).into_response())
        }
        Ok(_) => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "no numbers")),
        Err(error) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
    }
}

/// D-32: open on loopback. What a proxy on the same machine passes on comes from elsewhere and needs the token.
pub fn is_open_to(request: &Request) -> bool {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    request.uri().path() == "/metrics"
        && peer.is_some_and(|ConnectInfo(peer)| peer.ip().to_canonical().is_loopback())
        && !["forwarded", "x-forwarded-for", "x-real-ip", "via"].iter().any(|name| request.headers().contains_key(*name))
}

fn write(numbers: &Numbers) -> String {
    let mut text = String::from(
        "# HELP doorline_sip_events_total Everything refused, dropped or given up, by name.\n\
         # TYPE doorline_sip_events_total counter\n",
    );
    for (name, count) in &numbers.events {
        let _ = writeln!(text, "doorline_sip_events_total{{name=\"{name}\"}} {count}");
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
        let text = write(&numbers);
        assert!(text.contains("\ndoorline_sip_events_total{name=\"banned\"} 3\n"), "{text}");
        assert!(text.ends_with("# TYPE doorline_legs gauge\ndoorline_legs 2\n"), "{text}");
    }
}
