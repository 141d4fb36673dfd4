//! `/v1/doors`: what is set for a door, and opening it.

use super::accounts::example_hours;
use super::*;
use crate::control::{Answer, Order};
use crate::http::ask::{Object, Path, Query};
use crate::model::{Access, Account, AccountType};
use crate::profile::{self, Profile, Star};
use crate::store::{AccessPatch, Device, DeviceNames, DoorsWanted, way_name, way_named};
use crate::unlock::hours::Hours;
use axum::extract::State;
use serde_json::{Value, json};

/// Keys of one code.
const MAX_KEYS: usize = 16;

pub fn routes() -> Vec<Route> {
    const ONE: &str = "/v1/doors/{number}";
    const UNLOCK: &str = "/v1/doors/{number}/unlock";
    let mut listed = example();
    listed.as_object_mut().map(|door| door.remove("units"));
    let opened = json!({"status": 200, "reason": "opened", "took_ms": 84});
    vec![
        Route::get("/v1/doors", list, "Door units by number")
            .query::<DoorFilter>()
            .page::<DoorView>("One page of them", json!([listed])),
        Route::get(ONE, get, "One door unit").at("d1").json::<DoorView>(200, "It", example()).refuses(&[403, 404]),
        Route::patch(ONE, change, "Change what is given; null takes a setting back to what it is by itself")
            .at("d1")
            .body::<DoorChange>(json!({"profile": "akuvox", "keys": "12#", "ringback": null}))
            .json::<DoorView>(200, "As it is now", example())
            .refuses(&[403, 404]),
        Route::post(UNLOCK, unlock, "Open it, and wait for how that ends; the HTTP status is that of the wish")
            .at("d1")
            .json::<Unlocked>(200, "The door said that it is open", opened.clone())
            .outcomes::<Unlocked>(json!({"status": 480, "reason": "offline", "took_ms": 0})),
    ]
}

fn example() -> Value {
    json!({
        "number": "d1", "name": "Gate", "registered": true, "disabled": false, "hours": example_hours(), "profile": null,
        "acts_as": "generic", "star": null, "keys": "12#", "ringback": null, "key_frame": "pli",
        "units": [{"iot_id": "iot-1", "product_key": null, "device_name": null, "nick_name": "Gate"}],
    })
}

/// What is left out stays.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DoorChange {
    disabled: Option<bool>,
    hours: Option<Hours>,
    /// Which model of door it is.
    #[serde(default, deserialize_with = "given")]
    #[schemars(schema_with = "profiles")]
    profile: Option<Option<String>>,
    /// What a `*` of a phone becomes.
    #[serde(default, deserialize_with = "given")]
    #[schemars(extend("enum" = ["relay", "translate", null]))]
    star: Option<Option<String>>,
    /// The code that opens it.
    #[serde(default, deserialize_with = "given")]
    #[schemars(regex(pattern = r"^[0-9*#A-Da-d]{1,16}$"))]
    keys: Option<Option<String>>,
    /// Does the server play the ringback tone?
    #[serde(default, deserialize_with = "given")]
    ringback: Option<Option<bool>>,
    /// How it is asked for a key frame first.
    #[serde(default, deserialize_with = "given")]
    #[schemars(extend("enum" = ["pli", "fir", "info", null]))]
    key_frame: Option<Option<String>>,
    /// Of the one unit that was issued the door's account.
    #[serde(default, deserialize_with = "given")]
    #[schemars(length(min = 1, max = 64), regex(pattern = PRINTABLE))]
    product_key: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schemars(length(min = 1, max = 64), regex(pattern = PRINTABLE))]
    device_name: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schemars(length(min = 1, max = 64), regex(pattern = PRINTABLE))]
    nick_name: Option<Option<String>>,
}

fn profiles(_: &mut SchemaGenerator) -> Schema {
    let names = profile::ALL.iter().map(|profile| Value::from(profile.name)).chain([Value::Null]);
    json_schema!({"type": ["string", "null"], "enum": names.collect::<Value>()})
}

/// `null` in, `null` out; a text must be one of those known.
fn known<T>(text: Option<Option<String>>, find: impl Fn(&str) -> Option<T>, what: &str) -> Result<Option<Option<T>>, Problem> {
    let Some(Some(text)) = text else { return Ok(text.map(|_| None)) };
    find(&text).map(|found| Some(Some(found))).ok_or_else(|| Problem::bad(format!("`{text}` is not {what}")))
}

