//! Webhooks and how far each has come, what could not be delivered to them, and how far MQTT has come.

use super::*;
use crate::events::selection::Selection;

/// Webhooks of the whole installation: each is a task and a connection.
const MAX_HOOKS: i64 = 200;
/// Of one appKey.
const MAX_HOOKS_OF_APP: i64 = 20;
/// Events that are counted for who asks how far behind a webhook is.
const MOST_LAG: u32 = 10_000;
/// Dead letters kept of one webhook, the newest.
const MAX_DEAD: i64 = 10_000;

/// Instead of an appKey: a webhook of somebody who reaches everything, which hears of everything. No appKey is written so. What is
/// the installation's own is another thing: an app may stand for it, and hears nothing of others.
const EVERYTHING: &str = "*";

/// Where a webhook was set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    Api,
    /// Changed there, not over the API.
    Config,
}

/// A receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    pub id: String,
    pub app: App,
    pub url: String,
    pub secret: Secret,
    pub selection: Selection,
    pub enabled: bool,
    pub origin: Origin,
    pub created_ms: i64,
    /// The last event that is done with.
    pub cursor: i64,
}

impl Hook {
    /// Whose a webhook is that somebody sets up.
    pub fn app_of(tenant: &Tenant) -> App {
        if tenant.all { EVERYTHING.into() } else { tenant.app.clone() }
    }

    /// What it hears of.
    pub fn tenant(&self) -> Tenant {
        Tenant { all: *self.app == *EVERYTHING, app: self.app.clone() }
    }
}

/// What could not be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    pub event: i64,
    pub at_ms: i64,
    pub reason: String,
    /// As it was sent.
    pub body: String,
}

/// A webhook of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    pub url: String,
    pub secret: Secret,
    pub selection: Selection,
}

const HOOK: &str = "id, app, url, secret, events, enabled, origin, created_ms, cursor";

impl Store {
    /// `Conflict`: there are too many.
    pub async fn add_hook(&self, hook: Hook) -> Result<(), StoreError> {
        self.transact(move |t| {
            let sql = "SELECT count(*), count(*) FILTER (WHERE app = ?1) FROM hook";
            let (all, of_app): (i64, i64) = t.query_row(sql, [&*hook.app], |row| Ok((row.get(0)?, row.get(1)?)))?;
            if all >= MAX_HOOKS || (!hook.tenant().all && of_app >= MAX_HOOKS_OF_APP) {
                return Err(StoreError::Conflict("there are too many webhooks".into()));
            }
            insert_hook(t, &hook)
        })
        .await
    }

    /// Of a tenant, oldest first.
    pub async fn hooks(&self, tenant: Tenant) -> Result<Vec<Hook>, StoreError> {
        self.transact(move |t| {
            let sql = format!("SELECT {HOOK} FROM hook WHERE ?1 OR app = ?2 ORDER BY created_ms, id");
            let mut query = t.prepare_cached(&sql)?;
            let mut rows = query.query((tenant.all, &*tenant.app))?;
            let mut hooks = Vec::new();
            while let Some(row) = rows.next()? {
                hooks.push(read_hook(t, row)?);
            }
            Ok(hooks)
        })
        .await
    }

    /// `NotFound`: there is none; `Forbidden`: another's.
    pub async fn hook(&self, tenant: Tenant, id: String) -> Result<Hook, StoreError> {
        self.transact(move |t| own_hook(t, &tenant, &id)).await
    }

    pub async fn change_hook(&self, id: String, selection: Option<Selection>, enabled: Option<bool>) -> Result<(), StoreError> {
        self.transact(move |t| {
            let events = selection.map(|selection| selection.names().join(","));
            t.execute(
                "UPDATE hook SET events = coalesce(?2, events), enabled = coalesce(?3, enabled) WHERE id = ?1",
                (id, events, enabled),
            )?;
            Ok(())
        })
        .await
    }

    /// With its dead letters.
    pub async fn remove_hook(&self, id: String) -> Result<(), StoreError> {
        self.transact(move |t| Ok(t.execute("DELETE FROM hook WHERE id = ?1", [id]).map(drop)?)).await
    }

