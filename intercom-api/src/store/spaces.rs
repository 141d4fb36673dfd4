//! House spaces: the triple of space, group and room that lets a record say whose home it is about (spec admin-api.md §6.6).

use super::*;

/// One house space; `room` is in canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    pub id: String,
    pub group: String,
    pub room: String,
}

impl Store {
    /// `space/add`: adds or replaces. A space is its group's app's.
    pub async fn put_space(&self, tenant: Tenant, space: Space) -> Result<(), StoreError> {
        self.transact(move |t| {
            let known = app_of(t, &space.id)?;
            if known.as_ref().is_some_and(|app| !tenant.may(app)) {
                return Err(StoreError::Forbidden(format!("space {}", space.id)));
            }
            let group = own_group(t, &tenant, &space.group)?;
            write::same_app(known.as_deref().unwrap_or(&group.app), &group.app, "the space and the group")?;
            t.execute(
                "INSERT INTO space (space_id, group_id, room, app) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (space_id) DO UPDATE SET group_id = ?2, room = ?3",
                (&space.id, &space.group, &space.room, &*group.app),
            )?;
            Ok(())
        })
        .await
    }

    /// `space/delete`.
    pub async fn remove_space(&self, tenant: Tenant, id: String) -> Result<(), StoreError> {
        self.transact(move |t| {
            own_space(t, &tenant, &id)?;
            t.execute("DELETE FROM space WHERE space_id = ?1", [&id])?;
            Ok(())
        })
        .await
    }

    /// `space/get` by its id.
    pub async fn space(&self, tenant: Tenant, id: String) -> Result<Space, StoreError> {
        self.transact(move |t| own_space(t, &tenant, &id)).await
    }

    /// `space/get` by its group: the first by id, if there are several.
    pub async fn space_of_group(&self, tenant: Tenant, group: String) -> Result<Space, StoreError> {
        self.transact(move |t| {
            own_group(t, &tenant, &group)?;
            let sql = "SELECT space_id, group_id, room FROM space WHERE group_id = ?1 ORDER BY space_id LIMIT 1";
            let space = t.prepare_cached(sql)?.query_row([&group], read_space).optional()?;
            space.ok_or_else(|| StoreError::NotFound(format!("group {group} has no space")))
        })
        .await
    }
}

fn read_space(row: &Row<'_>) -> rusqlite::Result<Space> {
    Ok(Space { id: row.get(0)?, group: row.get(1)?, room: row.get(2)? })
}

fn app_of(t: &Transaction<'_>, id: &str) -> rusqlite::Result<Option<String>> {
    t.prepare_cached("SELECT app FROM space WHERE space_id = ?1")?.query_row([id], |row| row.get(0)).optional()
}

fn own_space(t: &Transaction<'_>, tenant: &Tenant, id: &str) -> Result<Space, StoreError> {
    let app = app_of(t, id)?.ok_or_else(|| StoreError::NotFound(format!("space {id} does not exist")))?;
    if !tenant.may(&app) {
        return Err(StoreError::Forbidden(format!("space {id}")));
    }
    let sql = "SELECT space_id, group_id, room FROM space WHERE space_id = ?1";
    Ok(t.prepare_cached(sql)?.query_row([id], read_space)?)
}
