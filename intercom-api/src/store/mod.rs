//! The store: SQLite on a thread of its own, and the only SQL. Every API write is one transaction; what it means for the
//! Switchboard comes back as [`DirectoryChange`]s.

#![allow(clippy::disallowed_methods)] // a shell: owns a thread and a file

mod access;
mod apps;
pub mod backup;
mod bindings;
mod chain;
mod change;
mod communities;
mod devices;
mod events;
pub mod exchange;
mod hooks;
mod import;
mod key;
mod lists;
mod records;
mod schema;
mod seal;
mod snapshots;
mod spaces;
mod units;
pub mod verify;
mod write;

pub use access::{AccessPatch, way_name, way_named};
pub use apps::new_app;
pub use change::{AccountPatch, GroupPatch};
pub use communities::TOKEN_MS;
pub use devices::{Device, DeviceKey, DeviceNames};
pub use events::WantedPassages;
pub use hooks::{Configured, Dead, Hook, Origin, new_hook_id};
pub use import::{Imported, import};
pub use key::{KeyError, SECRETS_FILE, rotate};
pub use lists::{AccountsWanted, DoorsWanted, GroupsWanted};
pub use snapshots::{BY_RETENTION, ON_REQUEST};
pub use spaces::Space;
pub use units::{DoorUnit, RoomFilter};
pub use write::{MAX_MEMBERS, NewAccount};

use crate::keyfile::Key;
use crate::model::{Account, AccountType, App, DirectoryChange, Group, Number, Secret, Tenant};
use crate::unlock::hours::Hours;
use chain::{RecordKey, Writer};
use rusqlite::{Connection, OptionalExtension, Row, Transaction};
use seal::{Seal, Tx};
use std::path::Path;
use std::sync::{Arc, mpsc};
use tokio::sync::oneshot;

/// Jobs that may wait for the thread.
const QUEUE: usize = 256;

/// What [`StoreError::NotFound`] says of an unknown SIP number (spec admin-api.md §2.3).
pub const NO_ACCOUNT: &str = "SYS_0002";

/// Why a write did not happen; nothing of it did.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    Invalid(String),
    /// It belongs to somebody else.
    #[error("{0} belongs to another application")]
    Forbidden(String),
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
    #[error("the record: {0}")]
    Record(#[from] StoreError),
    #[error("the key of the record: {0}")]
    Key(std::io::Error),
    #[error(transparent)]
    Secrets(#[from] KeyError),
    #[error(
        "{path} is damaged ({why}). Keep a copy of it and put the last backup in its place, without {path}-wal and {path}-shm, \
         beside the secrets.key and records.key of that time"
    )]
    Damaged { path: String, why: String },
    #[error("no thread for it: {0}")]
    Thread(std::io::Error),
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

/// A handle; cheap to clone. The thread ends with the last one.
#[derive(Clone)]
pub struct Store {
    jobs: mpsc::SyncSender<Job>,
    key: RecordKey,
    seal: Arc<Seal>,
    /// Most members of one group.
    group_members: usize,
}

/// Beside the database: signs the record (D-29).
pub const KEY_FILE: &str = "records.key";

impl Store {
    /// Opens or creates the file and brings it to the present version; its secrets are sealed with the key in [`SECRETS_FILE`].
    pub fn open(path: &Path) -> Result<Store, OpenError> {
        Store::open_with(path, None)
    }

    /// The same with the key of secrets, if it is not in that file.
    pub fn open_with(path: &Path, secrets: Option<&Key>) -> Result<Store, OpenError> {
        let (mut connection, seal) = open(path, secrets)?;
        let (key, key_was_there) = RecordKey::read_or_make(&path.with_file_name(KEY_FILE)).map_err(OpenError::Key)?;
        durably(&mut connection, &seal, |t| chain::begin(t, key, key_was_there))?;
        let (jobs, queue) = mpsc::sync_channel::<Job>(QUEUE);
        let work = move || {
            step_back();
            for job in queue {
                job(&mut connection);
            }
        };
        std::thread::Builder::new().name("store".into()).spawn(work).map_err(OpenError::Thread)?;
        Ok(Store { jobs, key, seal: Arc::new(seal), group_members: write::GROUP_MEMBERS })
    }

