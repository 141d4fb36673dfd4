//! Lists of `/v1`: in pages by key, filtered, and of a tenant only what is his.

use super::access::access_of;
use super::*;
use crate::model::Access;

/// Everything given must match. `name` is a part of it, in any case of ASCII letters; `after` goes on behind a key.
#[derive(Clone, Debug, Default)]
pub struct AccountsWanted {
    pub kind: Option<AccountType>,
    pub name: Option<String>,
    /// Members of this group.
    pub group: Option<String>,
    pub after: String,
    pub limit: u32,
}

/// The same of groups.
#[derive(Clone, Debug, Default)]
pub struct GroupsWanted {
    pub name: Option<String>,
    /// Groups of this account.
    pub member: Option<String>,
    pub after: String,
    pub limit: u32,
}

/// The same of door units.
#[derive(Clone, Debug, Default)]
pub struct DoorsWanted {
    pub name: Option<String>,
    /// Doors whose map leads to this group.
    pub group: Option<String>,
    pub after: String,
    pub limit: u32,
}

/// What a tenant may see, of any table: `?3` everything, or `?4` what is his.
const MINE: &str = "(?3 OR app = ?4)";
/// `?5` is in the name, or nothing was asked for.
const NAMED: &str = "(?5 IS NULL OR instr(lower(coalesce(name, '')), lower(?5)) > 0)";

impl Store {
    pub async fn accounts(&self, tenant: Tenant, wanted: AccountsWanted) -> Result<Vec<(Account, Access)>, StoreError> {
        self.transact(move |t| {
            let AccountsWanted { kind, name, group, after, limit } = wanted;
            let sql = format!(
                "SELECT number FROM account WHERE number > ?1 AND {MINE} AND {NAMED} AND (?6 IS NULL OR type = ?6)
                    AND (?7 IS NULL OR number IN (SELECT number FROM member WHERE group_id = ?7)) ORDER BY number LIMIT ?2"
            );
            let kind = kind.map(AccountType::code);
            with_access(t, keys(t, &sql, rusqlite::params![after, limit, tenant.all, &*tenant.app, name, kind, group])?)
        })
        .await
    }

    pub async fn groups(&self, tenant: Tenant, wanted: GroupsWanted) -> Result<Vec<Group>, StoreError> {
        self.transact(move |t| {
            let GroupsWanted { name, member, after, limit } = wanted;
            let sql = format!(
                "SELECT id FROM sip_group WHERE id > ?1 AND {MINE} AND {NAMED}
                    AND (?6 IS NULL OR id IN (SELECT group_id FROM member WHERE number = ?6)) ORDER BY id LIMIT ?2"
            );
            let ids = keys(t, &sql, rusqlite::params![after, limit, tenant.all, &*tenant.app, name, member])?;
            let mut groups = Vec::new();
            for id in ids {
                groups.extend(read_group(t, &id)?);
            }
            Ok(groups)
        })
        .await
    }

    pub async fn doors(&self, tenant: Tenant, wanted: DoorsWanted) -> Result<Vec<(Account, Access)>, StoreError> {
        self.transact(move |t| {
            let DoorsWanted { name, group, after, limit } = wanted;
            let sql = format!(
                "SELECT number FROM account WHERE type = 1 AND number > ?1 AND {MINE} AND {NAMED}
                    AND (?6 IS NULL OR number IN (SELECT d.number FROM door d JOIN room r USING (iot_id) WHERE r.group_id = ?6))
                 ORDER BY number LIMIT ?2"
            );
            with_access(t, keys(t, &sql, rusqlite::params![after, limit, tenant.all, &*tenant.app, name, group])?)
        })
        .await
    }

    /// `NotFound`: no such account.
    pub async fn account_and_access(&self, tenant: Tenant, number: String) -> Result<(Account, Access), StoreError> {
        self.transact(move |t| Ok((own_account(t, &tenant, &number)?, access_of(t, &number)?))).await
    }
}

fn keys(t: &Transaction<'_>, sql: &str, params: &[&dyn rusqlite::ToSql]) -> rusqlite::Result<Vec<String>> {
    t.prepare_cached(sql)?.query_map(params, |row| row.get(0))?.collect()
}

fn with_access(t: &Tx<'_>, numbers: Vec<String>) -> Result<Vec<(Account, Access)>, StoreError> {
    let mut accounts = Vec::new();
    for number in numbers {
        if let Some(account) = find_account(t, &number)? {
            accounts.push((account, access_of(t, &number)?));
        }
    }
    Ok(accounts)
}
