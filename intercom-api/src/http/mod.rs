//! The HTTP API: the provisioning API as spec admin-api.md says it, our own REST face under `/v1`, and `/healthz`.
//!
//! Reads go to the store and the read model, never to the SIP thread. A write is one transaction, then one order to the
//! Switchboard, then the reply (D-30). Everything but `/healthz` needs the bearer token (OPEN-14; the signature comes with
//! the API issue), `/metrics` not on the same machine (D-32).

#![allow(clippy::disallowed_methods)] // a shell: owns the wall clock of `createTime`

mod bans;
pub mod caller;
mod doors;
mod envelope;
pub mod listener;
mod live_calls;
mod metrics;
mod pictures;
mod records;
pub mod seed;
mod signature;
mod v1;

use crate::control::{Control, Order, Unavailable};
use crate::live::Live;
use crate::model::DirectoryChange;
use crate::pictures::Pictures;
use crate::store::Store;
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::{any, get, post};
use caller::Doorkeeper;
use listener::{Front, Peer};
use std::future::Future;
use std::io;
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

/// Serves until `shutdown`.
pub async fn serve(front: Front, state: ApiState, shutdown: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
    let service = router(state).into_make_service_with_connect_info::<Peer>();
    axum::serve(front, service).with_graceful_shutdown(shutdown).await
}

/// All routes.
pub fn router(state: ApiState) -> Router {
    Router::new()
        .route("/v1/accounts", post(v1::add_accounts).get(v1::accounts))
        .route("/v1/accounts/{number}", get(v1::account).patch(doors::change_account))
        .route("/v1/doors", get(doors::doors))
        .route("/v1/doors/{number}", get(doors::door).patch(doors::change_door))
        .route("/v1/doors/{number}/unlock", post(doors::unlock))
        .route("/v1/groups", post(v1::add_groups).get(v1::groups))
        .route("/v1/groups/{id}", get(v1::group))
        .route("/v1/registrations", get(live_calls::registrations))
        .route("/v1/bans", get(bans::bans).delete(bans::lift))
        .route("/v1/records", get(records::records))
        .route("/v1/watched", get(records::watched))
        .route("/v1/calls", get(live_calls::calls))
        .route("/v1/calls/{id}", get(live_calls::call).delete(live_calls::hang_up))
        .route("/v1/calls/{id}/snapshot", post(pictures::take).get(pictures::of_call))
        .route("/v1/snapshots/{id}", get(pictures::by_id).delete(pictures::delete))
        .route("/v1/records/{id}/snapshot", get(pictures::of_record).delete(pictures::delete_of_record))
        .route("/metrics", get(metrics::metrics))
        .route("/entrance/{*path}", any(seed::handle))
        .route("/solution/{*path}", any(seed::handle))
        .route("/cloud/{*path}", any(seed::handle))
        .route("/app/{*path}", any(seed::handle))
        .fallback(v1::nothing_here)
        .method_not_allowed_fallback(v1::wrong_method)
        .layer(axum::middleware::from_fn_with_state(state.clone(), caller::authorise))
        .layer(DefaultBodyLimit::max(BODY))
        .route("/healthz", get(health))
        .with_state(state)
}

/// Does the provisioning API speak there, in its envelope?
fn is_gateway(path: &str) -> bool {
    ["/entrance/", "/solution/", "/cloud/", "/app/"].iter().any(|face| path.starts_with(face))
}

async fn health(State(state): State<ApiState>) -> StatusCode {
    if state.draining.load(Ordering::Relaxed) { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}
