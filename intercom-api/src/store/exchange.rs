//! What is provisioned, as JSON lines: `doorline export` and, in [`super::import`], `import`. The first line says what the file is;
//! what a line names comes before it.

use super::{OpenError, key, schema};
use crate::keyfile::Key;
use crate::unlock::hours::Hours;
use anyhow::Context;
use rusqlite::{Connection, OpenFlags, Row, Transaction};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::Path;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Line {
    DoorlineExport {
        version: u32,
    },
    Account {
        number: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        password: Option<String>,
        r#type: i64,
        name: Option<String>,
        created_ms: i64,
        #[serde(default)]
        app: String,
    },
    Group {
        id: String,
        members: Vec<String>,
        name: Option<String>,
        created_ms: i64,
        #[serde(default)]
        app: String,
    },
    /// What a door unit was issued (`sipnumber/sync`).
    Unit {
        iot_id: String,
        number: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        password: Option<String>,
        host: String,
        port: String,
        #[serde(default)]
        app: String,
        product_key: Option<String>,
        device_name: Option<String>,
        nick_name: Option<String>,
    },
    Room {
        iot_id: String,
        room: String,
        group: String,
    },
    Space {
        space_id: String,
        group: String,
        room: String,
        #[serde(default)]
        app: String,
    },
    Access(Limits),
}

/// Who may open when, and how a door is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub number: String,
    pub disabled: bool,
    pub hours: Hours,
    pub profile: Option<String>,
    /// The code that opens the door: left out with the passwords.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<String>,
    pub ringback: Option<bool>,
    pub key_frame: Option<String>,
    pub star: Option<String>,
}

/// Of the format.
pub(super) const VERSION: u32 = 1;

/// Writes everything that is provisioned as it is at one moment, also while the server runs. How many lines.
pub fn export(database: &Path, secrets: Option<&Key>, passwords: bool, out: &mut impl Write) -> anyhow::Result<usize> {
    let mut connection = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let t = connection.transaction()?;
    let version: i64 = t.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    anyhow::ensure!(
        version == schema::VERSION,
        "it is of version {version}, this program's is {}: start the server once",
        schema::VERSION
    );
    let seal = key::read_only(&t, database, secrets).map_err(OpenError::from)?;
    let mut count = 0;
    let mut write = |line: Line| -> anyhow::Result<()> {
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n").context("the export")?;
        count += 1;
        Ok(())
    };
    let open = |whose: String, sealed: Vec<u8>| -> anyhow::Result<Option<String>> {
        Ok(if passwords { Some(seal.open(&whose, &sealed)?.reveal().to_owned()) } else { None })
    };
    write(Line::DoorlineExport { version: VERSION })?;
    each(&t, "SELECT number, password, type, name, created_ms, app FROM account ORDER BY number", |row| {
        let number: String = row.get(0)?;
        let password = open(format!("account:{number}"), row.get(1)?)?;
        write(Line::Account {
            number,
            password,
            r#type: row.get(2)?,
            name: row.get(3)?,
            created_ms: row.get(4)?,
            app: row.get(5)?,
        })
    })?;
    each(&t, "SELECT id, name, created_ms, app FROM sip_group ORDER BY id", |row| {
        let id: String = row.get(0)?;
        let members = members(&t, &id)?;
        write(Line::Group { id, members, name: row.get(1)?, created_ms: row.get(2)?, app: row.get(3)? })
    })?;
    let units = "SELECT iot_id, number, password, host, port, app, product_key, device_name, nick_name FROM door ORDER BY iot_id";
    each(&t, units, |row| {
        let iot_id: String = row.get(0)?;
        write(Line::Unit {
            number: row.get(1)?,
            password: open(format!("door:{iot_id}"), row.get(2)?)?,
            iot_id,
            host: row.get(3)?,
            port: row.get(4)?,
            app: row.get(5)?,
            product_key: row.get(6)?,
            device_name: row.get(7)?,
            nick_name: row.get(8)?,
        })
    })?;
    each(&t, "SELECT iot_id, room, group_id FROM room ORDER BY iot_id, room", |row| {
        write(Line::Room { iot_id: row.get(0)?, room: row.get(1)?, group: row.get(2)? })
    })?;
    each(&t, "SELECT space_id, group_id, room, app FROM space ORDER BY space_id", |row| {
        write(Line::Space { space_id: row.get(0)?, group: row.get(1)?, room: row.get(2)?, app: row.get(3)? })
    })?;
    each(&t, &format!("SELECT {LIMITS} FROM access ORDER BY number"), |row| {
        let limits = read_limits(row)?;
        write(Line::Access(if passwords { limits } else { Limits { keys: None, ..limits } }))
    })?;
    Ok(count)
}

fn each(t: &Transaction<'_>, sql: &str, mut with: impl FnMut(&Row<'_>) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut query = t.prepare(sql)?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        with(row)?;
    }
    Ok(())
}

pub(super) fn members(t: &Transaction<'_>, group: &str) -> rusqlite::Result<Vec<String>> {
    let mut query = t.prepare_cached("SELECT number FROM member WHERE group_id = ?1 ORDER BY position")?;
    query.query_map([group], |row| row.get(0))?.collect()
}

/// What [`read_limits`] reads.
pub(super) const LIMITS: &str = "number, disabled, hours, profile, keys, ringback, key_frame, star";

pub(super) fn read_limits(row: &Row<'_>) -> rusqlite::Result<Limits> {
    let hours = serde_json::from_str(row.get_ref(2)?.as_str()?);
    let hours =
        hours.map_err(|error| rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Text, Box::new(error)))?;
    Ok(Limits {
        number: row.get(0)?,
        disabled: row.get(1)?,
        hours,
        profile: row.get(3)?,
        keys: row.get(4)?,
        ringback: row.get(5)?,
        key_frame: row.get(6)?,
        star: row.get(7)?,
    })
}
