//! `/v1/webhooks`: receivers of events, how each is doing, and what could not be delivered to it. For owners; a tenant has his own.

use super::*;
use crate::events::hooks::Hooks;
use crate::events::post::Address;
use crate::events::selection::Selection;
use crate::http::ask::{Object, OptionalObject, Path, Query};
use crate::http::now_ms;
use crate::http::route::Needs;
use crate::model::Secret;
use crate::store::{Dead, Hook, Origin, Store, new_hook_id};
use axum::extract::State;
use serde_json::{Value, json};

pub fn routes() -> Vec<Route> {
    const PATH: &str = "/v1/webhooks";
    const ONE: &str = "/v1/webhooks/{id}";
    let new = json!({"url": "https://hooks.example.com/doorline", "secret": "a long random text", "events": ["call", "passage"]});
    let letter = json!([{"id": "1790000000000000", "at_ms": 1_790_000_060_000_i64, "reason": "ring ended", "body": {}}]);
    let all = vec![
        Route::post(PATH, add, "Have events posted to a URL, from now on; README says how each is signed")
            .body::<NewWebhook>(new)
            .json::<WebhookView>(201, "It is set up", example())
            .refuses(&[409]),
        Route::get(PATH, list, "All webhooks, oldest first").json::<Vec<WebhookView>>(200, "All of them", json!([example()])),
        Route::get(ONE, one, "One webhook and how it is doing")
            .at("hk7f3")
            .json::<WebhookView>(200, "It", example())
            .refuses(&[403, 404]),
        Route::patch(ONE, change, "Choose other events, or switch it off or on")
            .at("hk7f3")
            .body::<WebhookChange>(json!({"enabled": false}))
            .json::<WebhookView>(200, "As it is now", example())
            .refuses(&[403, 404, 409]),
        Route::delete(ONE, remove, "Take it out with its dead letters")
            .at("hk7f3")
            .nothing(204, "It is gone")
            .refuses(&[403, 404, 409]),
        Route::get("/v1/webhooks/{id}/dead", dead, "What could not be delivered, oldest first")
            .at("hk7f3")
            .query::<DeadFilter>()
            .page::<DeadView>("One page of it", letter)
            .refuses(&[403, 404]),
        Route::post("/v1/webhooks/{id}/redeliver", redeliver, "Try dead letters once more, the named ones or all")
            .at("hk7f3")
            .optional_body::<Redelivery>(json!({"ids": ["1790000000000000"]}))
            .json::<Queued>(202, "They are tried, each once", json!({"queued": 1}))
            .refuses(&[403, 404, 409]),
    ];
    all.into_iter().map(|route| route.needs(Needs::Owner)).collect()
}

fn example() -> Value {
    json!({
        "id": "hk7f3", "url": "https://hooks.example.com/doorline", "events": ["call", "passage"], "enabled": true, "origin": "api",
        "created_ms": 1_790_000_000_000_i64, "last_delivered": "1790000000000000", "lag": 0, "failures": 0, "error": null,
        "next_try_ms": null, "dead": 0,
    })
}

