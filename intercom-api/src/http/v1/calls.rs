//! `/v1/calls`: the read model as it is now.

use super::pictures::SnapshotView;
use super::*;
use crate::control::{Answer, Order};
use crate::http::ask::{Path, Query};
use crate::live::{CallId, CallView};
use axum::extract::State;
use serde_json::{Value, json};

pub fn routes() -> Vec<Route> {
    const ONE: &str = "/v1/calls/{id}";
    let mut whole = example();
    whole["ladder"] = json!([{"ms": 0, "from": "door", "to": "server", "what": "INVITE"}]);
    whole["snapshots"] = json!([pictures::example()]);
    vec![
        Route::get("/v1/calls", list, "Running calls and the latest ended ones, newest first, without their ladders")
            .query::<CallFilter>()
            .page::<CallView>("One page of them", json!([example()])),
        Route::get(ONE, get, "One call with its ladder and its pictures, also after its end")
            .at("c7f3")
            .json::<WholeCall>(200, "It", whole)
            .refuses(&[403, 404]),
        Route::delete(ONE, hang_up, "Hang up").at("c7f3").nothing(204, "It ends").refuses(&[403, 404]),
    ]
}

fn example() -> Value {
    let stream = |packets: u64| json!({"packets_in": packets, "bytes_in": packets * 172, "packets_out": 0, "bytes_out": 0});
    json!({
        "id": "c7f3", "kind": "call", "state": "ringing", "from": "d1", "to": "1202", "group": "1202",
        "started_ms": 1_790_000_000_000_i64, "door_first_frame_ms": 35,
        "legs": [{
            "account": "d1", "role": "door", "state": "early", "sip_call_id": "a84b4c76e66710", "codecs": ["PCMU", "H264"],
            "audio": stream(50), "video": stream(120),
        }],
    })
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CallFilter {
    /// Only calls this account has a leg in.
    account: Option<String>,
    /// Only calls of this group.
    group: Option<String>,
    /// `ringing`, `answered`, `ended`.
    state: Option<CallState>,
    /// Goes on behind the call of this id, with older ones.
    after: Option<String>,
    /// Entries of one page; 100 when it is left out.
    #[serde(default)]
    limit: Limit,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum CallState {
    Ringing,
    Answered,
    Ended,
}

impl CallState {
    fn name(self) -> &'static str {
        match self {
            CallState::Ringing => "ringing",
            CallState::Answered => "answered",
            CallState::Ended => "ended",
        }
    }
}

async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    uri: Uri,
    Query(filter): Query<CallFilter>,
) -> Result<Paged<CallView>, Problem> {
    let CallFilter { account, group, state: wanted, after, limit } = filter;
    // Newest first, and those of one moment in one order.
    let place = |call: &CallView| (std::cmp::Reverse(call.started_ms), call.id.clone());
    let behind = match after {
        None => None,
        Some(id) => Some(place(&find(&state, &caller, &id)?)),
    };
    let matches = |call: &CallView| {
        caller.tenant.may(&call.app)
            && account.as_ref().is_none_or(|account| call.legs.iter().any(|leg| leg.account == *account))
            && group.as_ref().is_none_or(|group| call.group.as_ref() == Some(group))
            && wanted.is_none_or(|state| call.state == state.name())
            && behind.as_ref().is_none_or(|behind| place(call) > *behind)
    };
    let found = state.live.calls.iter().filter(|call| matches(call));
    let mut calls: Vec<CallView> = found.map(|call| CallView { ladder: Vec::new(), ..call.clone() }).collect();
    calls.sort_by_key(place);
    Ok(Paged::new(&uri, limit, calls, |call| call.id.to_string()))
}

/// A call that is still shown, if it is his.
pub(super) fn find(state: &ApiState, caller: &Caller, id: &str) -> Result<CallView, Problem> {
    let call = state.live.calls.get(&CallId(id.to_owned())).map(|call| call.clone());
    let call = call.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "no such call"))?;
    his(caller, &call.app)?;
    Ok(call)
}

/// A call with its ladder and its pictures.
#[derive(Serialize, JsonSchema)]
struct WholeCall {
    #[serde(flatten)]
    call: CallView,
    /// Newest first.
    snapshots: Vec<SnapshotView>,
}

async fn get(State(state): State<ApiState>, caller: Caller, Path(id): Path<String>) -> Result<Json<WholeCall>, Problem> {
    let call = find(&state, &caller, &id)?;
    // A call is shown also while the store is not there.
    let snapshots = state.store.snapshots_of_call(id).await.unwrap_or_default();
    Ok(Json(WholeCall { call, snapshots: snapshots.into_iter().map(SnapshotView::from).collect() }))
}

async fn hang_up(State(state): State<ApiState>, caller: Caller, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    if !caller.tenant.all {
        find(&state, &caller, &id)?;
    }
    match state.control.order(Order::HangUp(CallId(id))).await.map_err(Problem::unavailable)? {
        Answer::Done => Ok(StatusCode::NO_CONTENT),
        _ => Err(Problem::new(StatusCode::NOT_FOUND, "no such running call")),
    }
}
