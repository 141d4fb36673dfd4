//! Events and passages as they were told (spec events.md, D-31), and what the house adds to a passage.

use super::*;
use crate::events::log::{Logged, What};
use crate::events::passage::Passage;
use crate::events::selection::Selection;
use crate::room;
use std::sync::Arc;

/// Rows taken out in one transaction: others use the store, too.
const PRUNED: u32 = 2000;

/// Which passages a reader wants, newest first.
#[derive(Clone, Debug)]
pub struct WantedPassages {
    pub from_ms: Option<i64>,
    pub to_ms: Option<i64>,
    /// Goes on behind this id, with older ones.
    pub after: Option<i64>,
    pub limit: u32,
}

impl Store {
    /// Writes what was told; what is there already stays as it is.
    pub async fn add_events(&self, events: Vec<Arc<Logged>>) -> Result<(), StoreError> {
        self.transact(move |t| {
            let sql = "INSERT OR IGNORE INTO event (id, code, at_ms, app, body) VALUES (?1, ?2, ?3, ?4, ?5)";
            let mut write = t.prepare_cached(sql)?;
            for logged in events {
                let body = serde_json::to_string(&logged.what).map_err(|_| StoreError::Unavailable)?;
                write.execute((logged.id, logged.kind().code(), logged.at_ms(), &**logged.app(), body))?;
            }
            Ok(())
        })
        .await
    }

    /// The newest id there is; 0: none.
    pub async fn last_event(&self) -> Result<i64, StoreError> {
        self.transact(|t| Ok(t.query_row("SELECT coalesce(max(id), 0) FROM event", [], |row| row.get(0))?)).await
    }

