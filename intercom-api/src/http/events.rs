//! `GET /events`: what happens, as it happens (server-sent events), and from where a client was when it lost us.

#![allow(clippy::disallowed_methods)] // a shell: streams that live as long as their clients

use super::ApiState;
use super::ask::Query;
use super::caller::Caller;
use super::route::Route;
use super::v1::Problem;
use crate::events::log::Cursor;
use crate::events::selection::Selection;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, StreamExt, stream};
use schemars::JsonSchema;
use serde::Deserialize;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

/// Streams at once: each is a connection and a small buffer.
pub const MAX_STREAMS: usize = 100;
/// A comment so often, so that no proxy takes it for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How soon a client that lost us comes back.
const RETRY: Duration = Duration::from_secs(2);

pub fn routes() -> Vec<Route> {
    let stream = "Lines `id`, `event` (its name) and `data` (its body), one event after the other, a comment every 15 s";
    vec![
        Route::get("/events", events, "What happens, as it happens, and all that was missed behind `Last-Event-ID`")
            .query::<Wish>()
            .other(stream, "text/event-stream")
            .refuses(&[503]),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// Goes on behind this id; a `Last-Event-ID` wins. Neither: from now on.
    after: Option<i64>,
    /// Names or codes with commas between, or `*`.
    #[serde(default)]
    events: String,
}

async fn events(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
    Query(wish): Query<Wish>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let selection =
        Selection::named(wish.events.split(',')).map_err(|word| Problem::bad(format!("no event is named `{word}`")))?;
    let last = match headers.get("last-event-id").map(|id| id.to_str().ok().and_then(|id| id.trim().parse().ok())) {
        Some(Some(id)) => Some(id),
        Some(None) => return Err(Problem::bad("Last-Event-ID is not an id of ours")),
        None => wish.after,
    };
    let Ok(place) = state.events.streams.clone().try_acquire_owned() else {
        state.events.log.count("event_streams_full");
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "there are too many streams"));
    };
    let (log, sender) = (state.events.log.clone(), state.events.sender.clone());
    let at = last.unwrap_or_else(|| log.last());
    let cursor = Cursor::new(log, state.store.clone(), caller.tenant, selection, at);
    // Pulled by the connection: a client that does not read delays itself alone.
    let batches = stream::unfold((cursor, place), |(mut cursor, place)| async move {
        let some = cursor.next().await?;
        Some((some, (cursor, place)))
    });
    let events = batches.flat_map(move |some| {
        let sender = Arc::clone(&sender);
        stream::iter(some).filter_map(move |logged| {
            let body = logged.body(&sender);
            let event = body.map(|body| Ok(Event::default().id(logged.id.to_string()).event(logged.kind().name()).data(body)));
            std::future::ready(event)
        })
    });
    let hello = Event::default().retry(RETRY).comment("doorline");
    let all = stream::iter([Ok(hello)]).chain(events);
    Ok(Sse::new(all).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}
