//! Door units as devices (spec admin-api.md §11): found by their `iotId` or by product key and device name, and how people
//! call them.

use super::units::own_unit;
use super::*;

/// How a device is named in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceKey {
    IotId(String),
    Names { product_key: String, device_name: String },
}

/// A door unit and the account it was issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub iot_id: String,
    pub number: String,
    pub product_key: Option<String>,
    pub device_name: Option<String>,
    pub nick_name: Option<String>,
    /// Nobody opens it.
    pub disabled: bool,
    /// Of its account, in ms since 1970.
    pub created_ms: i64,
}

/// What a unit is to be called: what is `None` stays, what is `Some(None)` is forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceNames {
    pub product_key: Option<Option<String>>,
    pub device_name: Option<Option<String>>,
    pub nick_name: Option<Option<String>>,
}

const DEVICE: &str = "door.iot_id, door.number, door.product_key, door.device_name, door.nick_name, coalesce(access.disabled, 0), \
                      account.created_ms FROM door JOIN account USING (number) LEFT JOIN access USING (number)";

impl Store {
    pub async fn device(&self, tenant: Tenant, key: DeviceKey) -> Result<Device, StoreError> {
        self.transact(move |t| {
            let iot_id = own_device(t, &tenant, &key)?;
            let mut query = t.prepare_cached(&format!("SELECT {DEVICE} WHERE door.iot_id = ?1"))?;
            Ok(query.query_row([iot_id], read_device)?)
        })
        .await
    }

    /// The devices of a tenant in order of their `iotId`, and how many there are in all.
    pub async fn devices(&self, tenant: Tenant, skip: i64, limit: i64) -> Result<(Vec<Device>, i64), StoreError> {
        self.transact(move |t| {
            let mine = (tenant.all, &*tenant.app);
            let total = t.query_row("SELECT count(*) FROM door WHERE ?1 OR app = ?2", mine, |row| row.get(0))?;
            let sql = format!("SELECT {DEVICE} WHERE {DOOR_MINE} ORDER BY door.iot_id LIMIT ?2 OFFSET ?1");
            let mut query = t.prepare_cached(&sql)?;
            let devices = query.query_map((skip, limit, tenant.all, &*tenant.app), read_device)?;
            Ok((devices.collect::<Result<_, _>>()?, total))
        })
        .await
    }

    /// The units that were issued this account.
    pub async fn devices_of(&self, number: String) -> Result<Vec<Device>, StoreError> {
        self.transact(move |t| {
            let mut query = t.prepare_cached(&format!("SELECT {DEVICE} WHERE door.number = ?1 ORDER BY door.iot_id"))?;
            Ok(query.query_map([number], read_device)?.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// `nickname/update`.
    pub async fn nickname(&self, tenant: Tenant, key: DeviceKey, name: String) -> Result<(), StoreError> {
        self.transact(move |t| {
            let iot_id = own_device(t, &tenant, &key)?;
            t.execute("UPDATE door SET nick_name = ?2 WHERE iot_id = ?1", (iot_id, name))?;
            Ok(())
        })
        .await
    }
}

/// `PATCH /v1/doors/{number}`: what the one unit of this account is called.
pub(super) fn name_unit(t: &Transaction<'_>, number: &str, names: DeviceNames) -> Result<(), StoreError> {
    if names == DeviceNames::default() {
        return Ok(());
    }
    let mut query = t.prepare_cached("SELECT iot_id, product_key, device_name, nick_name FROM door WHERE number = ?1")?;
    let read = |row: &Row<'_>| Ok((row.get(0)?, [row.get(1)?, row.get(2)?, row.get(3)?]));
    let units: Vec<(String, [Option<String>; 3])> = query.query_map([number], read)?.collect::<Result<_, _>>()?;
    let [(iot_id, [key, name, nick])] = units.as_slice() else {
        return Err(StoreError::Invalid(format!("{number} was issued to {} units, not to one", units.len())));
    };
    let now = [
        names.product_key.unwrap_or_else(|| key.clone()),
        names.device_name.unwrap_or_else(|| name.clone()),
        names.nick_name.unwrap_or_else(|| nick.clone()),
    ];
    if let (Some(key), Some(name)) = (&now[0], &now[1]) {
        let twin = by_names(t, key, name)?;
        if twin.is_some_and(|twin| twin != *iot_id) {
            return Err(StoreError::Conflict(format!("another unit is {name} of product {key}")));
        }
    }
    t.execute(
        "UPDATE door SET product_key = ?2, device_name = ?3, nick_name = ?4 WHERE iot_id = ?1",
        (iot_id, &now[0], &now[1], &now[2]),
    )?;
    Ok(())
}

/// [`MINE`], where more than one table has an owner.
const DOOR_MINE: &str = "(?3 OR door.app = ?4)";

fn read_device(row: &Row<'_>) -> rusqlite::Result<Device> {
    Ok(Device {
        iot_id: row.get(0)?,
        number: row.get(1)?,
        product_key: row.get(2)?,
        device_name: row.get(3)?,
        nick_name: row.get(4)?,
        disabled: row.get(5)?,
        created_ms: row.get(6)?,
    })
}

fn by_names(t: &Transaction<'_>, product_key: &str, device_name: &str) -> rusqlite::Result<Option<String>> {
    let mut query = t.prepare_cached("SELECT iot_id FROM door WHERE product_key = ?1 AND device_name = ?2")?;
    query.query_row([product_key, device_name], |row| row.get(0)).optional()
}

/// The `iotId` of a device of the tenant.
fn own_device(t: &Transaction<'_>, tenant: &Tenant, key: &DeviceKey) -> Result<String, StoreError> {
    let iot_id = match key {
        DeviceKey::IotId(iot_id) => iot_id.clone(),
        DeviceKey::Names { product_key, device_name } => by_names(t, product_key, device_name)?
            .ok_or_else(|| StoreError::NotFound(format!("{device_name} of product {product_key} is not known")))?,
    };
    own_unit(t, tenant, &iot_id)?;
    Ok(iot_id)
}
