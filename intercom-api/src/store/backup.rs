//! `doorline backup`: a whole copy of the database as it was at one moment, while the server runs. It is read through a connection of
//! its own, so the server writes on.

use super::schema;
use anyhow::{Context, bail, ensure};
use rusqlite::{Connection, OpenFlags};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Copies it to `file`, which must not be there yet and has its name only when it is whole. Its size in bytes.
pub fn backup(database: &Path, file: &Path) -> anyhow::Result<u64> {
    ensure!(!file.exists(), "{} is there already", file.display());
    let source = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let draft = file.with_added_extension("draft");
    match copy(&source, &draft) {
        Ok(size) => {
            crate::keyfile::rename(&draft, file).with_context(|| file.display().to_string())?;
            Ok(size)
        }
        Err(error) => {
            let _ = fs::remove_file(&draft);
            Err(error)
        }
    }
}

/// SQLite fills an empty file that is there: so it is its owner's alone from the beginning.
fn copy(source: &Connection, draft: &Path) -> anyhow::Result<u64> {
    let name = || draft.display().to_string();
    let made = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(draft).with_context(name)?;
    let path = draft.to_str().context("the name of the file is not UTF-8")?;
    source.execute("VACUUM INTO ?1", [path]).with_context(name)?;
    let copy = Connection::open_with_flags(draft, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    if let Some(why) = schema::damage(&copy)? {
        bail!("the copy is damaged: {why}");
    }
    drop(copy);
    File::open(draft)?.sync_all()?;
    Ok(made.metadata()?.len())
}
