//! `GET /v1/passages`: openings as records of the model, version 1.0 or 1.1 (spec events.md §4), newest first.

use super::*;
use crate::events::passage::{Passage, PassageRecord, Sender, Version};
use crate::http::ask::Query;
use crate::store::WantedPassages;
use axum::extract::State;
use serde_json::{Value, json};

pub fn routes() -> Vec<Route> {
    vec![
        Route::get(
            "/v1/passages",
            list,
            "Openings as records of the model `iot_entrance_videointercom_record_model`; newest first",
        )
        .query::<PassageFilter>()
        .page::<PassageView>("One page of them", json!([example()])),
    ]
}

fn example() -> Value {
    json!({
        "id": "1790000000090000", "gmtCreate": 1_790_000_000_090_i64,
        "data": {
            "tenantId": "doorline", "time": 1_790_000_000_090_i64, "iotId": "iot-1", "sourceType": "0",
            "eventInfo": r#"{"sipNumber":"101","groupId":"g1202","roomId":"1-9-3-1202"}"#,
        },
        "door": "d1", "method": "info", "callId": "c7f3", "captureImg": "c7f3-2",
    })
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PassageFilter {
    /// `1.0` or `1.1`; none: as configured.
    version: Option<Which>,
    /// At this moment or later: milliseconds since 1970.
    from: Option<i64>,
    /// Before this moment.
    to: Option<i64>,
    /// Goes on behind this id, with older ones.
    after: Option<i64>,
    /// Entries of one page; 100 when it is left out.
    #[serde(default)]
    limit: Limit,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[schemars(inline)]
enum Which {
    #[serde(rename = "1.0")]
    V10,
    #[serde(rename = "1.1")]
    V11,
}

/// One record, and what the model has no field for.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct PassageView {
    id: String,
    gmt_create: i64,
    data: PassageRecord,
    /// Account of the door, by which road it was opened, in which call, and the picture of that moment.
    door: String,
    method: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    call_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capture_img: Option<String>,
}

fn view(passage: Passage, sender: &Sender, version: Version) -> Option<PassageView> {
    Some(PassageView {
        id: passage.id.to_string(),
        gmt_create: passage.at_ms,
        data: passage.record(sender, version)?,
        door: passage.door,
        method: passage.method,
        call_id: passage.call,
        capture_img: passage.capture_img,
    })
}

async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    uri: Uri,
    Query(filter): Query<PassageFilter>,
) -> Result<Paged<PassageView>, Problem> {
    let PassageFilter { version, from, to, after, limit } = filter;
    let sender = &state.events.sender;
    let version = match version {
        Some(Which::V10) => Version::V10,
        Some(Which::V11) => Version::V11,
        None => sender.version,
    };
    let wanted = WantedPassages { from_ms: from, to_ms: to, after, limit: limit.count() + 1 };
    let mut passages = state.store.passages(caller.tenant, wanted).await?;
    if !caller.may.pictures {
        passages.iter_mut().for_each(|passage| passage.capture_img = None);
    }
    let views = passages.into_iter().filter_map(|passage| view(passage, sender, version)).collect();
    Ok(Paged::new(&uri, limit, views, |view: &PassageView| view.id.clone()))
}
