//! The HTTP API: the provisioning API as spec admin-api.md says it, our own REST face under `/v1`, events, and `/healthz`.
//!
//! Reads go to the store and the read model, never to the SIP thread. A write is one transaction, then one order to the
//! Switchboard, then the reply (D-30). Everything but `/healthz` and the empty page of `/docs` needs a token or the signature of
//! an app (OPEN-14), `/metrics` not on the same machine (D-32).

#![allow(clippy::disallowed_methods)] // a shell: owns the wall clock of `createTime`

mod ask;
pub mod caller;
mod envelope;
mod events;
pub mod listener;
mod metrics;
mod openapi;
#[cfg(test)]
mod roles;
mod route;
pub mod seed;
mod signature;
mod v1;

pub use events::MAX_STREAMS;

use crate::control::{Control, Order, Unavailable};
use crate::events::Channels;
use crate::live::Live;
use crate::model::DirectoryChange;
use crate::pictures::Pictures;
use crate::store::Store;
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::any;
use caller::Doorkeeper;
use route::{Needs, Route};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Largest request body in bytes.
const BODY: usize = 1 << 20;

/// What every handler works with; cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    pub store: Store,
    pub control: Control,
    pub live: Arc<Live>,
    pub pictures: Arc<Pictures>,
    pub events: Arc<Channels>,
    pub draining: Arc<AtomicBool>,
    /// `sipHost` and `sipPort` of replies.
    pub sip_host: Arc<str>,
    pub sip_port: u16,
    /// Of the one SIP server (D-34).
    pub host_ip: IpAddr,
    /// OPEN-17: members of a group have `serverPort` too.
    pub server_port: bool,
    /// Milliseconds since 1970.
    pub started_ms: i64,
    pub doorkeeper: Arc<Doorkeeper>,
}

impl ApiState {
    /// Tells the Switchboard what a committed write changed. When it cannot be told now, the write still stands and is
    /// loaded at the next start; the client is told 503 and may repeat it.
    async fn apply(&self, changes: Vec<DirectoryChange>) -> Result<(), Unavailable> {
        if changes.is_empty() {
            return Ok(());
        }
        for change in &changes {
            if let DirectoryChange::RemoveAccount(number) = change {
                self.live.last_seen.remove(number.as_str());
            }
        }
        self.control.order(Order::Apply(changes)).await.map(|_| ())
    }
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Everything but the provisioning API, whose list is [`seed::endpoints`].
fn routes() -> Vec<Route> {
    let health = Route::get("/healthz", health, "Is it serving?")
        .needs(Needs::Nothing)
        .nothing(200, "It is")
        .nothing(503, "It is draining: calls end, and nothing new begins");
    let mut routes = vec![health, metrics::route()];
    routes.extend(events::routes());
    routes.extend(openapi::routes());
    routes.extend(v1::routes());
    routes
}

/// All of it.
pub fn router(state: ApiState) -> Router {
    let (open, closed) = routes().into_iter().partition(|route| route.needs == Needs::Nothing);
    known(closed)
        .layer(axum::middleware::from_fn_with_state(state.clone(), caller::authorise))
        .layer(DefaultBodyLimit::max(BODY))
        .merge(route::router(open).method_not_allowed_fallback(v1::wrong_method))
        .with_state(state)
}

/// What is for those who are known.
fn known(routes: Vec<Route>) -> Router<ApiState> {
    let gateway =
        GATEWAY.iter().fold(route::router(routes), |router, face| router.route(&format!("{face}{{*path}}"), any(seed::handle)));
    gateway.fallback(v1::nothing_here).method_not_allowed_fallback(v1::wrong_method)
}

/// Where the provisioning API speaks, in its envelope.
const GATEWAY: [&str; 4] = ["/entrance/", "/solution/", "/cloud/", "/app/"];

fn is_gateway(path: &str) -> bool {
    GATEWAY.iter().any(|face| path.starts_with(face))
}

async fn health(State(state): State<ApiState>) -> StatusCode {
    if state.draining.load(Ordering::Relaxed) { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}