    /// What lies between two ids, the second one not included, oldest first.
    pub async fn events_between(
        &self,
        tenant: Tenant,
        selection: Selection,
        after: i64,
        below: i64,
        limit: u32,
    ) -> Result<Vec<Logged>, StoreError> {
        self.transact(move |t| {
            let sql = format!(
                "SELECT id, app, body FROM event WHERE id > ?1 AND id < ?2 AND (?3 OR app = ?4) AND code IN ({}) ORDER BY id LIMIT {limit}",
                codes(selection)
            );
            let mut query = t.prepare_cached(&sql)?;
            let rows = query.query_map((after, below, tenant.all, &*tenant.app), read_event)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    pub async fn passages(&self, tenant: Tenant, wanted: WantedPassages) -> Result<Vec<Passage>, StoreError> {
        self.transact(move |t| {
            let WantedPassages { from_ms, to_ms, after, limit } = wanted;
            let sql = format!(
                "SELECT id, app, body FROM event WHERE at_ms >= ?1 AND at_ms < ?2 AND (?3 OR app = ?4) AND code = 0 AND id < ?5
                 ORDER BY id DESC LIMIT {limit}"
            );
            let mut query = t.prepare_cached(&sql)?;
            let (from, to, below) = (from_ms.unwrap_or(0), to_ms.unwrap_or(i64::MAX), after.unwrap_or(i64::MAX));
            let rows = query.query_map((from, to, tenant.all, &*tenant.app, below), read_event)?;
            let logged: Vec<Logged> = rows.collect::<Result<_, _>>()?;
            let passages = logged.into_iter().filter_map(|logged| match logged.what {
                What::Passage(passage) => Some(Passage { id: logged.id, ..*passage }),
                What::Event(_) => None,
            });
            Ok(passages.collect())
        })
        .await
    }

    /// Takes out events and passages older than their horizons, a bounded number of each at most: how many there were. Ids are moments,
    /// so this looks at nothing else.
    pub async fn prune_events(&self, events_before_ms: i64, passages_before_ms: i64) -> Result<usize, StoreError> {
        self.transact(move |t| {
            let prune = |which: &str, before_ms: i64| {
                let chosen = format!("SELECT id FROM event WHERE {which} AND id < ?1 ORDER BY id LIMIT {PRUNED}");
                t.execute(&format!("DELETE FROM event WHERE id IN ({chosen})"), [before_ms.saturating_mul(1000)])
            };
            Ok(prune("code <> 0", events_before_ms)? + prune("code = 0", passages_before_ms)?)
        })
        .await
    }

    /// A passage with everything that the house calls it. A late report becomes one for each who had asked.
    pub async fn complete_passage(&self, passage: Passage) -> Result<Vec<Passage>, StoreError> {
        self.transact(move |t| {
            let mut all = askers(t, passage)?;
            for passage in &mut all {
                complete(t, passage)?;
            }
            Ok(all)
        })
        .await
    }
}

/// As SQL; there are few such texts.
pub(super) fn codes(selection: Selection) -> String {
    let codes: Vec<String> = selection.kinds().map(|kind| kind.code().to_string()).collect();
    codes.join(",")
}

fn read_event(row: &Row<'_>) -> rusqlite::Result<Logged> {
    let body: String = row.get(2)?;
    let broken = |error| rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Text, Box::new(error));
    let mut what: What = serde_json::from_str(&body).map_err(broken)?;
    what.belong_to(App::from(row.get::<_, String>(1)?));
    Ok(Logged { id: row.get(0)?, what })
}

/// The door names its order only by when it left; the record knows whose it was.
fn askers(t: &Transaction<'_>, passage: Passage) -> rusqlite::Result<Vec<Passage>> {
    if !passage.late || !passage.account.is_empty() {
        return Ok(vec![passage]);
    }
    let mut query = t.prepare_cached(
        "SELECT DISTINCT account FROM record WHERE door = ?1 AND sent_ms = ?2 AND outcome = 'unknown' ORDER BY id",
    )?;
    let accounts = query.query_map((&passage.door, passage.sent_ms), |row| row.get::<_, String>(0))?;
    let accounts: Vec<String> = accounts.collect::<Result<_, _>>()?;
    if accounts.is_empty() {
        return Ok(vec![passage]);
    }
    Ok(accounts.into_iter().map(|account| Passage { account, ..passage.clone() }).collect())
}

fn complete(t: &Transaction<'_>, passage: &mut Passage) -> rusqlite::Result<()> {
    let mut query =
        t.prepare_cached("SELECT iot_id, product_key, device_name FROM door WHERE number = ?1 ORDER BY iot_id LIMIT 1")?;
    let unit = query.query_row([&passage.door], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?))).optional()?;
    if let Some((iot_id, product_key, device_name)) = unit {
        (passage.product_key, passage.device_name) = (product_key, device_name);
        let rooms = rooms_of(t, &iot_id, passage)?;
        let dialled = room::canonical(&passage.dialled);
        let named = rooms.iter().find(|(room, _)| Some(room) == dialled.as_ref()).or(rooms.first());
        if let Some((room, group)) = named {
            (passage.room, passage.group) = (room.clone(), group.clone());
        }
        passage.iot_id = Some(iot_id);
    }
    if passage.room.is_empty() && passage.dialled != passage.group {
        passage.room = passage.dialled.clone();
    }
    let mut query = t.prepare_cached("SELECT space_id FROM space WHERE group_id = ?1 ORDER BY space_id LIMIT 1")?;
    passage.space_id = query.query_row([&passage.group], |row| row.get(0)).optional()?.unwrap_or_default();
    Ok(())
}

/// Rooms of the door's map that the opening may be about: those of the group that was called, or, outside of a call, those that
/// the one who opened lives in.
fn rooms_of(t: &Transaction<'_>, iot_id: &str, passage: &Passage) -> rusqlite::Result<Vec<(String, String)>> {
    let (sql, whose) = if passage.group.is_empty() {
        let sql = "SELECT r.room, r.group_id FROM room r JOIN member m ON m.group_id = r.group_id
                   WHERE r.iot_id = ?1 AND m.number = ?2 ORDER BY r.room LIMIT 16";
        (sql, &passage.account)
    } else {
        ("SELECT room, group_id FROM room WHERE iot_id = ?1 AND group_id = ?2 ORDER BY room LIMIT 16", &passage.group)
    };
    let mut query = t.prepare_cached(sql)?;
    query.query_map((iot_id, whose), |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}