    /// At the start: the webhooks of the configuration are those and no others. One whose URL was there goes on where it was.
    pub async fn configure_hooks(&self, configured: Vec<Configured>, now_ms: i64, cursor: i64) -> Result<(), StoreError> {
        self.transact(move |t| {
            let mut query = t.prepare("SELECT id, url FROM hook WHERE origin = 'config'")?;
            let there = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
            let there: Vec<(String, String)> = there.collect::<Result<_, _>>()?;
            for (id, _) in there.iter().filter(|(_, url)| !configured.iter().any(|new| new.url == *url)) {
                t.execute("DELETE FROM hook WHERE id = ?1", [id])?;
            }
            for Configured { url, secret, selection } in configured {
                match there.iter().find(|(_, known)| *known == url) {
                    Some((id, _)) => {
                        let sealed = t.seal(&whose(id), secret.reveal())?;
                        let events = selection.names().join(",");
                        t.execute("UPDATE hook SET secret = ?2, events = ?3, enabled = 1 WHERE id = ?1", (id, sealed, events))?;
                    }
                    None => {
                        let hook = Hook {
                            id: new_hook_id()?,
                            app: EVERYTHING.into(),
                            url,
                            secret,
                            selection,
                            enabled: true,
                            origin: Origin::Config,
                            created_ms: now_ms,
                            cursor,
                        };
                        insert_hook(t, &hook)?;
                    }
                }
            }
            Ok(())
        })
        .await
    }

    /// This one and everything before it is done with.
    pub async fn move_hook(&self, id: String, cursor: i64) -> Result<(), StoreError> {
        self.transact(move |t| {
            t.prepare_cached("UPDATE hook SET cursor = ?2 WHERE id = ?1")?.execute((id, cursor))?;
            Ok(())
        })
        .await
    }

    /// An event is given up, and done with.
    pub async fn bury(&self, id: String, dead: Dead) -> Result<(), StoreError> {
        self.transact(move |t| {
            let Dead { event, at_ms, reason, body } = dead;
            t.execute(
                "INSERT INTO dead (hook, event, at_ms, reason, body) SELECT id, ?2, ?3, ?4, ?5 FROM hook WHERE id = ?1
                 ON CONFLICT (hook, event) DO UPDATE SET at_ms = ?3, reason = ?4, again = 0",
                (&id, event, at_ms, reason, body),
            )?;
            t.execute("UPDATE hook SET cursor = max(cursor, ?2) WHERE id = ?1", (&id, event))?;
            t.execute(
                "DELETE FROM dead WHERE hook = ?1 AND event <= (SELECT event FROM dead WHERE hook = ?1 ORDER BY event DESC LIMIT 1 OFFSET ?2)",
                (&id, MAX_DEAD),
            )?;
            Ok(())
        })
        .await
    }

