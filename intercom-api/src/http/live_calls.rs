//! `/v1/calls` and `/v1/registrations`: the read model as it is now.

use super::ApiState;
use super::v1::Problem;
use crate::control::{Answer, Order};
use crate::live::{CallId, CallView, RegistrationView};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;

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

pub async fn call(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Json<CallView>, Problem> {
    state
        .live
        .calls
        .get(&CallId(id))
        .map(|call| Json(call.clone()))
        .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "no such call"))
}

pub async fn hang_up(State(state): State<ApiState>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    match state.control.order(Order::HangUp(CallId(id))).await {
        Ok(Answer::Done) => Ok(StatusCode::NO_CONTENT),
        Ok(_) => Err(Problem::new(StatusCode::NOT_FOUND, "no such running call")),
        Err(error) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
    }
}

/// By account number.
pub async fn registrations(State(state): State<ApiState>) -> Json<Vec<RegistrationView>> {
    let mut registrations: Vec<RegistrationView> = state.live.registrations.iter().map(|entry| entry.value().clone()).collect();
    registrations.sort_by(|a, b| a.account.cmp(&b.account));
    Json(registrations)
}