impl DoorChange {
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

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct DoorFilter {
    /// A part of the name, in any case of ASCII letters.
    name: Option<String>,
    /// Only doors from which a room of the map leads to this group.
    group: Option<String>,
    /// Goes on behind this number.
    #[serde(default)]
    after: String,
    /// Entries of one page; 100 when it is left out.
    #[serde(default)]
    limit: Limit,
}

#[derive(Serialize, JsonSchema)]
struct DoorView {
    number: String,
    name: Option<String>,
    registered: bool,
    /// Nobody opens it.
    disabled: bool,
    hours: Hours,
    /// What was chosen.
    profile: Option<&'static str>,
    /// What that comes to with the `User-Agent` of the door's registration.
    acts_as: &'static str,
    star: Option<&'static str>,
    keys: Option<String>,
    ringback: Option<bool>,
    key_frame: Option<&'static str>,
    /// Units that were issued the door's account (`sipnumber/sync`); not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    units: Option<Vec<UnitView>>,
}

/// A unit, and what it is called.
#[derive(Serialize, JsonSchema)]
struct UnitView {
    iot_id: String,
    product_key: Option<String>,
    device_name: Option<String>,
    nick_name: Option<String>,
}

impl From<Device> for UnitView {
    fn from(unit: Device) -> UnitView {
        let Device { iot_id, product_key, device_name, nick_name, .. } = unit;
        UnitView { iot_id, product_key, device_name, nick_name }
    }
}

impl DoorView {
    fn of(state: &ApiState, account: Account, access: Access) -> DoorView {
        let registration = state.live.registrations.get(account.number.as_str());
        let agent = registration.as_ref().and_then(|found| found.binding.user_agent.as_deref()).unwrap_or_default();
        DoorView {
            number: account.number.to_string(),
            name: account.name,
            registered: registration.is_some(),
            disabled: access.disabled,
            hours: access.hours,
            profile: access.door.profile.map(|profile| profile.name),
            acts_as: Profile::of(access.door.profile, agent).name,
            star: access.door.star.map(Star::name),
            keys: access.door.keys,
            ringback: access.door.ringback,
            key_frame: access.door.key_frame.map(way_name),
            units: None,
        }
    }

    async fn with_units(state: &ApiState, account: Account, access: Access) -> Result<Json<DoorView>, Problem> {
        let units = state.store.devices_of(account.number.to_string()).await?.into_iter().map(UnitView::from).collect();
        Ok(Json(DoorView { units: Some(units), ..DoorView::of(state, account, access) }))
    }
}

async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    uri: Uri,
    Query(filter): Query<DoorFilter>,
) -> Result<Paged<DoorView>, Problem> {
    let DoorFilter { name, group, after, limit } = filter;
    let wanted = DoorsWanted { name, group, after, limit: limit.count() + 1 };
    let doors = state.store.doors(caller.tenant, wanted).await?;
    let doors = doors.into_iter().map(|(account, access)| DoorView::of(&state, account, access)).collect();
    Ok(Paged::new(&uri, limit, doors, |door| door.number.clone()))
}

async fn get(State(state): State<ApiState>, caller: Caller, Path(number): Path<String>) -> Result<Json<DoorView>, Problem> {
    let (account, access) = state.store.access(caller.tenant, number, AccountType::Door).await?;
    DoorView::with_units(&state, account, access).await
}

async fn change(
    State(state): State<ApiState>,
    caller: Caller,
    Path(number): Path<String>,
    Object(change): Object<DoorChange>,
) -> Result<Json<DoorView>, Problem> {
    let patch = change.checked()?;
    let (account, access, changes) = state.store.change_access(caller.tenant, number, AccountType::Door, patch).await?;
    commit(&state, changes).await?;
    DoorView::with_units(&state, account, access).await
}

/// How a wish ended (README has the table).
#[derive(Serialize, JsonSchema)]
struct Unlocked {
    /// As SIP says it; the HTTP status is the same, but 502 for 6xx.
    status: u16,
    reason: &'static str,
    took_ms: u64,
}

/// Waits for the outcome: the HTTP status is that of the wish (D-28).
async fn unlock(
    State(state): State<ApiState>,
    caller: Caller,
    Path(number): Path<String>,
) -> Result<(StatusCode, Json<Unlocked>), Problem> {
    // The owner opens also while the store is not there.
    if !caller.tenant.all {
        state.store.access(caller.tenant.clone(), number.clone(), AccountType::Door).await?;
    }
    match state
        .control
        .order(Order::Unlock { door: number, asker: caller.name.to_string() })
        .await
        .map_err(Problem::unavailable)?
    {
        Answer::Unlocked { outcome, took } => {
            let status = outcome.status();
            let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            // SIP knows 6xx, HTTP does not.
            let code = StatusCode::from_u16(status).ok().filter(|code| code.as_u16() < 600).unwrap_or(StatusCode::BAD_GATEWAY);
            Ok((code, Json(Unlocked { status, reason: outcome.name(), took_ms })))
        }
        _ => Err(Problem::new(StatusCode::NOT_FOUND, "there is no such door")),
    }
}