/// Longest secret, in characters.
const MAX_SECRET: usize = 256;
/// Dead letters named at once.
const MAX_NAMED: usize = 1000;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewWebhook {
    url: String,
    secret: String,
    #[serde(default)]
    events: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WebhookChange {
    events: Option<Vec<String>>,
    enabled: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DeadFilter {
    /// Goes on behind this id.
    after: Option<i64>,
    /// Entries of one page; 100 when it is left out.
    #[serde(default)]
    limit: Limit,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Redelivery {
    /// Ids of events; none: all that are dead.
    ids: Option<Vec<String>>,
}

/// A webhook and how it is doing; its secret is not shown.
#[derive(Serialize, JsonSchema)]
struct WebhookView {
    id: String,
    url: String,
    events: Vec<&'static str>,
    enabled: bool,
    /// `api`, or `config`: changed in the configuration.
    origin: &'static str,
    created_ms: i64,
    /// Id of the last event that was taken since the server started.
    last_delivered: Option<String>,
    /// Selected events that are not done with; at most 10,000 are counted.
    lag: u64,
    /// Failures since the last success, the last one, and when it is tried again.
    failures: u32,
    error: Option<String>,
    next_try_ms: Option<i64>,
    dead: u64,
}

#[derive(Serialize, JsonSchema)]
struct DeadView {
    /// Id of the event.
    id: String,
    at_ms: i64,
    reason: String,
    /// The body as it was sent.
    body: Value,
}

#[derive(Serialize, JsonSchema)]
struct Queued {
    queued: usize,
}

async fn add(
    State(state): State<ApiState>,
    caller: Caller,
    Object(new): Object<NewWebhook>,
) -> Result<(StatusCode, Json<WebhookView>), Problem> {
    Address::parse(&new.url).map_err(Problem::bad)?;
    if new.secret.is_empty() || new.secret.chars().count() > MAX_SECRET {
        return Err(Problem::bad(format!("secret has 1 to {MAX_SECRET} characters")));
    }
    let hook = Hook {
        id: new_hook_id()?,
        app: Hook::app_of(&caller.tenant),
        url: new.url,
        secret: Secret::new(&new.secret),
        selection: selection(&new.events)?,
        enabled: true,
        origin: Origin::Api,
        created_ms: now_ms(),
        cursor: state.events.log.last(),
    };
    state.store.add_hook(hook.clone()).await?;
    state.events.hooks.start(hook.clone());
    Ok((StatusCode::CREATED, Json(view(&state.store, &state.events.hooks, hook).await?)))
}

async fn list(State(state): State<ApiState>, caller: Caller) -> Result<Json<Vec<WebhookView>>, Problem> {
    let mut views = Vec::new();
    for hook in state.store.hooks(caller.tenant).await? {
        views.push(view(&state.store, &state.events.hooks, hook).await?);
    }
    Ok(Json(views))
}

async fn one(State(state): State<ApiState>, caller: Caller, Path(id): Path<String>) -> Result<Json<WebhookView>, Problem> {
    let hook = own(&state, caller, id).await?;
    Ok(Json(view(&state.store, &state.events.hooks, hook).await?))
}

async fn change(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
    Object(change): Object<WebhookChange>,
) -> Result<Json<WebhookView>, Problem> {
    let hook = own(&state, caller.clone(), id).await?;
    of_api(&hook)?;
    let selection = change.events.as_deref().map(selection).transpose()?;
    state.store.change_hook(hook.id.clone(), selection, change.enabled).await?;
    let hook = state.store.hook(caller.tenant, hook.id).await?;
    state.events.hooks.start(hook.clone());
    Ok(Json(view(&state.store, &state.events.hooks, hook).await?))
}

async fn remove(State(state): State<ApiState>, caller: Caller, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let hook = own(&state, caller, id).await?;
    of_api(&hook)?;
    state.store.remove_hook(hook.id.clone()).await?;
    state.events.hooks.stop(&hook.id);
    Ok(StatusCode::NO_CONTENT)
}

async fn dead(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
    uri: Uri,
    Query(DeadFilter { after, limit }): Query<DeadFilter>,
) -> Result<Paged<DeadView>, Problem> {
    let hook = own(&state, caller, id).await?;
    let dead = state.store.dead(hook.id, after.unwrap_or(0), limit.count() + 1).await?;
    Ok(Paged::new(&uri, limit, dead.into_iter().map(shown).collect(), |dead: &DeadView| dead.id.clone()))
}

async fn redeliver(
    State(state): State<ApiState>,
    caller: Caller,
    Path(id): Path<String>,
    OptionalObject(wish): OptionalObject<Redelivery>,
) -> Result<(StatusCode, Json<Queued>), Problem> {
    let hook = own(&state, caller, id).await?;
    if !hook.enabled {
        return Err(Problem::new(StatusCode::CONFLICT, "this webhook is off"));
    }
    let ids = match wish.ids {
        Some(ids) if ids.len() > MAX_NAMED => return Err(Problem::bad(format!("at most {MAX_NAMED} ids at once"))),
        Some(ids) => {
            let ids: Result<Vec<i64>, _> = ids.iter().map(|id| id.parse()).collect();
            Some(ids.map_err(|_| Problem::bad("ids are ids of events"))?)
        }
        None => None,
    };
    let queued = state.store.redeliver(hook.id.clone(), ids).await?;
    state.events.hooks.redeliver(&hook.id);
    Ok((StatusCode::ACCEPTED, Json(Queued { queued })))
}

async fn own(state: &ApiState, caller: Caller, id: String) -> Result<Hook, Problem> {
    Ok(state.store.hook(caller.tenant, id).await?)
}

fn of_api(hook: &Hook) -> Result<(), Problem> {
    match hook.origin {
        Origin::Api => Ok(()),
        Origin::Config => Err(Problem::new(StatusCode::CONFLICT, "this webhook is set in the configuration")),
    }
}

fn selection(words: &[String]) -> Result<Selection, Problem> {
    let named = Selection::named(words.iter().map(String::as_str));
    named.map_err(|word| Problem::bad(format!("no event is named `{word}`")))
}

async fn view(store: &Store, hooks: &Hooks, hook: Hook) -> Result<WebhookView, StoreError> {
    let (lag, dead) = store.backlog(&hook).await?;
    let state = hooks.state(&hook.id).unwrap_or_default();
    Ok(WebhookView {
        id: hook.id,
        url: hook.url,
        events: hook.selection.names(),
        enabled: hook.enabled && !state.gone,
        origin: if hook.origin == Origin::Config { "config" } else { "api" },
        created_ms: hook.created_ms,
        last_delivered: state.delivered.map(|id| id.to_string()),
        lag,
        failures: state.failures,
        error: state.error,
        next_try_ms: state.next_try_ms,
        dead,
    })
}

fn shown(dead: Dead) -> DeadView {
    let Dead { event, at_ms, reason, body } = dead;
    DeadView { id: event.to_string(), at_ms, reason, body: serde_json::from_str(&body).unwrap_or(Value::Null) }
}
