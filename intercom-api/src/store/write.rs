//! Writes: one transaction each, all or nothing.

use super::*;

/// Members of one group (spec admin-api.md OPEN-22).
const MAX_MEMBERS: usize = 32;

/// An account with chosen number and password (D-35).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAccount {
    pub number: String,
    pub password: String,
    pub kind: AccountType,
    pub name: Option<String>,
}

impl Store {
    /// `sip/add`: accounts with invented numbers and passwords.
    pub async fn invent_accounts(
        &self,
        tenant: Tenant,
        count: usize,
        kind: AccountType,
        now_ms: i64,
    ) -> Result<(Vec<Account>, Vec<DirectoryChange>), StoreError> {
        self.transact(move |t| {
            let mut accounts = Vec::new();
            while accounts.len() < count {
                let prefix = if kind == AccountType::Door { 'd' } else { 'u' };
                let new = NewAccount { number: invent(prefix, 11)?, password: invent('p', 17)?, kind, name: None };
                match insert_account(t, &tenant, new, now_ms) {
                    Ok(account) => accounts.push(account),
                    Err(StoreError::Conflict(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            let changes = accounts.iter().cloned().map(DirectoryChange::PutAccount).collect();
            Ok((accounts, changes))
        })
        .await
    }

    /// `POST /v1/accounts`. An existing number is a conflict, whatever it holds.
    pub async fn add_accounts(
        &self,
        tenant: Tenant,
        accounts: Vec<NewAccount>,
        now_ms: i64,
    ) -> Result<(Vec<Account>, Vec<DirectoryChange>), StoreError> {
        self.transact(move |t| {
            let accounts =
                accounts.into_iter().map(|new| insert_account(t, &tenant, new, now_ms)).collect::<Result<Vec<_>, _>>()?;
            let changes = accounts.iter().cloned().map(DirectoryChange::PutAccount).collect();
            Ok((accounts, changes))
        })
        .await
    }

    /// `sip/password/update`: a new password of the server's own.
    pub async fn renew_password(&self, tenant: Tenant, number: String) -> Result<(Account, Vec<DirectoryChange>), StoreError> {
        self.transact(move |t| {
            let mut account = own_account(t, &tenant, &number)?;
            let password = invent('p', 17)?;
            let sealed = t.seal(&whose_account(&number), &password)?;
            t.execute("UPDATE account SET password = ?2 WHERE number = ?1", (&number, sealed))?;
            account.password = Secret::new(&password);
            let changes = vec![DirectoryChange::PutAccount(account.clone())];
            Ok((account, changes))
        })
        .await
    }

    /// `group/add`: empty groups with invented ids.
    pub async fn invent_groups(
        &self,
        tenant: Tenant,
        count: usize,
        now_ms: i64,
    ) -> Result<(Vec<Group>, Vec<DirectoryChange>), StoreError> {
        self.transact(move |t| {
            let mut groups = Vec::new();
            while groups.len() < count {
                match insert_group(t, &tenant, &invent('g', 11)?, &[], None, now_ms) {
                    Ok(group) => groups.push(group),
                    Err(StoreError::Conflict(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            let changes = groups.iter().cloned().map(DirectoryChange::PutGroup).collect();
            Ok((groups, changes))
        })
        .await
    }

    /// `POST /v1/groups`: (id, members, name).
    pub async fn add_groups(
        &self,
        tenant: Tenant,
        groups: Vec<(String, Vec<String>, Option<String>)>,
        now_ms: i64,
    ) -> Result<(Vec<Group>, Vec<DirectoryChange>), StoreError> {
        self.transact(move |t| {
            let mut added = Vec::new();
            for (id, members, name) in groups {
                added.push(insert_group(t, &tenant, &id, &members, name, now_ms)?);
            }
            let changes = added.iter().cloned().map(DirectoryChange::PutGroup).collect();
            Ok((added, changes))
        })
        .await
    }

    /// `group/sip/add`. A number that is already a member stays one.
    pub async fn add_members(
        &self,
        tenant: Tenant,
        id: String,
        numbers: Vec<String>,
    ) -> Result<Vec<DirectoryChange>, StoreError> {
        self.transact(move |t| {
            own_group(t, &tenant, &id)?;
            insert_members(t, &tenant, &id, &numbers)?;
            Ok(read_group(t, &id)?.map(DirectoryChange::PutGroup).into_iter().collect())
        })
        .await
    }

    /// `sipnumber/sync`: what a door unit is issued. Delivery to the unit comes with the edge protocol.
    pub async fn sync_door(
        &self,
        tenant: Tenant,
        iot_id: String,
        number: String,
        password: String,
        host: String,
        port: String,
    ) -> Result<Vec<DirectoryChange>, StoreError> {
        self.transact(move |t| {
            own_unit(t, &tenant, &iot_id)?;
            let account = own_account(t, &tenant, &number)?;
            if account.kind != AccountType::Door {
                return Err(StoreError::Invalid(format!("{number} is not a door unit's account")));
            }
            let password = t.seal(&whose_door(&iot_id), &password)?;
            t.execute(
                "INSERT INTO door (iot_id, number, password, host, port, app) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT (iot_id) DO UPDATE SET number = ?2, password = ?3, host = ?4, port = ?5",
                (&iot_id, &number, &password, &host, &port, &*account.app),
            )?;
            Ok(vec![DirectoryChange::PutDoor { iot_id, number: Number::new(&number) }])
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
            own_unit(t, &tenant, &iot_id)?;
            let mut changes = Vec::new();
            for (room, group) in maps {
                own_group(t, &tenant, &group)?;
                t.execute(
                    "INSERT INTO room (iot_id, room, group_id) VALUES (?1, ?2, ?3)
                     ON CONFLICT (iot_id, room) DO UPDATE SET group_id = ?3",
                    (&iot_id, &room, &group),
                )?;
                changes.push(DirectoryChange::PutRoom { iot_id: iot_id.clone(), room, group: Number::new(&group) });
            }
            Ok(changes)
        })
        .await
    }
}

/// A unit that nobody has named yet is anybody's.
fn own_unit(t: &Tx<'_>, tenant: &Tenant, iot_id: &str) -> Result<(), StoreError> {
    let mut query = t.prepare_cached("SELECT app FROM door WHERE iot_id = ?1")?;
    let app: Option<String> = query.query_row([iot_id], |row| row.get(0)).optional()?;
    if app.is_none_or(|app| tenant.may(&app)) { Ok(()) } else { Err(StoreError::Forbidden(format!("unit {iot_id}"))) }
}

fn insert_account(t: &Tx<'_>, tenant: &Tenant, new: NewAccount, now_ms: i64) -> Result<Account, StoreError> {
    if find_account(t, &new.number)?.is_some() {
        return Err(StoreError::Conflict(format!("account {} exists", new.number)));
    }
    // A number means one thing: dialling it must not depend on who asks.
    if read_group(t, &new.number)?.is_some() {
        return Err(StoreError::Conflict(format!("{} is the id of a group", new.number)));
    }
    let sealed = t.seal(&whose_account(&new.number), &new.password)?;
    t.execute(
        "INSERT INTO account (number, password, type, name, created_ms, app) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        (&new.number, sealed, new.kind.code(), &new.name, now_ms, &*tenant.app),
    )?;
    Ok(Account {
        number: Number::new(&new.number),
        password: Secret::new(&new.password),
        kind: new.kind,
        name: new.name,
        created_ms: now_ms,
        app: tenant.app.clone(),
    })
}

fn insert_group(
    t: &Tx<'_>,
    tenant: &Tenant,
    id: &str,
    members: &[String],
    name: Option<String>,
    now_ms: i64,
) -> Result<Group, StoreError> {
    if read_group(t, id)?.is_some() {
        return Err(StoreError::Conflict(format!("group {id} exists")));
    }
    if find_account(t, id)?.is_some() {
        return Err(StoreError::Conflict(format!("{id} is the number of an account")));
    }
    t.execute("INSERT INTO sip_group (id, name, created_ms, app) VALUES (?1, ?2, ?3, ?4)", (id, &name, now_ms, &*tenant.app))?;
    insert_members(t, tenant, id, members)?;
    read_group(t, id)?.ok_or(StoreError::Unavailable)
}

/// Only app accounts (spec admin-api.md §5.7).
fn insert_members(t: &Tx<'_>, tenant: &Tenant, id: &str, numbers: &[String]) -> Result<(), StoreError> {
    for number in numbers {
        let account = own_account(t, tenant, number)?;
        if account.kind != AccountType::App {
            return Err(StoreError::Invalid(format!("{number} is a door unit; only app accounts go into a group")));
        }
        t.execute(
            "INSERT INTO member (group_id, number, position)
             VALUES (?1, ?2, (SELECT coalesce(max(position), 0) + 1 FROM member WHERE group_id = ?1)) ON CONFLICT DO NOTHING",
            (id, number),
        )?;
    }
    let members: i64 = t.query_row("SELECT count(*) FROM member WHERE group_id = ?1", [id], |row| row.get(0))?;
    if members > MAX_MEMBERS as i64 {
        return Err(StoreError::Invalid(format!("a group has at most {MAX_MEMBERS} members")));
    }
    Ok(())
}

/// A prefix and random letters of a 32-letter alphabet without look-alikes: five bits each.
fn invent(prefix: char, letters: usize) -> Result<String, StoreError> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = vec![0u8; letters];
    getrandom::fill(&mut bytes).map_err(|_| StoreError::Unavailable)?;
    Ok(std::iter::once(prefix).chain(bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte & 31)]))).collect())
}
