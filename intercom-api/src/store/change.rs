//! `PATCH` of accounts and groups: what is left out stays.

use super::access::{AccessPatch, access_of, put_access};
use super::write::insert_members;
use super::*;
use crate::model::Access;

/// What changes of an account of either type.
#[derive(Clone, Debug, Default)]
pub struct AccountPatch {
    /// `Some(None)` takes it away.
    pub name: Option<Option<String>>,
    pub password: Option<Secret>,
    pub access: AccessPatch,
}

/// What changes of a group.
#[derive(Clone, Debug, Default)]
pub struct GroupPatch {
    /// All of them, in their order.
    pub members: Option<Vec<String>>,
    /// `Some(None)` takes it away.
    pub name: Option<Option<String>>,
}

impl Store {
    pub async fn change_account(
        &self,
        tenant: Tenant,
        number: String,
        patch: AccountPatch,
    ) -> Result<(Account, Access, Vec<DirectoryChange>), StoreError> {
        self.transact(move |t| {
            let mut account = own_account(t, &tenant, &number)?;
            if let Some(name) = patch.name {
                t.execute("UPDATE account SET name = ?2 WHERE number = ?1", (&number, &name))?;
                account.name = name;
            }
            if let Some(password) = patch.password {
                let sealed = t.seal(&whose_account(&number), password.reveal())?;
                t.execute("UPDATE account SET password = ?2 WHERE number = ?1", (&number, sealed))?;
                account.password = password;
            }
            let access = put_access(t, &account, access_of(t, &number)?, patch.access)?;
            let changes = vec![
                DirectoryChange::PutAccount(account.clone()),
                DirectoryChange::PutAccess(account.number.clone(), access.clone()),
            ];
            Ok((account, access, changes))
        })
        .await
    }

    pub async fn change_group(
        &self,
        tenant: Tenant,
        id: String,
        patch: GroupPatch,
    ) -> Result<(Group, Vec<DirectoryChange>), StoreError> {
        let most = self.group_members;
        self.transact(move |t| {
            let group = own_group(t, &tenant, &id)?;
            if let Some(name) = patch.name {
                t.execute("UPDATE sip_group SET name = ?2 WHERE id = ?1", (&id, &name))?;
            }
            if let Some(members) = patch.members {
                t.execute("DELETE FROM member WHERE group_id = ?1", [&id])?;
                insert_members(t, &tenant, &group.app, &id, &members, most)?;
            }
            let group = read_group(t, &id)?.ok_or(StoreError::Unavailable)?;
            let changes = vec![DirectoryChange::PutGroup(group.clone())];
            Ok((group, changes))
        })
        .await
    }
}
