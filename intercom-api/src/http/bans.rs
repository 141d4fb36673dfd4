//! `/v1/bans`: who may not try an account's password now, and an operator's way to lift it.

use super::ApiState;
use super::v1::Problem;
use crate::control::{Answer, BanView, Order};
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use std::net::IpAddr;

/// `?source=192.0.2.1&account=101`, as the list shows them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Which {
    source: IpAddr,
    account: String,
}

/// Bans in force, by source and account.
pub async fn bans(State(state): State<ApiState>) -> Result<Json<Vec<BanView>>, Problem> {
    match state.control.order(Order::Bans).await {
        Ok(Answer::Bans(bans)) => Ok(Json(bans)),
        Ok(_) => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "no bans")),
        Err(error) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
    }
}

pub async fn lift(State(state): State<ApiState>, which: Result<Query<Which>, QueryRejection>) -> Result<StatusCode, Problem> {
    let Query(Which { source, account }) =
        which.map_err(|rejection| Problem::new(StatusCode::BAD_REQUEST, rejection.body_text()))?;
    match state.control.order(Order::Unban { source, account }).await {
        Ok(Answer::Done) => Ok(StatusCode::NO_CONTENT),
        Ok(_) => Err(Problem::new(StatusCode::NOT_FOUND, "no such ban")),
        Err(error) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
    }
}
