//! `/v1/calls` and `/v1/registrations`: the read model as it is now.

use super::v1::Problem;
use super::{ApiState, pictures};
use crate::control::{Answer, Order};
use crate::live::{CallId, CallView, RegistrationView};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Only calls this account has a leg in.
    account: Option<String>,
}

/// Running calls and the latest ended ones, newest first, without their ladders.
pub async fn calls(State(state): State<ApiState>, Query(filter): Query<Filter>) -> Json<Vec<CallView>> {
    let has = |call: &CallView| filter.account.as_ref().is_none_or(|account| call.legs.iter().any(|leg| leg.account == *account));
    let mut calls: Vec<CallView> =
        state.live.calls.iter().filter(|call| has(call)).map(|call| CallView { ladder: Vec::new(), ..call.clone() }).collect();
    calls.sort_by(|a, b| b.started_ms.cmp(&a.started_ms).then_with(|| a.id.cmp(&b.id)));
    Json(calls)
}

/// A call with its ladder and its pictures.
#[derive(Serialize)]
pub struct WholeCall {
    #[serde(flatten)]
    call: CallView,
    /// Newest first.
    snapshots: Vec<Value>,
}

pub async fn call(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Json<WholeCall>, Problem> {
    let call = state.live.calls.get(&CallId(id.clone())).map(|call| call.clone());
    let call = call.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "no such call"))?;
    // A call is shown also while the store is not there.
    let snapshots = state.store.snapshots_of_call(id).await.unwrap_or_default();
    Ok(Json(WholeCall { call, snapshots: snapshots.iter().map(pictures::shown).collect() }))
}

pub async fn hang_up(State(state): State<ApiState>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    match state.control.order(Order::HangUp(CallId(id))).await {
        Ok(Answer::Done) => Ok(StatusCode::NO_CONTENT),
        Ok(_) => Err(Problem::new(StatusCode::NOT_FOUND, "no such running call")),
        Err(error) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
    }
}

/// The longest list of registrations, and what is given when no limit is asked for.
const REGISTRATIONS: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistrationPage {
    /// Accounts after this one.
    #[serde(default)]
    after: String,
    limit: Option<usize>,
}

/// By account number.
pub async fn registrations(State(state): State<ApiState>, Query(page): Query<RegistrationPage>) -> Json<Vec<RegistrationView>> {
    let live = &state.live.registrations;
    let limit = page.limit.unwrap_or(REGISTRATIONS).clamp(1, REGISTRATIONS);
    let mut accounts: Vec<Arc<str>> =
        live.iter().map(|entry| entry.key().clone()).filter(|account| **account > *page.after).collect();
    if accounts.len() > limit {
        accounts.select_nth_unstable(limit);
        accounts.truncate(limit);
    }
    accounts.sort_unstable();
    Json(accounts.iter().filter_map(|account| Some(live.get(account)?.value().into())).collect())
}