    /// Oldest first, from one event on.
    pub async fn dead(&self, id: String, after: i64, limit: u32) -> Result<Vec<Dead>, StoreError> {
        self.transact(move |t| {
            let sql = "SELECT event, at_ms, reason, body FROM dead WHERE hook = ?1 AND event > ?2 ORDER BY event LIMIT ?3";
            let mut query = t.prepare_cached(sql)?;
            Ok(query.query_map((id, after, limit), read_dead)?.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// All of them, or the named ones, are to be tried once more: how many.
    pub async fn redeliver(&self, id: String, events: Option<Vec<i64>>) -> Result<usize, StoreError> {
        self.transact(move |t| {
            let Some(events) = events else { return Ok(t.execute("UPDATE dead SET again = 1 WHERE hook = ?1", [&id])?) };
            let mut count = 0;
            for event in events {
                count += t.execute("UPDATE dead SET again = 1 WHERE hook = ?1 AND event = ?2", (&id, event))?;
            }
            Ok(count)
        })
        .await
    }

    /// The first that is to be tried once more.
    pub async fn next_redelivery(&self, id: String) -> Result<Option<Dead>, StoreError> {
        self.transact(move |t| {
            let sql = "SELECT event, at_ms, reason, body FROM dead WHERE hook = ?1 AND again = 1 ORDER BY event LIMIT 1";
            Ok(t.prepare_cached(sql)?.query_row([id], read_dead).optional()?)
        })
        .await
    }

    /// It was delivered after all.
    pub async fn revive(&self, id: String, event: i64) -> Result<(), StoreError> {
        self.transact(move |t| Ok(t.execute("DELETE FROM dead WHERE hook = ?1 AND event = ?2", (id, event)).map(drop)?)).await
    }

    pub async fn prune_dead(&self, before_ms: i64) -> Result<usize, StoreError> {
        self.transact(move |t| Ok(t.execute("DELETE FROM dead WHERE at_ms < ?1", [before_ms])?)).await
    }

    /// How many selected events are written and not done with (at most 10,000 are counted), and how many are dead.
    pub async fn backlog(&self, hook: &Hook) -> Result<(u64, u64), StoreError> {
        let (id, tenant, cursor, selection) = (hook.id.clone(), hook.tenant(), hook.cursor, hook.selection);
        self.transact(move |t| {
            let sql = format!(
                "SELECT count(*) FROM (SELECT 1 FROM event WHERE id > ?1 AND (?2 OR app = ?3) AND code IN ({}) LIMIT {MOST_LAG})",
                super::events::codes(selection)
            );
            let lag: i64 = t.prepare_cached(&sql)?.query_row((cursor, tenant.all, &*tenant.app), |row| row.get(0))?;
            let dead: i64 = t.query_row("SELECT count(*) FROM dead WHERE hook = ?1", [id], |row| row.get(0))?;
            Ok((lag.unsigned_abs(), dead.unsigned_abs()))
        })
        .await
    }

    /// A number the installation remembers under a name.
    pub async fn mark(&self, name: &'static str) -> Result<Option<i64>, StoreError> {
        self.transact(move |t| {
            let value: Option<String> =
                t.query_row("SELECT value FROM setting WHERE name = ?1", [name], |row| row.get(0)).optional()?;
            Ok(value.and_then(|value| value.parse().ok()))
        })
        .await
    }

    pub async fn set_mark(&self, name: &'static str, value: i64) -> Result<(), StoreError> {
        self.transact(move |t| {
            let sql = "INSERT INTO setting (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2";
            t.prepare_cached(sql)?.execute((name, value.to_string()))?;
            Ok(())
        })
        .await
    }
}

/// Unpredictable, for URLs.
pub fn new_hook_id() -> Result<String, StoreError> {
    super::write::invent('h', 11)
}

fn insert_hook(t: &Tx<'_>, hook: &Hook) -> Result<(), StoreError> {
    let origin = if hook.origin == Origin::Config { "config" } else { "api" };
    let secret = t.seal(&whose(&hook.id), hook.secret.reveal())?;
    let events = hook.selection.names().join(",");
    t.execute(
        &format!("INSERT INTO hook ({HOOK}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"),
        (&hook.id, &*hook.app, &hook.url, secret, events, hook.enabled, origin, hook.created_ms, hook.cursor),
    )?;
    Ok(())
}

fn own_hook(t: &Tx<'_>, tenant: &Tenant, id: &str) -> Result<Hook, StoreError> {
    let mut query = t.prepare_cached(&format!("SELECT {HOOK} FROM hook WHERE id = ?1"))?;
    let mut rows = query.query([id])?;
    let hook = rows.next()?.map(|row| read_hook(t, row)).transpose()?;
    let hook = hook.ok_or_else(|| StoreError::NotFound(format!("webhook {id} does not exist")))?;
    if tenant.may(&hook.app) { Ok(hook) } else { Err(StoreError::Forbidden(format!("webhook {id}"))) }
}

fn read_hook(t: &Tx<'_>, row: &Row<'_>) -> rusqlite::Result<Hook> {
    let (id, events, origin): (String, String, String) = (row.get(0)?, row.get(4)?, row.get(6)?);
    Ok(Hook {
        secret: t.open(&whose(&id), &row.get::<_, Vec<u8>>(3)?)?,
        id,
        app: App::from(row.get::<_, String>(1)?),
        url: row.get(2)?,
        selection: Selection::named(events.split(',')).unwrap_or_default(),
        enabled: row.get(5)?,
        origin: if origin == "config" { Origin::Config } else { Origin::Api },
        created_ms: row.get(7)?,
        cursor: row.get(8)?,
    })
}

fn read_dead(row: &Row<'_>) -> rusqlite::Result<Dead> {
    Ok(Dead { event: row.get(0)?, at_ms: row.get(1)?, reason: row.get(2)?, body: row.get(3)? })
}

/// Whose a sealed secret is.
fn whose(id: &str) -> String {
    format!("hook:{id}")
}
