//! Limits of opening: who, when, and how a door is told (D-23, D-26).

use super::*;
use crate::model::{Access, DoorWays};
use crate::profile::{Profile, Star};
use media::asking::Way;

/// What a PATCH changes: what is `None` stays, what is `Some(None)` goes back to what it is by itself.
#[derive(Clone, Debug, Default)]
pub struct AccessPatch {
    pub disabled: Option<bool>,
    pub hours: Option<Hours>,
    pub profile: Option<Option<&'static Profile>>,
    pub star: Option<Option<Star>>,
    pub keys: Option<Option<String>>,
    pub ringback: Option<Option<bool>>,
    pub key_frame: Option<Option<Way>>,
    /// Of the one unit that was issued the door's account.
    pub unit: DeviceNames,
}

impl AccessPatch {
    fn apply(self, access: &mut Access) {
        fn put<T>(place: &mut T, new: Option<T>) {
            if let Some(new) = new {
                *place = new;
            }
        }
        put(&mut access.disabled, self.disabled);
        put(&mut access.hours, self.hours);
        put(&mut access.door.profile, self.profile);
        put(&mut access.door.star, self.star);
        put(&mut access.door.keys, self.keys);
        put(&mut access.door.ringback, self.ringback);
        put(&mut access.door.key_frame, self.key_frame);
    }
}

impl Store {
    /// What is set for an account or a door of this type; `NotFound` otherwise.
    pub async fn access(&self, tenant: Tenant, number: String, kind: AccountType) -> Result<(Account, Access), StoreError> {
        self.transact(move |t| of_kind(t, &tenant, &number, kind)).await
    }

    /// `PATCH /v1/doors/{number}`.
    pub async fn change_access(
        &self,
        tenant: Tenant,
        number: String,
        kind: AccountType,
        patch: AccessPatch,
    ) -> Result<(Account, Access, Vec<DirectoryChange>), StoreError> {
        self.transact(move |t| {
            let (account, access) = of_kind(t, &tenant, &number, kind)?;
            devices::name_unit(t, &number, patch.unit.clone())?;
            let access = put_access(t, &account, access, patch)?;
            let changes = vec![DirectoryChange::PutAccess(account.number.clone(), access.clone())];
            Ok((account, access, changes))
        })
        .await
    }
}

/// Applies a patch, and writes what it comes to.
pub(super) fn put_access(
    t: &Transaction<'_>,
    account: &Account,
    mut access: Access,
    patch: AccessPatch,
) -> Result<Access, StoreError> {
    patch.apply(&mut access);
    let hours = serde_json::to_string(&access.hours).map_err(|_| StoreError::Unavailable)?;
    t.execute(
        "INSERT OR REPLACE INTO access (number, disabled, hours, profile, keys, ringback, key_frame, star)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        rusqlite::params![
            account.number.as_str(),
            access.disabled,
            hours,
            access.door.profile.map(|profile| profile.name),
            access.door.keys,
            access.door.ringback,
            access.door.key_frame.map(way_name),
            access.door.star.map(Star::name)
        ],
    )?;
    Ok(access)
}

/// Everything that is set, for the directory.
pub(super) fn load_access(t: &Transaction<'_>) -> rusqlite::Result<Vec<DirectoryChange>> {
    let mut query = t.prepare(&format!("SELECT {COLUMNS}, number FROM access"))?;
    let read = |row: &Row<'_>| Ok(DirectoryChange::PutAccess(Number::new(&row.get::<_, String>(7)?), read_access(row)?));
    query.query_map([], read)?.collect()
}

const COLUMNS: &str = "disabled, hours, profile, keys, ringback, key_frame, star";

fn of_kind(t: &Tx<'_>, tenant: &Tenant, number: &str, kind: AccountType) -> Result<(Account, Access), StoreError> {
    if find_account(t, number)?.is_none_or(|account| account.kind != kind) {
        let what = if kind == AccountType::Door { "door" } else { "app account" };
        return Err(StoreError::NotFound(format!("there is no {what} {number}")));
    }
    Ok((own_account(t, tenant, number)?, access_of(t, number)?))
}

/// What is set for an account of any type.
pub(super) fn access_of(t: &Transaction<'_>, number: &str) -> rusqlite::Result<Access> {
    let mut query = t.prepare_cached(&format!("SELECT {COLUMNS} FROM access WHERE number = ?1"))?;
    Ok(query.query_row([number], read_access).optional()?.unwrap_or_default())
}

/// What a later version wrote and this one does not know stays unset, but hours: nobody opens by a misread table.
fn read_access(row: &Row<'_>) -> rusqlite::Result<Access> {
    let text = |index| row.get::<_, Option<String>>(index);
    let hours = serde_json::from_str(&row.get::<_, String>(1)?)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(error)))?;
    Ok(Access {
        disabled: row.get(0)?,
        hours,
        door: DoorWays {
            profile: text(2)?.and_then(|name| Profile::named(&name)),
            star: text(6)?.and_then(|name| Star::named(&name)),
            keys: text(3)?,
            ringback: row.get(4)?,
            key_frame: text(5)?.and_then(|name| way_named(&name)),
        },
    })
}

const WAYS: [(Way, &str); 3] = [(Way::Pli, "pli"), (Way::Fir, "fir"), (Way::Info, "info")];

/// As the API and the table write it.
pub fn way_name(way: Way) -> &'static str {
    WAYS.iter().find(|(known, _)| *known == way).map_or("", |(_, name)| name)
}

pub fn way_named(name: &str) -> Option<Way> {
    WAYS.iter().find(|(_, known)| *known == name).map(|(way, _)| *way)
}
