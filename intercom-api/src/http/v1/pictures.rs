//! Pictures of visitors: `POST` and `GET /v1/calls/{id}/snapshot`, `/v1/snapshots/{id}`, `/v1/records/{id}/snapshot`. All of it is
//! for those to whom pictures are granted.

use super::*;
use crate::control::{Answer, Order};
use crate::http::ask::{OptionalObject, Path, Query};
use crate::http::now_ms;
use crate::http::route::Needs;
use crate::live::CallId;
use crate::pictures::{NoPicture, Snapshot};
use crate::store::ON_REQUEST;
use axum::extract::State;
use media::snapshot::Preset;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

/// Longest wait for a picture: the helper's patience, once more after a restart, and a few before it in the queue.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn routes() -> Vec<Route> {
    const OF_CALL: &str = "/v1/calls/{id}/snapshot";
    const ONE: &str = "/v1/snapshots/{id}";
    const OF_RECORD: &str = "/v1/records/{id}/snapshot";
    let mut taken = example();
    taken["age_ms"] = json!(40);
    let routes = vec![
        Route::post(OF_CALL, take, "Take a picture of the visitor now")
            .at("c7f3")
            .query::<Size>()
            .optional_body::<Size>(json!({"preset": "small"}))
            .json::<Taken>(201, "It is taken; Location says where it is", taken)
            .refuses(&[404, 409]),
        Route::get(OF_CALL, of_call, "The newest picture of a call").at("c7f3").other("It", JPEG).refuses(&[404]),
        Route::get(ONE, by_id, "A picture").at("c7f3-2").other("It", JPEG).refuses(&[404]),
        Route::delete(ONE, delete, "Delete a picture").at("c7f3-2").nothing(204, "It is gone").refuses(&[404]),
        Route::get(OF_RECORD, of_record, "The picture of an entry of the record").at(12).other("It", JPEG).refuses(&[404]),
        Route::delete(OF_RECORD, delete_of_record, "Delete it; the entry and the hash in it stay")
            .at(12)
            .nothing(204, "It is gone")
            .refuses(&[404]),
    ];
    routes.into_iter().map(|route| route.needs(Needs::Pictures)).collect()
}

const JPEG: &str = "image/jpeg";

pub(super) fn example() -> Value {
    json!({
        "id": "c7f3-2", "call": "c7f3", "door": "d1", "why": "unlock", "preset": "large", "taken_at_ms": 1_790_000_000_000_i64,
        "width": 640, "height": 480, "bytes": 41_000, "url": "/v1/snapshots/c7f3-2",
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    })
}

/// `?preset=small`, or the same as a JSON body.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Size {
    /// `large` when it is left out.
    #[schemars(extend("enum" = ["small", "large", null]))]
    preset: Option<String>,
}

/// What is known of a picture, and where it is.
#[derive(Serialize, JsonSchema)]
pub(super) struct SnapshotView {
    #[serde(flatten)]
    snapshot: Snapshot,
    url: String,
}

impl From<Snapshot> for SnapshotView {
    fn from(snapshot: Snapshot) -> SnapshotView {
        SnapshotView { url: url(&snapshot), snapshot }
    }
}

#[derive(Serialize, JsonSchema)]
struct Taken {
    #[serde(flatten)]
    view: SnapshotView,
    /// How long ago the door had sent it.
    age_ms: i64,
}

async fn take(
    State(state): State<ApiState>,
    caller: Caller,
    Path(call): Path<String>,
    Query(query): Query<Size>,
    OptionalObject(body): OptionalObject<Size>,
) -> Result<Response, Problem> {
    let preset = match query.preset.or(body.preset) {
        Some(name) => Preset::from_name(&name).ok_or_else(|| Problem::bad("preset is small or large"))?,
        None => Preset::default(),
    };
    if !caller.tenant.all {
        calls::find(&state, &caller, &call)?;
    }
    let (ticket, outcome) = state.pictures.wait();
    let taken = async {
        match state.control.order(Order::Picture { call: CallId(call.clone()), preset, ticket }).await {
            Ok(Answer::Done) => {}
            Ok(Answer::NoPicture(why)) => return Err(Problem::new(StatusCode::CONFLICT, why)),
            // Its media is gone, the call itself may still be shown.
            Ok(_) if state.live.calls.contains_key(&CallId(call)) => {
                return Err(Problem::new(StatusCode::CONFLICT, "the call has ended"));
            }
            Ok(_) => return Err(Problem::new(StatusCode::NOT_FOUND, "no such call")),
            Err(error) => return Err(Problem::unavailable(error)),
        }
        match timeout(PATIENCE, outcome).await {
            Ok(Ok(outcome)) => outcome.map_err(problem),
            Ok(Err(_)) | Err(_) => {
                state.pictures.count(NoPicture::Late.name());
                Err(problem(NoPicture::Late))
            }
        }
    };
    let taken = taken.await;
    state.pictures.give_up(ticket);
    let snapshot = taken?;
    let (location, age_ms) = (url(&snapshot), (now_ms() - snapshot.taken_at_ms).max(0));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(Taken { view: snapshot.into(), age_ms })).into_response())
}

