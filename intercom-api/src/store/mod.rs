//! The store: SQLite on a thread of its own, and the only SQL. Every API write is one transaction; what it means for the
//! Switchboard comes back as [`DirectoryChange`]s.

#![allow(clippy::disallowed_methods)] // a shell: owns a thread and a file

mod access;
mod bindings;
mod schema;
mod snapshots;
mod write;

pub use access::{AccessPatch, way_name, way_named};
pub use write::NewAccount;

use crate::model::{Account, AccountType, DirectoryChange, Group, Number, Secret};
use crate::record::Record;
use crate::unlock::hours::Hours;
use rusqlite::{Connection, OptionalExtension, Row, Transaction};
use std::path::Path;
use std::sync::mpsc;
use tokio::sync::oneshot;

/// Jobs that may wait for the thread.
const QUEUE: usize = 256;

/// Why a write did not happen; nothing of it did.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    Invalid(String),
    /// Full disk, broken file, full queue: the detail goes to the log, not to the client.
    #[error("the store is not available")]
    Unavailable,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        tracing::error!(%error, "store");
        StoreError::Unavailable
    }
}

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("it is of version {version}, made by a newer program than this one")]
    Newer { version: i64 },
    #[error("no thread for it: {0}")]
    Thread(#[from] std::io::Error),
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A handle; cheap to clone. The thread ends with the last one.
#[derive(Clone)]
pub struct Store {
    jobs: mpsc::SyncSender<Job>,
}

impl Store {
    /// Opens or creates the file and brings it to the present version.
    pub fn open(path: &Path) -> Result<Store, OpenError> {
        let mut connection = Connection::open(path)?;
        schema::migrate(&mut connection)?;
        let (jobs, queue) = mpsc::sync_channel::<Job>(QUEUE);
        let work = move || {
            for job in queue {
                job(&mut connection);
            }
        };
        std::thread::Builder::new().name("store".into()).spawn(work)?;
        Ok(Store { jobs })
    }

    /// Runs one transaction on the store's thread: committed when the job says Ok.
    async fn transact<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let result = (|| {
                let transaction = connection.transaction()?;
                let value = job(&transaction)?;
                transaction.commit()?;
                Ok(value)
            })();
            let _ = reply.send(result);
        });
        self.jobs.try_send(job).map_err(|_| StoreError::Unavailable)?;
        answer.await.map_err(|_| StoreError::Unavailable)?
    }

    /// Everything, as one batch for an empty directory.
    pub async fn load(&self) -> Result<Vec<DirectoryChange>, StoreError> {
        self.transact(|t| {
            let mut changes = Vec::new();
            let mut accounts = t.prepare("SELECT number, password, type, name, created_ms FROM account")?;
            for account in accounts.query_map([], read_account)? {
                changes.push(DirectoryChange::PutAccount(account?));
            }
            let mut groups = t.prepare("SELECT id, name, created_ms FROM sip_group")?;
            let ids = groups.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
            for id in ids {
                changes.extend(read_group(t, &id)?.map(DirectoryChange::PutGroup));
            }
            let mut doors = t.prepare("SELECT iot_id, number FROM door")?;
            for door in doors.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))? {
                let (iot_id, number) = door?;
                changes.push(DirectoryChange::PutDoor { iot_id, number: Number::new(&number) });
            }
            let mut rooms = t.prepare("SELECT iot_id, room, group_id FROM room")?;
            let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?));
            for room in rooms.query_map([], read)? {
                let (iot_id, room, group) = room?;
                changes.push(DirectoryChange::PutRoom { iot_id, room, group: Number::new(&group) });
            }
            changes.extend(access::load_access(t)?);
            Ok(changes)
        })
        .await
    }

    pub async fn account(&self, number: String) -> Result<Option<Account>, StoreError> {
        self.transact(move |t| Ok(find_account(t, &number)?)).await
    }

    /// All accounts by number, from one number on.
    pub async fn accounts(&self, after: String, limit: u32) -> Result<Vec<Account>, StoreError> {
        self.transact(move |t| {
            let mut query = t.prepare(
                "SELECT number, password, type, name, created_ms FROM account WHERE number > ?1 ORDER BY number LIMIT ?2",
            )?;
            let rows = query.query_map((after, limit), read_account)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// All groups by id, from one id on.
    pub async fn groups(&self, after: String, limit: u32) -> Result<Vec<Group>, StoreError> {
        self.transact(move |t| {
            let mut query = t.prepare("SELECT id FROM sip_group WHERE id > ?1 ORDER BY id LIMIT ?2")?;
            let ids = query.query_map((after, limit), |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
            let mut groups = Vec::new();
            for id in ids {
                groups.extend(read_group(t, &id)?);
            }
            Ok(groups)
        })
        .await
    }

    /// Appends an entry of the record.
    pub async fn record(&self, record: Record) -> Result<(), StoreError> {
        self.transact(move |t| {
            t.execute(
                "INSERT INTO record (account, road, door, call, reqsn, asked_ms, sent_ms, ended_ms, outcome, status, snapshot)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
                rusqlite::params![
                    record.account,
                    record.road,
                    record.door,
                    record.call,
                    record.reqsn,
                    record.asked_ms,
                    record.sent_ms,
                    record.ended_ms,
                    record.outcome,
                    record.status,
                    record.snapshot
                ],
            )?;
            Ok(())
        })
        .await
    }

    /// Entries of the record below an id, newest first; of one door if given.
    pub async fn records(&self, before: i64, limit: u32, door: Option<String>) -> Result<Vec<Record>, StoreError> {
        self.transact(move |t| {
            let mut query = t.prepare(
                "SELECT r.id, account, road, r.door, r.call, reqsn, asked_ms, sent_ms, ended_ms, outcome, status, s.id, s.sha256
                 FROM record r LEFT JOIN snapshot s ON s.id = r.snapshot
                 WHERE r.id < ?1 AND (?2 IS NULL OR r.door = ?2) ORDER BY r.id DESC LIMIT ?3",
            )?;
            let read = |row: &Row<'_>| {
                Ok(Record {
                    id: row.get(0)?,
                    account: row.get(1)?,
                    road: row.get(2)?,
                    door: row.get(3)?,
                    call: row.get(4)?,
                    reqsn: row.get(5)?,
                    asked_ms: row.get(6)?,
                    sent_ms: row.get(7)?,
                    ended_ms: row.get(8)?,
                    outcome: row.get(9)?,
                    status: row.get(10)?,
                    snapshot: row.get(11)?,
                    snapshot_sha256: row.get(12)?,
                })
            };
            Ok(query.query_map((before, door, limit), read)?.collect::<Result<_, _>>()?)
        })
        .await
    }

    pub async fn group(&self, id: String) -> Result<Option<Group>, StoreError> {
        self.transact(move |t| Ok(read_group(t, &id)?)).await
    }

    /// The accounts of a group in order. `NotFound`: no such group.
    pub async fn members(&self, id: String) -> Result<Vec<Account>, StoreError> {
        self.transact(move |t| {
            let group = read_group(t, &id)?.ok_or_else(|| StoreError::NotFound(format!("group {id} does not exist")))?;
            let mut members = Vec::new();
            for number in &group.members {
                members.extend(find_account(t, number.as_str())?);
            }
            Ok(members)
        })
        .await
    }
}

fn read_account(row: &Row<'_>) -> rusqlite::Result<Account> {
    Ok(Account {
        number: Number::new(&row.get::<_, String>(0)?),
        password: Secret::new(&row.get::<_, String>(1)?),
        kind: if row.get::<_, i64>(2)? == 1 { AccountType::Door } else { AccountType::App },
        name: row.get(3)?,
        created_ms: row.get(4)?,
    })
}

fn find_account(t: &Transaction<'_>, number: &str) -> rusqlite::Result<Option<Account>> {
    let mut query = t.prepare_cached("SELECT number, password, type, name, created_ms FROM account WHERE number = ?1")?;
    query.query_row([number], read_account).optional()
}

fn read_group(t: &Transaction<'_>, id: &str) -> rusqlite::Result<Option<Group>> {
    let mut query = t.prepare_cached("SELECT name, created_ms FROM sip_group WHERE id = ?1")?;
    let found = query.query_row([id], |row| Ok((row.get::<_, Option<String>>(0)?, row.get::<_, i64>(1)?))).optional()?;
    let Some((name, created_ms)) = found else { return Ok(None) };
    let mut query = t.prepare_cached("SELECT number FROM member WHERE group_id = ?1 ORDER BY position")?;
    let numbers = query.query_map([id], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    let members = numbers.iter().map(|number| Number::new(number)).collect();
    Ok(Some(Group { id: Number::new(id), members, name, created_ms }))
}
