//! The tables, as forward-only migrations: `user_version` counts those that ran.

use super::OpenError;
use rusqlite::Connection;

/// One script per version; a released one is never changed.
const MIGRATIONS: &[&str] = &[
    // 1: accounts, groups, doors and their maps. Passwords are kept readable, because the API returns them to their owner;
    // encryption at rest comes with the API issue.
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
    // Limits of opening, of accounts and doors, and how a door is told (D-23, D-26). A row only where something is set.
    "CREATE TABLE access (
        number TEXT PRIMARY KEY REFERENCES account (number) ON DELETE CASCADE, disabled INTEGER NOT NULL, hours TEXT NOT NULL,
        profile TEXT, star TEXT, keys TEXT, ringback INTEGER, key_frame TEXT
     ) STRICT, WITHOUT ROWID;",
];

/// Brings a database to the present version. An error: it is newer than this program, or broken.
pub fn migrate(connection: &mut Connection) -> Result<(), OpenError> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version > MIGRATIONS.len() as i64 {
        return Err(OpenError::Newer { version });
    }
    for (number, script) in (1i64..).zip(MIGRATIONS).filter(|(number, _)| *number > version) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(script)?;
        transaction.pragma_update(None, "user_version", number)?;
        transaction.commit()?;
    }
    Ok(())
}
