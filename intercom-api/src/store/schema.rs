//! The tables, as forward-only migrations: `user_version` counts those that ran.

use super::OpenError;
use super::seal::{self, Seal};
use rusqlite::Connection;

/// One script per version; a released one is never changed.
const MIGRATIONS: &[&str] = &[
    // 1: accounts, groups, doors and their maps. Passwords are kept readable, because the API returns them to their owner; since
    // version 8 they are sealed.
    "CREATE TABLE account (
        number TEXT PRIMARY KEY, password TEXT NOT NULL, type INTEGER NOT NULL CHECK (type IN (0, 1)),
        name TEXT, created_ms INTEGER NOT NULL
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE sip_group (id TEXT PRIMARY KEY, name TEXT, created_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
     CREATE TABLE member (
        group_id TEXT NOT NULL REFERENCES sip_group (id) ON DELETE CASCADE,
        number TEXT NOT NULL REFERENCES account (number) ON DELETE CASCADE,
        position INTEGER NOT NULL, PRIMARY KEY (group_id, number)
     ) STRICT, WITHOUT ROWID;
     CREATE INDEX member_number ON member (number);
     CREATE TABLE door (
        iot_id TEXT PRIMARY KEY, number TEXT NOT NULL REFERENCES account (number) ON DELETE CASCADE,
        password TEXT NOT NULL, host TEXT NOT NULL, port TEXT NOT NULL
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE room (
        iot_id TEXT NOT NULL, room TEXT NOT NULL, group_id TEXT NOT NULL REFERENCES sip_group (id) ON DELETE CASCADE,
        PRIMARY KEY (iot_id, room)
     ) STRICT, WITHOUT ROWID;
     CREATE INDEX room_group ON room (group_id);",
    // 2: who wished which door open, and how it ended. No foreign keys: an entry outlives the account.
    "CREATE TABLE record (
        id INTEGER PRIMARY KEY, account TEXT NOT NULL, road TEXT NOT NULL, door TEXT NOT NULL, call TEXT NOT NULL,
        reqsn INTEGER NOT NULL, asked_ms INTEGER NOT NULL, sent_ms INTEGER, ended_ms INTEGER NOT NULL,
        outcome TEXT NOT NULL, status INTEGER NOT NULL
     ) STRICT;
     CREATE INDEX record_door ON record (door, id);",
    // 3: who is reachable where over UDP (D-10). Rows are numbered as accounts come, not by account: phones refresh in the order
    // in which they came, so a batch of writes touches few pages. No foreign key: what the account says now is asked at start.
    "CREATE TABLE binding (
        id INTEGER PRIMARY KEY, number TEXT NOT NULL, made_with INTEGER NOT NULL, contact TEXT NOT NULL, instance TEXT,
        reg_id INTEGER, path TEXT, local TEXT NOT NULL, remote TEXT NOT NULL, call_id TEXT NOT NULL, cseq INTEGER NOT NULL,
        user_agent TEXT, registered_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL
     ) STRICT;",
    // 4: pictures. What an entry of the record names is known by its id before the picture is made; a picture without a file is
    // deleted, and its hash stays for the entry.
    "CREATE TABLE snapshot (
        id TEXT NOT NULL UNIQUE, call TEXT NOT NULL, door TEXT NOT NULL, why TEXT NOT NULL, preset TEXT NOT NULL,
        taken_ms INTEGER NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL, bytes INTEGER NOT NULL,
        sha256 TEXT NOT NULL, file TEXT
     ) STRICT;
     CREATE INDEX snapshot_call ON snapshot (call);
     CREATE INDEX snapshot_age ON snapshot (taken_ms) WHERE file IS NOT NULL;
     ALTER TABLE record ADD COLUMN snapshot TEXT;
     CREATE INDEX record_snapshot ON record (snapshot) WHERE snapshot IS NOT NULL;",
    // 5: limits of opening, of accounts and doors, and how a door is told (D-23, D-26). A row only where something is set.
    "CREATE TABLE access (
        number TEXT PRIMARY KEY REFERENCES account (number) ON DELETE CASCADE, disabled INTEGER NOT NULL, hours TEXT NOT NULL,
        profile TEXT, star TEXT, keys TEXT, ringback INTEGER, key_frame TEXT
     ) STRICT, WITHOUT ROWID;",
    // 6: the record as a chain (D-29). `entry` is what counts; `record`, `watched` and `snapshot` follow from it, see [`super::chain`].
    // What is there becomes its beginning when the store is opened.
    "CREATE TABLE entry (
        id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, content TEXT NOT NULL, hash BLOB NOT NULL
     ) STRICT;
     CREATE TABLE mark (
        name TEXT PRIMARY KEY, id INTEGER NOT NULL, hash BLOB NOT NULL, at_ms INTEGER NOT NULL, mac BLOB NOT NULL
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE watched (
        id INTEGER PRIMARY KEY, account TEXT NOT NULL, door TEXT NOT NULL, room TEXT NOT NULL, call TEXT NOT NULL,
        from_ms INTEGER NOT NULL, to_ms INTEGER NOT NULL, talked INTEGER NOT NULL
     ) STRICT;
     CREATE INDEX watched_call ON watched (call);
     CREATE INDEX watched_account ON watched (account, id);
     ALTER TABLE record ADD COLUMN room TEXT NOT NULL DEFAULT '';
     ALTER TABLE record ADD COLUMN reason TEXT;
     ALTER TABLE record ADD COLUMN late_outcome TEXT;
     ALTER TABLE record ADD COLUMN late_status INTEGER;
     ALTER TABLE record ADD COLUMN late_ms INTEGER;
     CREATE INDEX record_account ON record (account, id);
     CREATE INDEX record_room ON record (room, id);
     CREATE INDEX record_sent ON record (door, sent_ms);
     CREATE INDEX record_open ON record (asked_ms) WHERE outcome = 'asked';",
    // 7: whose everything is (spec admin-api.md §2.1), what a door unit is called beside its `iotId`, house spaces, and tokens of
    // communities (a hash only). What was there belongs to the installation itself.
    "ALTER TABLE account ADD COLUMN app TEXT NOT NULL DEFAULT '';
     CREATE INDEX account_app ON account (app, number);
     ALTER TABLE sip_group ADD COLUMN app TEXT NOT NULL DEFAULT '';
     CREATE INDEX group_app ON sip_group (app, id);
     ALTER TABLE door ADD COLUMN app TEXT NOT NULL DEFAULT '';
     ALTER TABLE door ADD COLUMN product_key TEXT;
     ALTER TABLE door ADD COLUMN device_name TEXT;
     ALTER TABLE door ADD COLUMN nick_name TEXT;
     CREATE INDEX door_number ON door (number);
     CREATE TABLE space (
        space_id TEXT PRIMARY KEY, group_id TEXT NOT NULL REFERENCES sip_group (id) ON DELETE CASCADE,
        room TEXT NOT NULL, app TEXT NOT NULL
     ) STRICT, WITHOUT ROWID;
     CREATE INDEX space_group ON space (group_id);
     CREATE TABLE community (
        id INTEGER PRIMARY KEY, app TEXT NOT NULL, token_sha256 BLOB, expires_ms INTEGER NOT NULL
     ) STRICT;
     CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;",
    // 8: passwords are sealed, see [`super::seal`]; [`SEAL`] follows. The app of the API that is made where none is set.
    "ALTER TABLE account ADD COLUMN sealed BLOB NOT NULL DEFAULT x'';
     ALTER TABLE door ADD COLUMN sealed BLOB NOT NULL DEFAULT x'';
     CREATE TABLE app (key TEXT PRIMARY KEY, secret BLOB NOT NULL) STRICT, WITHOUT ROWID;",
    // 9: events and passages as they were told (code 0: a passage), receivers of them and what could not be delivered. Nothing
    // refers to an account: what was told stays told.
    "CREATE TABLE event (
        id INTEGER PRIMARY KEY, code INTEGER NOT NULL, at_ms INTEGER NOT NULL, app TEXT NOT NULL, body TEXT NOT NULL
     ) STRICT;
     CREATE INDEX event_passage ON event (id) WHERE code = 0;
     CREATE TABLE hook (
        id TEXT PRIMARY KEY, app TEXT NOT NULL, url TEXT NOT NULL, secret BLOB NOT NULL, events TEXT NOT NULL,
        enabled INTEGER NOT NULL, origin TEXT NOT NULL, created_ms INTEGER NOT NULL, cursor INTEGER NOT NULL
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE dead (
        hook TEXT NOT NULL REFERENCES hook (id) ON DELETE CASCADE, event INTEGER NOT NULL, at_ms INTEGER NOT NULL,
        reason TEXT NOT NULL, body TEXT NOT NULL, again INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (hook, event)
     ) STRICT, WITHOUT ROWID;",
];

