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
        count: usize,
        kind: AccountType,
        now_ms: i64,
    ) -> Result<(Vec<Account>, Vec<DirectoryChange>), StoreError> {
        self.transact(move |t| {
            let mut accounts = Vec::new();
            while accounts.len() < count {
                let prefix = if kind == AccountType::Door { 'd' } else { 'u' };
                let new = NewAccount { number: invent(prefix, 11)?, password: invent('p', 17)?, kind, name: None };
                match insert_account(t, new, now_ms) {
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
        accounts: Vec<NewAccount>,
        now_ms: i64,
    ) -> Result<(Vec<Account>, Vec<DirectoryChange>), StoreError> {
        self.transact(move |t| {
            let accounts = accounts.into_iter().map(|new| insert_account(t, new, now_ms)).collect::<Result<Vec<_>, _>>()?;
            let changes = accounts.iter().cloned().map(DirectoryChange::PutAccount).collect();
            Ok((accounts, changes))
        })
        .await
    }

    /// `sip/password/update`: a new password of the server's own.
    pub async fn renew_password(&self, number: String) -> Result<(Account, Vec<DirectoryChange>), StoreError> {
        self.transact(move |t| {
            let mut account = find_account(t, &number)?.ok_or_else(|| StoreError::NotFound("SYS_0002".into()))?;
            let password = invent('p', 17)?;
            t.execute("UPDATE account SET password = ?2 WHERE number = ?1", (&number, &password))?;
            account.password = Secret::new(&password);
            let changes = vec![DirectoryChange::PutAccount(account.clone())];
            Ok((account, changes))
        })
        .await
    }

    /// `group/add`: empty groups with invented ids.
    pub async fn invent_groups(&self, count: usize, now_ms: i64) -> Result<(Vec<Group>, Vec<DirectoryChange>), StoreError> {
        self.transact(move |t| {
            let mut groups = Vec::new();
            while groups.len() < count {
                match insert_group(t, &invent('g', 11)?, &[], None, now_ms) {
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
        groups: Vec<(String, Vec<String>, Option<String>)>,
        now_ms: i64,
    ) -> Result<(Vec<Group>, Vec<DirectoryChange>), StoreError> {
        self.transact(move |t| {
            let mut added = Vec::new();
            for (id, members, name) in groups {
                added.push(insert_group(t, &id, &members, name, now_ms)?);
            }
            let changes = added.iter().cloned().map(DirectoryChange::PutGroup).collect();
            Ok((added, changes))
        })
        .await
    }

    /// `group/sip/add`. A number that is already a member stays one.
    pub async fn add_members(&self, id: String, numbers: Vec<String>) -> Result<Vec<DirectoryChange>, StoreError> {
        self.transact(move |t| {
            read_group(t, &id)?.ok_or_else(|| StoreError::NotFound(format!("group {id} does not exist")))?;
            insert_members(t, &id, &numbers)?;
            Ok(read_group(t, &id)?.map(DirectoryChange::PutGroup).into_iter().collect())
        })
        .await
    }

    /// `sipnumber/sync`: what a door unit is issued. Delivery to the unit comes with the edge protocol.
    pub async fn sync_door(
        &self,
        iot_id: String,
        number: String,
        password: String,
        host: String,
        port: String,
    ) -> Result<Vec<DirectoryChange>, StoreError> {
        self.transact(move |t| {
            let account = find_account(t, &number)?.ok_or_else(|| StoreError::NotFound("SYS_0002".into()))?;
            if account.kind != AccountType::Door {
                return Err(StoreError::Invalid(format!("{number} is not a door unit's account")));
            }
            t.execute(
                "INSERT INTO door (iot_id, number, password, host, port) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (iot_id) DO UPDATE SET number = ?2, password = ?3, host = ?4, port = ?5",
                (&iot_id, &number, &password, &host, &port),
            )?;
            Ok(vec![DirectoryChange::PutDoor { iot_id, number: Number::new(&number) }])
        })
        .await
    }

    /// `map/add`: (room in canonical form, group). An existing room is replaced.
    pub async fn map_rooms(&self, iot_id: String, maps: Vec<(String, String)>) -> Result<Vec<DirectoryChange>, StoreError> {
        self.transact(move |t| {
            let mut changes = Vec::new();
            for (room, group) in maps {
                read_group(t, &group)?.ok_or_else(|| StoreError::NotFound(format!("group {group} does not exist")))?;
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

fn insert_account(t: &Transaction<'_>, new: NewAccount, now_ms: i64) -> Result<Account, StoreError> {
    if find_account(t, &new.number)?.is_some() {
        return Err(StoreError::Conflict(format!("account {} exists", new.number)));
    }
    // A number means one thing: dialling it must not depend on who asks.
    if read_group(t, &new.number)?.is_some() {
        return Err(StoreError::Conflict(format!("{} is the id of a group", new.number)));
    }
    t.execute(
        "INSERT INTO account (number, password, type, name, created_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
        (&new.number, &new.password, new.kind.code(), &new.name, now_ms),
    )?;
    Ok(Account {
        number: Number::new(&new.number),
        password: Secret::new(&new.password),
        kind: new.kind,
        name: new.name,
        created_ms: now_ms,
    })
}

fn insert_group(
    t: &Transaction<'_>,
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
    t.execute("INSERT INTO sip_group (id, name, created_ms) VALUES (?1, ?2, ?3)", (id, &name, now_ms))?;
    insert_members(t, id, members)?;
    read_group(t, id)?.ok_or(StoreError::Unavailable)
}

/// Only app accounts (spec admin-api.md §5.7).
fn insert_members(t: &Transaction<'_>, id: &str, numbers: &[String]) -> Result<(), StoreError> {
    for number in numbers {
        let account = find_account(t, number)?.ok_or_else(|| StoreError::NotFound(format!("account {number} does not exist")))?;
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
