//! Pictures of visitors: `POST` and `GET /v1/calls/{id}/snapshot`, `/v1/snapshots/{id}`, `/v1/records/{id}/snapshot`.

use super::v1::Problem;
use super::{ApiState, now_ms};
use crate::control::{Answer, Order};
use crate::live::CallId;
use crate::pictures::{NoPicture, Snapshot};
use crate::store::ON_REQUEST;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use media::snapshot::Preset;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::timeout;

/// Longest wait for a picture: the helper's patience, once more after a restart, and a few before it in the queue.
const PATIENCE: Duration = Duration::from_secs(10);

/// `?preset=small`, or the same as a JSON body.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    preset: Option<String>,
}

/// Takes a picture now.
pub async fn take(
    State(state): State<ApiState>,
    Path(call): Path<String>,
    Query(query): Query<Wanted>,
    body: Bytes,
) -> Result<Response, Problem> {
    let bad = |error: String| Problem::new(StatusCode::BAD_REQUEST, error);
    let in_body: Wanted = if body.trim_ascii().is_empty() {
        Wanted::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?
    };
    let preset = match query.preset.or(in_body.preset) {
        Some(name) => Preset::from_name(&name).ok_or_else(|| bad("preset is small or large".into()))?,
        None => Preset::default(),
    };
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
            Err(error) => return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())),
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
    let location = url(&snapshot);
    let mut shown = shown(&snapshot);
    shown["age_ms"] = json!((now_ms() - snapshot.taken_at_ms).max(0));
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(shown)).into_response())
}

/// The newest picture of a call, also after its end.
pub async fn of_call(State(state): State<ApiState>, Path(call): Path<String>) -> Result<Response, Problem> {
    let newest = state.store.snapshots_of_call(call).await?.into_iter().next();
    image(&state, newest).await
}

pub async fn by_id(State(state): State<ApiState>, Path(id): Path<String>) -> Result<Response, Problem> {
    let found = state.store.snapshot(id).await?;
    image(&state, found).await
}

pub async fn of_record(State(state): State<ApiState>, Path(record): Path<i64>) -> Result<Response, Problem> {
    let found = state.store.snapshot_of_record(record).await?;
    image(&state, found).await
}

pub async fn delete(State(state): State<ApiState>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let found = state.store.snapshot(id).await?;
    remove(&state, found).await
}

/// The picture goes; the entry and the hash in it stay (D-29).
pub async fn delete_of_record(State(state): State<ApiState>, Path(record): Path<i64>) -> Result<StatusCode, Problem> {
    let found = state.store.snapshot_of_record(record).await?;
    remove(&state, found).await
}

/// A picture as JSON, with where it is.
pub fn shown(snapshot: &Snapshot) -> Value {
    let mut value = serde_json::to_value(snapshot).unwrap_or_default();
    value["url"] = url(snapshot).into();
    value
}

fn url(snapshot: &Snapshot) -> String {
    format!("/v1/snapshots/{}", snapshot.id)
}

fn none() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no picture")
}

async fn image(state: &ApiState, snapshot: Option<Snapshot>) -> Result<Response, Problem> {
    let file = snapshot.and_then(|snapshot| snapshot.file).ok_or_else(none)?;
    let album = state.pictures.album.clone();
    let read = tokio::task::spawn_blocking(move || album.read(&file)).await;
    let bytes = read.ok().and_then(Result::ok).ok_or_else(none)?;
    let headers =
        [(header::CONTENT_TYPE, "image/jpeg"), (header::CACHE_CONTROL, "no-store"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    Ok((headers, bytes).into_response())
}

async fn remove(state: &ApiState, snapshot: Option<Snapshot>) -> Result<StatusCode, Problem> {
    let Some(Snapshot { id, file: Some(file), .. }) = snapshot else { return Err(none()) };
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