/// The second half of version 8, when the new columns are filled.
const SEAL: &str = "ALTER TABLE account DROP COLUMN password; ALTER TABLE account RENAME COLUMN sealed TO password;
     ALTER TABLE door DROP COLUMN password; ALTER TABLE door RENAME COLUMN sealed TO password;";

/// Bytes of the write-ahead log that stay when all of it is in the database.
const LOG_SIZE: i64 = 16 << 20;

/// From this version on a database belongs to one key.
pub const SEALED_SINCE: i64 = 8;

/// The version these make.
pub const VERSION: i64 = MIGRATIONS.len() as i64;

/// How the store's own connection works.
pub fn prepare(connection: &Connection) -> Result<(), OpenError> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > VERSION {
        return Err(OpenError::Newer { version });
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // After a large write, or while somebody read for long, the log is large; it need not stay so.
    connection.pragma_update(None, "journal_size_limit", LOG_SIZE)?;
    Ok(())
}

/// What is wrong with the file, if anything is. Rows that lead nowhere are told but stop nobody: doors must open.
pub fn damage(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Ok(Some(found.trim().to_owned()));
    }
    let mut query = connection.prepare("PRAGMA foreign_key_check")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (table, parent): (String, String) = (row.get(0)?, row.get(2)?);
        tracing::error!(table, parent, "a row names another that is not there; `doorline export` shows what there is");
    }
    Ok(None)
}

/// Brings a database to the present version.
pub fn migrate(connection: &mut Connection, seal: &Seal) -> Result<(), OpenError> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    for (number, script) in (1i64..).zip(MIGRATIONS).filter(|(number, _)| *number > version) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(script)?;
        if number == SEALED_SINCE {
            seal::seal_clear_text(&transaction, seal)?;
            transaction.execute_batch(SEAL)?;
        }
        transaction.pragma_update(None, "user_version", number)?;
        transaction.commit()?;
    }
    Ok(())
}