    /// The same store with another limit (`api.group_members`).
    pub fn with_group_members(self, most: usize) -> Store {
        Store { group_members: most, ..self }
    }

    /// Runs one transaction on the store's thread: committed when the job says Ok.
    async fn transact<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let seal = self.seal.clone();
        self.run(move |connection| committed(connection, &seal, job)).await
    }

    /// The same for what goes into the record: when this returns it outlives a power cut.
    async fn chained<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Writer<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (key, seal) = (self.key, self.seal.clone());
        let job = move |t: &Tx<'_>| {
            let mut writer = Writer::new(t, key)?;
            let value = job(&mut writer)?;
            writer.finish()?;
            Ok(value)
        };
        self.run(move |connection| durably(connection, &seal, job)).await
    }

    /// At the end of the server: what is in the log goes into the database, so that one file is all of it.
    pub async fn settle(&self) {
        let settled = self.run(|connection| Ok(seal::truncate_log(connection)?)).await;
        if let Err(error) = settled {
            tracing::warn!(%error, "the log of the database stays; the next start reads it");
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let _ = reply.send(job(connection));
        });
        self.jobs.try_send(job).map_err(|_| StoreError::Unavailable)?;
        answer.await.map_err(|_| StoreError::Unavailable)?
    }

    /// Everything, as one batch for an empty directory.
    pub async fn load(&self) -> Result<Vec<DirectoryChange>, StoreError> {
        self.transact(|t| {
            let mut changes = Vec::new();
            let mut accounts = t.prepare(&format!("SELECT {ACCOUNT} FROM account"))?;
            for account in accounts.query_map([], |row| read_account(t, row))? {
                changes.push(DirectoryChange::PutAccount(account?));
            }
            let mut groups = t.prepare("SELECT id FROM sip_group")?;
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

    /// `NotFound` with the code of spec admin-api.md §2.3: no such account.
    pub async fn account(&self, tenant: Tenant, number: String) -> Result<Account, StoreError> {
        self.transact(move |t| own_account(t, &tenant, &number)).await
    }

    /// `NotFound`: no such group.
    pub async fn group(&self, tenant: Tenant, id: String) -> Result<Group, StoreError> {
        self.transact(move |t| own_group(t, &tenant, &id)).await
    }

    /// The accounts of a group in order. `NotFound`: no such group.
    pub async fn members(&self, tenant: Tenant, id: String) -> Result<Vec<Account>, StoreError> {
        self.transact(move |t| {
            let group = own_group(t, &tenant, &id)?;
            let mut members = Vec::new();
            for number in &group.members {
                members.extend(find_account(t, number.as_str())?);
            }
            Ok(members)
        })
        .await
    }
}

/// For threads that serve the API: where the core is short, packets and signalling have it first, or phones would notice every
/// large import of a platform. (A thread's own on Linux; where it is refused, all are equal.)
pub fn step_back() {
    let _ = rustix::process::setpriority_process(None, 10);
}

/// A connection that is ready for work: the file whole, its key the right one, of the present version.
fn open(path: &Path, secrets: Option<&Key>) -> Result<(Connection, Seal), OpenError> {
    let damaged = |why: String| OpenError::Damaged { path: path.display().to_string(), why };
    let prepared = || {
        let mut connection = Connection::open(path)?;
        schema::prepare(&connection)?;
        if let Some(why) = schema::damage(&connection)? {
            return Err(damaged(why));
        }
        let seal = key::find(&connection, path, secrets)?;
        schema::migrate(&mut connection, &seal)?;
        if let Err(error) = seal::wipe(&connection) {
            tracing::warn!(%error, "what was rewritten is still in free pages of the database; the next start tries again");
        }
        Ok((connection, seal))
    };
    prepared().map_err(|error| match error {
        OpenError::Sqlite(error) if is_damage(&error) => damaged(error.to_string()),
        OpenError::Secrets(KeyError::Sqlite(error)) if is_damage(&error) => damaged(error.to_string()),
        error => error,
    })
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase))
}

