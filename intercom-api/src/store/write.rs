//! Writes: one transaction each, all or nothing.

use super::*;
use std::collections::BTreeSet;

/// Members of one group, unless [`Store::with_group_members`] says otherwise (spec admin-api.md OPEN-22).
pub(super) const GROUP_MEMBERS: usize = 32;
/// What it may say at most: what one call can ring.
pub const MAX_MEMBERS: usize = 64;

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
                match insert_group(t, &tenant, &invent('g', 11)?, None, now_ms) {
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
        let most = self.group_members;
        self.transact(move |t| {
            let mut added = Vec::new();
            for (id, members, name) in groups {
                insert_group(t, &tenant, &id, name, now_ms)?;
                insert_members(t, &tenant, &tenant.app, &id, &members, most)?;
                added.extend(read_group(t, &id)?);
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
        let most = self.group_members;
        self.transact(move |t| {
            let group = own_group(t, &tenant, &id)?;
            insert_members(t, &tenant, &group.app, &id, &numbers, most)?;
            Ok(read_group(t, &id)?.map(DirectoryChange::PutGroup).into_iter().collect())
        })
        .await
    }

    /// `sip/delete`: with everything that hangs on them: memberships, and the units that were issued one of them with their maps.
    pub async fn remove_accounts(&self, tenant: Tenant, numbers: Vec<String>) -> Result<Vec<DirectoryChange>, StoreError> {
        self.transact(move |t| {
            let mut groups = BTreeSet::new();
            let mut changes = Vec::new();
            for number in &numbers {
                own_account(t, &tenant, number)?;
                groups.extend(texts(t, "SELECT group_id FROM member WHERE number = ?1", number)?);
                for iot_id in texts(t, "SELECT iot_id FROM door WHERE number = ?1", number)? {
                    t.prepare_cached("DELETE FROM room WHERE iot_id = ?1")?.execute([&iot_id])?;
                    changes.push(DirectoryChange::RemoveDoor { iot_id });
                }
                t.prepare_cached("DELETE FROM account WHERE number = ?1")?.execute([number])?;
                changes.push(DirectoryChange::RemoveAccount(Number::new(number)));
            }
            for id in groups {
                changes.extend(read_group(t, &id)?.map(DirectoryChange::PutGroup));
            }
            Ok(changes)
        })
        .await
    }

    /// `group/delete`: with the rooms and spaces that lead to them.
    pub async fn remove_groups(&self, tenant: Tenant, ids: Vec<String>) -> Result<Vec<DirectoryChange>, StoreError> {
        self.transact(move |t| {
            let mut changes = Vec::new();
            for id in &ids {
                own_group(t, &tenant, id)?;
                let mut rooms = t.prepare_cached("SELECT iot_id, room FROM room WHERE group_id = ?1")?;
                let read = |row: &Row<'_>| Ok(DirectoryChange::RemoveRoom { iot_id: row.get(0)?, room: row.get(1)? });
                for room in rooms.query_map([id], read)? {
                    changes.push(room?);
                }
                t.prepare_cached("DELETE FROM sip_group WHERE id = ?1")?.execute([id])?;
                changes.push(DirectoryChange::RemoveGroup(Number::new(id)));
            }
            Ok(changes)
        })
        .await
    }

    /// `group/sip/delete`. Who is no member is `NotFound`.
    pub async fn remove_members(
        &self,
        tenant: Tenant,
        id: String,
        numbers: Vec<String>,
    ) -> Result<Vec<DirectoryChange>, StoreError> {
        self.transact(move |t| {
            own_group(t, &tenant, &id)?;
            for number in &numbers {
                own_account(t, &tenant, number)?;
                let gone = t.prepare_cached("DELETE FROM member WHERE group_id = ?1 AND number = ?2")?.execute((&id, number))?;
                if gone == 0 {
                    return Err(StoreError::NotFound(format!("{number} is not in group {id}")));
                }
            }
            Ok(read_group(t, &id)?.map(DirectoryChange::PutGroup).into_iter().collect())
        })
        .await
    }
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
    let insert = "INSERT INTO account (number, password, type, name, created_ms, app) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    t.prepare_cached(insert)?.execute((&new.number, sealed, new.kind.code(), &new.name, now_ms, &*tenant.app))?;
    Ok(Account {
        number: Number::new(&new.number),
        password: Secret::new(&new.password),
        kind: new.kind,
        name: new.name,
        created_ms: now_ms,
        app: tenant.app.clone(),
    })
}

fn insert_group(t: &Tx<'_>, tenant: &Tenant, id: &str, name: Option<String>, now_ms: i64) -> Result<Group, StoreError> {
    if read_group(t, id)?.is_some() {
        return Err(StoreError::Conflict(format!("group {id} exists")));
    }
    if find_account(t, id)?.is_some() {
        return Err(StoreError::Conflict(format!("{id} is the number of an account")));
    }
    let mut insert = t.prepare_cached("INSERT INTO sip_group (id, name, created_ms, app) VALUES (?1, ?2, ?3, ?4)")?;
    insert.execute((id, &name, now_ms, &*tenant.app))?;
    read_group(t, id)?.ok_or(StoreError::Unavailable)
}

/// Only app accounts (spec admin-api.md §5.7), and of the group's own app: who may use both must not mix them either.
pub(super) fn insert_members(
    t: &Tx<'_>,
    tenant: &Tenant,
    app: &str,
    id: &str,
    numbers: &[String],
    most: usize,
) -> Result<(), StoreError> {
    for number in numbers {
        let account = own_account(t, tenant, number)?;
        same_app(&account.app, app, &format!("{number} and the group"))?;
        if account.kind != AccountType::App {
            return Err(StoreError::Invalid(format!("{number} is a door unit; only app accounts go into a group")));
        }
        let mut insert = t.prepare_cached(
            "INSERT INTO member (group_id, number, position)
             VALUES (?1, ?2, (SELECT coalesce(max(position), 0) + 1 FROM member WHERE group_id = ?1)) ON CONFLICT DO NOTHING",
        )?;
        insert.execute((id, number))?;
    }
    let members: i64 = t.query_row("SELECT count(*) FROM member WHERE group_id = ?1", [id], |row| row.get(0))?;
    if usize::try_from(members).is_ok_and(|members| members > most) {
        return Err(StoreError::Invalid(format!("a group has at most {most} members")));
    }
    Ok(())
}

/// The first column of all rows.
fn texts(t: &Transaction<'_>, sql: &str, key: &str) -> rusqlite::Result<Vec<String>> {
    t.prepare_cached(sql)?.query_map([key], |row| row.get(0))?.collect()
}

/// Two things that go together must be of one app.
pub(super) fn same_app(one: &str, other: &str, what: &str) -> Result<(), StoreError> {
    if one == other { Ok(()) } else { Err(StoreError::Invalid(format!("{what} are not of one application"))) }
}

/// A prefix and random letters of a 32-letter alphabet without look-alikes: five bits each.
pub(super) fn invent(prefix: char, letters: usize) -> Result<String, StoreError> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = vec![0u8; letters];
    getrandom::fill(&mut bytes).map_err(|_| StoreError::Unavailable)?;
    Ok(std::iter::once(prefix).chain(bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte & 31)]))).collect())
}