/// The newest picture of a call, also after its end.
async fn of_call(State(state): State<ApiState>, caller: Caller, Path(call): Path<String>) -> Result<Response, Problem> {
    let newest = state.store.snapshots_of_call(call).await?.into_iter().next();
    image(&state, &caller, newest).await
}

async fn by_id(State(state): State<ApiState>, caller: Caller, Path(id): Path<String>) -> Result<Response, Problem> {
    let found = state.store.snapshot(id).await?;
    image(&state, &caller, found).await
}

async fn of_record(State(state): State<ApiState>, caller: Caller, Path(record): Path<i64>) -> Result<Response, Problem> {
    let found = state.store.snapshot_of_record(record).await?;
    image(&state, &caller, found).await
}

async fn delete(State(state): State<ApiState>, caller: Caller, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let found = state.store.snapshot(id).await?;
    remove(&state, &caller, found).await
}

/// The picture goes; the entry and the hash in it stay (D-29).
async fn delete_of_record(State(state): State<ApiState>, caller: Caller, Path(record): Path<i64>) -> Result<StatusCode, Problem> {
    let found = state.store.snapshot_of_record(record).await?;
    remove(&state, &caller, found).await
}

fn url(snapshot: &Snapshot) -> String {
    format!("/v1/snapshots/{}", snapshot.id)
}

fn none() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no picture")
}

/// One that is there, and the file it is in; it belongs to whoever owns its door.
async fn his_file(state: &ApiState, caller: &Caller, snapshot: Option<Snapshot>) -> Result<(String, String), Problem> {
    let Some(Snapshot { id, door, file: Some(file), .. }) = snapshot else { return Err(none()) };
    if !caller.tenant.all {
        state.store.account(caller.tenant.clone(), door).await?;
    }
    Ok((id, file))
}

async fn image(state: &ApiState, caller: &Caller, snapshot: Option<Snapshot>) -> Result<Response, Problem> {
    let (_, file) = his_file(state, caller, snapshot).await?;
    let album = state.pictures.album.clone();
    let read = tokio::task::spawn_blocking(move || album.read(&file)).await;
    let bytes = read.ok().and_then(Result::ok).ok_or_else(none)?;
    let headers =
        [(header::CONTENT_TYPE, JPEG), (header::CACHE_CONTROL, "no-store"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    Ok((headers, bytes).into_response())
}

async fn remove(state: &ApiState, caller: &Caller, snapshot: Option<Snapshot>) -> Result<StatusCode, Problem> {
    let (id, file) = his_file(state, caller, snapshot).await?;
    let album = state.pictures.album.clone();
    let removed = tokio::task::spawn_blocking(move || album.remove(&file)).await;
    if !matches!(removed, Ok(Ok(()))) {
        return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the picture cannot be deleted"));
    }
    state.store.forget_snapshots(vec![id], ON_REQUEST).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn problem(none: NoPicture) -> Problem {
    let (status, text) = match none {
        NoPicture::NothingShown => (StatusCode::CONFLICT, "the door has shown no picture yet"),
        NoPicture::QueueFull => (StatusCode::SERVICE_UNAVAILABLE, "too many pictures are being made"),
        NoPicture::Refused(_) => (StatusCode::SERVICE_UNAVAILABLE, "what the door sends cannot be made a picture"),
        NoPicture::Helper(_) => (StatusCode::SERVICE_UNAVAILABLE, "the picture helper failed"),
        NoPicture::Struck => (StatusCode::SERVICE_UNAVAILABLE, "this door's pictures have brought the helper down too often"),
        NoPicture::NotStored => (StatusCode::SERVICE_UNAVAILABLE, "the picture cannot be stored"),
        NoPicture::Late => (StatusCode::SERVICE_UNAVAILABLE, "the picture was not made in time"),
    };
    Problem::new(status, format!("{}: {text}", none.name()))
}
