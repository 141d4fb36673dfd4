//! Door units and their maps: which account a unit was issued, and which group a room rings there.

use super::write::same_app;
use super::*;

/// What `sipnumber/sync` says of a unit, but for the password: that is asked for by nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoorUnit {
    pub iot_id: String,
    pub number: String,
    pub host: String,
    pub port: String,
}

/// Rooms of one unit: all, one room (in canonical form), those of one group, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoomFilter {
    pub room: Option<String>,
    pub group: Option<String>,
}

impl Store {
    /// `sipnumber/sync`: a unit that nobody has named yet becomes the account's app's. Delivery to the unit comes with the edge
    /// protocol.
    pub async fn sync_door(&self, tenant: Tenant, unit: DoorUnit, password: String) -> Result<Vec<DirectoryChange>, StoreError> {
        self.transact(move |t| {
            let DoorUnit { iot_id, number, host, port } = unit;
            let known = app_of_unit(t, &iot_id)?;
            if known.as_ref().is_some_and(|app| !tenant.may(app)) {
                return Err(StoreError::Forbidden(format!("unit {iot_id}")));
            }
            let account = own_account(t, &tenant, &number)?;
            if account.kind != AccountType::Door {
                return Err(StoreError::Invalid(format!("{number} is not a door unit's account")));
            }
            same_app(known.as_deref().unwrap_or(&account.app), &account.app, "the unit and its account")?;
            let password = t.seal(&whose_door(&iot_id), &password)?;
            t.execute(
                "INSERT INTO door (iot_id, number, password, host, port, app) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (iot_id) DO UPDATE SET number = ?2, password = ?3, host = ?4, port = ?5",
                (&iot_id, &number, password, &host, &port, &*account.app),
            )?;
            Ok(vec![DirectoryChange::PutDoor { iot_id, number: Number::new(&number) }])
        })
        .await
    }

    /// `sipnumber/get`.
    pub async fn door_unit(&self, tenant: Tenant, iot_id: String) -> Result<DoorUnit, StoreError> {
        self.transact(move |t| {
            own_unit(t, &tenant, &iot_id)?;
            let mut query = t.prepare_cached("SELECT number, host, port FROM door WHERE iot_id = ?1")?;
            let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
            let (number, host, port) = query.query_row([&iot_id], read)?;
            Ok(DoorUnit { iot_id, number, host, port })
        })
        .await
    }

    /// `map/add`: (room in canonical form, group). An existing room is replaced.
    pub async fn map_rooms(
        &self,
        tenant: Tenant,
        iot_id: String,
        maps: Vec<(String, String)>,
    ) -> Result<Vec<DirectoryChange>, StoreError> {
        self.transact(move |t| {
            let app = own_unit(t, &tenant, &iot_id)?;
            let mut changes = Vec::new();
            for (room, group) in maps {
                same_app(&own_group(t, &tenant, &group)?.app, &app, "the group and the unit")?;
                let mut insert = t.prepare_cached(
                    "INSERT INTO room (iot_id, room, group_id) VALUES (?1, ?2, ?3)
                     ON CONFLICT (iot_id, room) DO UPDATE SET group_id = ?3",
                )?;
                insert.execute((&iot_id, &room, &group))?;
                changes.push(DirectoryChange::PutRoom { iot_id: iot_id.clone(), room, group: Number::new(&group) });
            }
            Ok(changes)
        })
        .await
    }

    /// `map/delete`. A room that does not ring that group there is `NotFound`.
    pub async fn unmap_rooms(
        &self,
        tenant: Tenant,
        iot_id: String,
        maps: Vec<(String, String)>,
    ) -> Result<Vec<DirectoryChange>, StoreError> {
        self.transact(move |t| {
            own_unit(t, &tenant, &iot_id)?;
            let mut changes = Vec::new();
            for (room, group) in maps {
                own_group(t, &tenant, &group)?;
                let mut delete = t.prepare_cached("DELETE FROM room WHERE iot_id = ?1 AND room = ?2 AND group_id = ?3")?;
                if delete.execute((&iot_id, &room, &group))? == 0 {
                    return Err(StoreError::NotFound(format!("room {room} does not ring group {group} there")));
                }
                changes.push(DirectoryChange::RemoveRoom { iot_id: iot_id.clone(), room });
            }
            Ok(changes)
        })
        .await
    }

    /// `map/query`: (room, group) in order of the rooms, and how many there are in all.
    pub async fn rooms(
        &self,
        tenant: Tenant,
        iot_id: String,
        filter: RoomFilter,
        skip: i64,
        limit: i64,
    ) -> Result<(Vec<(String, String)>, i64), StoreError> {
        self.transact(move |t| {
            own_unit(t, &tenant, &iot_id)?;
            // Only what is asked for, so that each question has its index.
            let mut only = "iot_id = ?1".to_owned();
            let mut values: Vec<&dyn rusqlite::ToSql> = vec![&iot_id];
            for (column, value) in [("room", &filter.room), ("group_id", &filter.group)] {
                if let Some(value) = value {
                    values.push(value);
                    only += &format!(" AND {column} = ?{}", values.len());
                }
            }
            let mut count = t.prepare_cached(&format!("SELECT count(*) FROM room WHERE {only}"))?;
            let total = count.query_row(values.as_slice(), |row| row.get(0))?;
            let at = values.len();
            values.extend([&limit as &dyn rusqlite::ToSql, &skip]);
            let sql = format!("SELECT room, group_id FROM room WHERE {only} ORDER BY room LIMIT ?{} OFFSET ?{}", at + 1, at + 2);
            let mut query = t.prepare_cached(&sql)?;
            let rooms = query.query_map(values.as_slice(), |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok((rooms.collect::<Result<_, _>>()?, total))
        })
        .await
    }
}

fn app_of_unit(t: &Transaction<'_>, iot_id: &str) -> rusqlite::Result<Option<String>> {
    t.prepare_cached("SELECT app FROM door WHERE iot_id = ?1")?.query_row([iot_id], |row| row.get(0)).optional()
}

/// Whose this unit of the tenant is. A unit that was never issued an account is `NotFound`.
pub(super) fn own_unit(t: &Transaction<'_>, tenant: &Tenant, iot_id: &str) -> Result<String, StoreError> {
    let app = app_of_unit(t, iot_id)?.ok_or_else(|| StoreError::NotFound(format!("unit {iot_id} is not known")))?;
    if tenant.may(&app) { Ok(app) } else { Err(StoreError::Forbidden(format!("unit {iot_id}"))) }
}