fn committed<T>(
    connection: &mut Connection,
    seal: &Seal,
    job: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let t = Tx { transaction: connection.transaction()?, seal };
    let value = job(&t)?;
    t.transaction.commit()?;
    Ok(value)
}

/// Waits for the disk; other commits outlive the process, but perhaps not the power (`synchronous`, see [`schema`]).
fn durably<T>(
    connection: &mut Connection,
    seal: &Seal,
    job: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    connection.pragma_update(None, "synchronous", "FULL")?;
    let result = committed(connection, seal, job);
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    result
}

/// What [`read_account`] reads.
const ACCOUNT: &str = "number, password, type, name, created_ms, app";

fn read_account(t: &Tx<'_>, row: &Row<'_>) -> rusqlite::Result<Account> {
    let number = Number::new(row.get_ref(0)?.as_str()?);
    Ok(Account {
        password: t.open(&whose_account(number.as_str()), row.get_ref(1)?.as_blob()?)?,
        number,
        kind: if row.get::<_, i64>(2)? == 1 { AccountType::Door } else { AccountType::App },
        name: row.get(3)?,
        created_ms: row.get(4)?,
        app: App::from(row.get::<_, String>(5)?),
    })
}

/// As its password is sealed, see [`Tx::seal`].
fn whose_account(number: &str) -> String {
    format!("account:{number}")
}

/// As the password of a door unit is sealed.
fn whose_door(iot_id: &str) -> String {
    format!("door:{iot_id}")
}

/// An account of this tenant. `NotFound` has the code of spec admin-api.md §2.3.
fn own_account(t: &Tx<'_>, tenant: &Tenant, number: &str) -> Result<Account, StoreError> {
    let account = find_account(t, number)?.ok_or_else(|| StoreError::NotFound(NO_ACCOUNT.into()))?;
    if tenant.may(&account.app) { Ok(account) } else { Err(StoreError::Forbidden(format!("account {number}"))) }
}

/// A group of this tenant.
fn own_group(t: &Tx<'_>, tenant: &Tenant, id: &str) -> Result<Group, StoreError> {
    let group = read_group(t, id)?.ok_or_else(|| StoreError::NotFound(format!("group {id} does not exist")))?;
    if tenant.may(&group.app) { Ok(group) } else { Err(StoreError::Forbidden(format!("group {id}"))) }
}

fn find_account(t: &Tx<'_>, number: &str) -> rusqlite::Result<Option<Account>> {
    let mut query = t.prepare_cached(&format!("SELECT {ACCOUNT} FROM account WHERE number = ?1"))?;
    query.query_row([number], |row| read_account(t, row)).optional()
}

fn read_group(t: &Transaction<'_>, id: &str) -> rusqlite::Result<Option<Group>> {
    let mut query = t.prepare_cached("SELECT name, created_ms, app FROM sip_group WHERE id = ?1")?;
    let read = |row: &Row<'_>| Ok((row.get::<_, Option<String>>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?));
    let Some((name, created_ms, app)) = query.query_row([id], read).optional()? else { return Ok(None) };
    let mut query = t.prepare_cached("SELECT number FROM member WHERE group_id = ?1 ORDER BY position")?;
    let numbers = query.query_map([id], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    let members = numbers.iter().map(|number| Number::new(number)).collect();
    Ok(Some(Group { id: Number::new(id), members, name, created_ms, app: App::from(app) }))
}
