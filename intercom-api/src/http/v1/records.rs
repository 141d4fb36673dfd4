//! `GET /v1/records`: who wished which door open and how it ended; `GET /v1/watched`: who saw visitors. Newest first; `after`
//! goes on behind an id. Times are milliseconds since 1970.

use super::*;
use crate::http::ask::Query;
use crate::record::{Record, Wanted, Watched};
use axum::extract::State;
use serde_json::json;

pub fn routes() -> Vec<Route> {
    let watched = json!([{
        "id": 15, "account": "102", "door": "d1", "room": "1202", "call": "c7f3", "from_ms": 1_790_000_000_000_i64,
        "to_ms": 1_790_000_009_000_i64, "talked": false,
    }]);
    let record = json!([{
        "id": 12, "account": "101", "road": "info", "door": "d1", "room": "1202", "call": "c7f3", "reqsn": 7,
        "asked_ms": 1_790_000_000_000_i64, "sent_ms": 1_790_000_000_001_i64, "ended_ms": 1_790_000_000_090_i64,
        "outcome": "opened", "status": 200, "reason": null, "late": null, "snapshot": "c7f3-2", "snapshot_sha256": null,
        "watched": watched,
    }]);
    vec![
        Route::get("/v1/records", records, "Who wished which door open, and how that ended; newest first")
            .query::<RecordFilter>()
            .page::<Record>("One page of them", record),
        Route::get("/v1/watched", watched_list, "Who saw a visitor; newest first")
            .query::<WatchedFilter>()
            .page::<Watched>("One page of them", watched),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RecordFilter {
    door: Option<String>,
    account: Option<String>,
    /// As it was dialled.
    room: Option<String>,
    call: Option<String>,
    outcome: Option<String>,
    /// Asked at this moment or later: milliseconds since 1970.
    from: Option<i64>,
    /// Asked before this moment.
    to: Option<i64>,
    /// Goes on behind this id, with older ones.
    after: Option<i64>,
    /// Entries of one page; 100 when it is left out.
    #[serde(default)]
    limit: Limit,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WatchedFilter {
    door: Option<String>,
    account: Option<String>,
    /// As it was dialled.
    room: Option<String>,
    call: Option<String>,
    /// First seen at this moment or later: milliseconds since 1970.
    from: Option<i64>,
    /// First seen before this moment.
    to: Option<i64>,
    /// Goes on behind this id, with older ones.
    after: Option<i64>,
    /// Entries of one page; 100 when it is left out.
    #[serde(default)]
    limit: Limit,
}

async fn records(
    State(state): State<ApiState>,
    caller: Caller,
    uri: Uri,
    Query(filter): Query<RecordFilter>,
) -> Result<Paged<Record>, Problem> {
    let RecordFilter { door, account, room, call, outcome, from, to, after, limit } = filter;
    let (app, most) = (caller.tenant.only(), limit.count() + 1);
    let wanted = Wanted { app, door, account, room, call, outcome, from_ms: from, to_ms: to, after, limit: most };
    Ok(Paged::new(&uri, limit, state.store.records(wanted).await?, |record| record.id.to_string()))
}

async fn watched_list(
    State(state): State<ApiState>,
    caller: Caller,
    uri: Uri,
    Query(filter): Query<WatchedFilter>,
) -> Result<Paged<Watched>, Problem> {
    let WatchedFilter { door, account, room, call, from, to, after, limit } = filter;
    let (app, most) = (caller.tenant.only(), limit.count() + 1);
    let wanted = Wanted { app, door, account, room, call, outcome: None, from_ms: from, to_ms: to, after, limit: most };
    Ok(Paged::new(&uri, limit, state.store.watched(wanted).await?, |watched| watched.id.to_string()))
}
