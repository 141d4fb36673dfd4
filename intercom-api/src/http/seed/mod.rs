//! The provisioning API (spec admin-api.md §2.2, §4 to §6, §10, §11): endpoints as data, one file per family, and the way of
//! a request through them. The validation table is §13.1.

mod accounts;
mod communities;
mod devices;
mod groups;
mod params;
mod servers;
mod spaces;
pub mod table;
mod things;
mod units;

use super::caller::Caller;
use super::envelope::{Envelope, Reply};
use super::{ApiState, now_ms};
use crate::model::DirectoryChange;
use crate::store::{NO_ACCOUNT, StoreError};
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, Uri};
use params::Params;
use std::collections::HashMap;
use table::{Ask, Endpoint};

/// All endpoints there are.
pub fn endpoints() -> impl Iterator<Item = &'static Endpoint> {
    let families = [
        servers::ENDPOINTS,
        accounts::ENDPOINTS,
        groups::ENDPOINTS,
        units::ENDPOINTS,
        spaces::ENDPOINTS,
        communities::ENDPOINTS,
        things::ENDPOINTS,
        devices::ENDPOINTS,
    ];
    families.into_iter().flatten()
}

/// `None`: no such path or version. Who names no version gets the first of the path.
fn find(path: &str, version: Option<&str>) -> Option<&'static Endpoint> {
    endpoints()
        .filter(|endpoint| endpoint.path == path)
        .find(|endpoint| version.is_none_or(|version| endpoint.versions.contains(&version)))
}

pub async fn handle(
    State(state): State<ApiState>,
    caller: Caller,
    method: Method,
    uri: Uri,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Reply {
    let envelope = match Envelope::read(&body) {
        Ok(envelope) => envelope,
        Err(reply) => return reply,
    };
    let header = || headers.get("apiVer").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let version = envelope.api_ver.clone().or_else(header).or_else(|| query.get("apiVer").cloned());
    let id = envelope.id.clone();
    let found = find(uri.path(), version.as_deref()).filter(|_| method == Method::POST);
    let Some(endpoint) = found else {
        return Reply::error(20003, "gateway.not found backend router", "no such path, method or apiVer").with_id(id);
    };
    run(state, caller, endpoint, envelope).await.unwrap_or_else(|refusal| refusal).with_id(id)
}

async fn run(state: ApiState, caller: Caller, endpoint: &'static Endpoint, envelope: Envelope) -> Result<Reply, Reply> {
    // Whoever reaches everything needs no token for a part of it.
    if endpoint.needs_token && !caller.tenant.all {
        let token = envelope.cloud_token.unwrap_or_default();
        state.store.check_token(caller.tenant.clone(), token, now_ms()).await?;
    }
    let params = Params::read(&envelope.params, endpoint.params)?;
    Ok(Reply::ok((endpoint.run)(Ask { state, caller, params }).await?))
}

impl Ask {
    /// Tells the Switchboard what was written, before anybody is told that it was (D-30).
    async fn commit(&self, changes: Vec<DirectoryChange>) -> Result<(), Reply> {
        self.state.apply(changes).await.map_err(|error| Reply::error(503, "service unavailable.", &error.to_string()))
    }
}

fn invalid(detail: &str) -> Reply {
    Reply::error(400, "request error.", detail)
}

fn wrong_type(detail: &str) -> Reply {
    Reply::error(20004, "gateway.backend service error", detail)
}

impl From<StoreError> for Reply {
    fn from(error: StoreError) -> Reply {
        match error {
            // Shape and place are §13's.
            StoreError::NotFound(what) if what == NO_ACCOUNT => Reply::error(404, NO_ACCOUNT, "SIP number invalid"),
            StoreError::NotFound(what) => Reply::error(404, "not found.", &what),
            StoreError::Conflict(what) | StoreError::Invalid(what) => invalid(&what),
            StoreError::Forbidden(_) => Reply::error(403, "request forbidden.", &error.to_string()),
            StoreError::Unavailable => Reply::error(503, "service unavailable.", &error.to_string()),
        }
    }
}

/// A number or name as it goes into SIP URIs and headers: printable, without what would end one.
pub fn is_plain(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || c.is_whitespace() || "<>\"@:;,?/\\%".contains(c)) && text.is_ascii()
}
