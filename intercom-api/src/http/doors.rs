//! `/v1/doors`: what is set for a door, and opening it; `PATCH /v1/accounts/{number}`: what limits an account in opening.

use super::ApiState;
use super::caller::Caller;
use super::v1::{Page, Problem, commit};
use crate::control::{Answer, Order};
use crate::model::{Access, Account, AccountType};
use crate::profile::{self, Profile, Star};
use crate::store::{AccessPatch, Device, DeviceNames, way_name, way_named};
use crate::unlock::hours::Hours;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

/// Keys of one code.
const MAX_KEYS: usize = 16;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountPatch {
    disabled: Option<bool>,
    hours: Option<Hours>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DoorPatch {
    disabled: Option<bool>,
    hours: Option<Hours>,
    #[serde(default, deserialize_with = "given")]
    profile: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    star: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    keys: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    ringback: Option<Option<bool>>,
    #[serde(default, deserialize_with = "given")]
    key_frame: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    product_key: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    device_name: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    nick_name: Option<Option<String>>,
}

/// `null` is something else than nothing.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// `null` in, `null` out; a text must be one of those known.
fn known<T>(text: Option<Option<String>>, find: impl Fn(&str) -> Option<T>, what: &str) -> Result<Option<Option<T>>, Problem> {
    let Some(Some(text)) = text else { return Ok(text.map(|_| None)) };
    find(&text).map(|found| Some(Some(found))).ok_or_else(|| Problem::bad(format!("`{text}` is not {what}")))
}

impl DoorPatch {
    fn checked(self) -> Result<AccessPatch, Problem> {
        let names: Vec<&str> = profile::ALL.iter().map(|profile| profile.name).collect();
        let code = |keys: &str| {
            let fits = (1..=MAX_KEYS).contains(&keys.len()) && keys.chars().all(|key| media::dtmf::event(key).is_some());
            fits.then(|| keys.to_ascii_uppercase())
        };
        let name = |text: &str| {
            let fits = (1..=64).contains(&text.chars().count()) && !text.chars().any(char::is_control);
            fits.then(|| text.to_owned())
        };
        let named = |text| known(text, name, "a name of 1 to 64 printable characters");
        Ok(AccessPatch {
            unit: DeviceNames {
                product_key: named(self.product_key)?,
                device_name: named(self.device_name)?,
                nick_name: named(self.nick_name)?,
            },
            disabled: self.disabled,
            hours: self.hours,
            profile: known(self.profile, Profile::named, &format!("one of {}", names.join(", ")))?,
            star: known(self.star, Star::named, "relay or translate")?,
            keys: known(self.keys, code, "1 to 16 of the keys 0-9, *, #, A-D")?,
            ringback: self.ringback,
            key_frame: known(self.key_frame, way_named, "pli, fir or info")?,
        })
    }
}

fn parsed<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::bad(error.to_string()))
}

pub async fn change_account(
    State(state): State<ApiState>,
    caller: Caller,
    Path(number): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let AccountPatch { disabled, hours } = parsed(&body)?;
    let patch = AccessPatch { disabled, hours, ..AccessPatch::default() };
    let (account, access, changes) = state.store.change_access(caller.tenant, number, AccountType::App, patch).await?;
    commit(&state, changes).await?;
    Ok(Json(json!({"number": account.number.as_str(), "disabled": access.disabled, "hours": access.hours})))
}

pub async fn doors(State(state): State<ApiState>, caller: Caller, Query(page): Query<Page>) -> Result<Json<Value>, Problem> {
    let doors = state.store.doors(caller.tenant, page.after(), page.limit()).await?;
    Ok(Json(doors.iter().map(|(account, access)| door_json(&state, account, access)).collect()))
}

pub async fn door(State(state): State<ApiState>, caller: Caller, Path(number): Path<String>) -> Result<Json<Value>, Problem> {
    let (account, access) = state.store.access(caller.tenant, number, AccountType::Door).await?;
    let mut door = door_json(&state, &account, &access);
    door["units"] = state.store.devices_of(account.number.to_string()).await?.iter().map(unit_json).collect();
    Ok(Json(door))
}

pub async fn change_door(
    State(state): State<ApiState>,
    caller: Caller,
    Path(number): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let patch = parsed::<DoorPatch>(&body)?.checked()?;
    let (account, access, changes) = state.store.change_access(caller.tenant, number, AccountType::Door, patch).await?;
    commit(&state, changes).await?;
    let mut door = door_json(&state, &account, &access);
    door["units"] = state.store.devices_of(account.number.to_string()).await?.iter().map(unit_json).collect();
    Ok(Json(door))
}

/// The units that were issued the door's account (`sipnumber/sync`), and what they are called.
fn unit_json(unit: &Device) -> Value {
    json!({
        "iot_id": unit.iot_id,
        "product_key": unit.product_key,
        "device_name": unit.device_name,
        "nick_name": unit.nick_name,
    })
}

/// `profile` is what was chosen, `acts_as` what it comes to with the `User-Agent` of the door's registration.
fn door_json(state: &ApiState, account: &Account, access: &Access) -> Value {
    let registration = state.live.registrations.get(account.number.as_str());
    let agent = registration.as_ref().and_then(|found| found.binding.user_agent.as_deref()).unwrap_or_default();
    json!({
        "number": account.number.as_str(),
        "name": account.name,
        "registered": registration.is_some(),
        "disabled": access.disabled,
        "hours": access.hours,
        "profile": access.door.profile.map(|profile| profile.name),
        "acts_as": Profile::of(access.door.profile, agent).name,
        "star": access.door.star.map(Star::name),
        "keys": access.door.keys,
        "ringback": access.door.ringback,
        "key_frame": access.door.key_frame.map(way_name),
    })
}

/// Waits for the outcome: the HTTP status is that of the wish (D-28).
pub async fn unlock(State(state): State<ApiState>, caller: Caller, Path(number): Path<String>) -> Result<Response, Problem> {
    // The owner opens also while the store is not there.
    if !caller.tenant.all {
        state.store.access(caller.tenant.clone(), number.clone(), AccountType::Door).await?;
    }
    let answer = state.control.order(Order::Unlock { door: number, asker: caller.name.to_string() }).await;
    let answer = answer.map_err(|error| Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    match answer {
        Answer::Unlocked { outcome, took } => {
            let status = outcome.status();
            let body = json!({
                "status": status,
                "reason": outcome.name(),
                "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            });
            // SIP knows 6xx, HTTP does not.
            let code = StatusCode::from_u16(status).ok().filter(|code| code.as_u16() < 600).unwrap_or(StatusCode::BAD_GATEWAY);
            Ok((code, Json(body)).into_response())
        }
        _ => Err(Problem::new(StatusCode::NOT_FOUND, "there is no such door")),
    }
}
