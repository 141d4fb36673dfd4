//! `GET /v1/records`: who wished which door open and how it ended; `GET /v1/watched`: who saw visitors. Newest first; `after`
//! goes on behind an id. Times are milliseconds since 1970.

use super::ApiState;
use super::v1::Problem;
use crate::record::{Record, Wanted, Watched};
use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordPage {
    door: Option<String>,
    account: Option<String>,
    room: Option<String>,
    call: Option<String>,
    outcome: Option<String>,
    from: Option<i64>,
    to: Option<i64>,
    after: Option<i64>,
    limit: Option<u32>,
}

impl RecordPage {
    fn wanted(self) -> Wanted {
        let RecordPage { door, account, room, call, outcome, from, to, after, limit } = self;
        let limit = limit.unwrap_or(100).clamp(1, 1000);
        Wanted { door, account, room, call, outcome, from_ms: from, to_ms: to, after, limit }
    }
}

pub async fn records(State(state): State<ApiState>, Query(page): Query<RecordPage>) -> Result<Json<Vec<Record>>, Problem> {
    Ok(Json(state.store.records(page.wanted()).await?))
}

pub async fn watched(State(state): State<ApiState>, Query(page): Query<RecordPage>) -> Result<Json<Vec<Watched>>, Problem> {
    if page.outcome.is_some() {
        return Err(Problem::bad("who watched has no outcome"));
    }
    Ok(Json(state.store.watched(page.wanted()).await?))
}
