//! Which pictures there are: their facts here and in the chain, the pictures themselves in files.

use super::chain::{Content, Writer};
use super::*;
use crate::pictures::Snapshot;

const COLUMNS: &str = "id, call, door, why, preset, taken_ms, width, height, bytes, sha256, file";

impl Store {
    /// A picture whose file is there.
    pub async fn add_snapshot(&self, new: Snapshot) -> Result<(), StoreError> {
        self.chained(move |writer| {
            writer.add(&content(&new))?;
            writer.t.execute(
                &format!("INSERT INTO snapshot ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"),
                rusqlite::params![
                    new.id,
                    new.call,
                    new.door,
                    new.why,
                    new.preset,
                    new.taken_at_ms,
                    new.width,
                    new.height,
                    new.bytes,
                    new.sha256,
                    new.file
                ],
            )?;
            Ok(())
        })
        .await
    }

    pub async fn snapshot(&self, id: String) -> Result<Option<Snapshot>, StoreError> {
        self.transact(move |t| {
            let sql = format!("SELECT {COLUMNS} FROM snapshot WHERE id = ?1");
            Ok(t.query_row(&sql, [id], read_snapshot).optional()?)
        })
        .await
    }

    /// Those of a call whose files are there, newest first.
    pub async fn snapshots_of_call(&self, call: String) -> Result<Vec<Snapshot>, StoreError> {
        self.transact(move |t| {
            let sql =
                format!("SELECT {COLUMNS} FROM snapshot WHERE call = ?1 AND file IS NOT NULL ORDER BY taken_ms DESC, rowid DESC");
            let mut query = t.prepare_cached(&sql)?;
            Ok(query.query_map([call], read_snapshot)?.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The picture of an entry of the record; its `file` is none once it is deleted.
    pub async fn snapshot_of_record(&self, record: i64) -> Result<Option<Snapshot>, StoreError> {
        self.transact(move |t| {
            let sql = format!("SELECT {COLUMNS} FROM snapshot WHERE id = (SELECT snapshot FROM record WHERE id = ?1)");
            Ok(t.query_row(&sql, [record], read_snapshot).optional()?)
        })
        .await
    }

    /// Those whose files are there, oldest first: all taken before a time.
    pub async fn oldest_snapshots(&self, before_ms: i64, limit: u32) -> Result<Vec<Snapshot>, StoreError> {
        self.transact(move |t| {
            let sql = format!(
                "SELECT {COLUMNS} FROM snapshot WHERE file IS NOT NULL AND taken_ms < ?1 ORDER BY taken_ms, rowid LIMIT ?2"
            );
            Ok(t.prepare(&sql)?.query_map((before_ms, limit), read_snapshot)?.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Bytes of all files that are there.
    pub async fn snapshot_bytes(&self) -> Result<i64, StoreError> {
        self.transact(|t| {
            Ok(t.query_row("SELECT coalesce(sum(bytes), 0) FROM snapshot WHERE file IS NOT NULL", [], |row| row.get(0))?)
        })
        .await
    }

    /// Their files are gone. What an entry of the record names keeps its hash.
    pub async fn forget_snapshots(&self, ids: Vec<String>, why: &'static str) -> Result<(), StoreError> {
        self.chained(move |writer| {
            let mut erase = writer
                .t
                .prepare("DELETE FROM snapshot WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM record WHERE snapshot = ?1)")?;
            let mut empty = writer.t.prepare("UPDATE snapshot SET file = NULL WHERE id = ?1")?;
            for id in &ids {
                if erase.execute([id])? == 0 {
                    empty.execute([id])?;
                }
            }
            writer.add(&Content::Deleted { pictures: ids, why: why.to_owned() })
        })
        .await
    }
}

/// [`Store::forget_snapshots`]: somebody wished it, or they were too old or too many.
pub const ON_REQUEST: &str = "request";
pub const BY_RETENTION: &str = "retention";

/// Those an older version has left.
pub(super) fn import(writer: &mut Writer<'_>) -> Result<(), StoreError> {
    let snapshots = all(writer.t)?;
    for snapshot in &snapshots {
        writer.add(&content(snapshot))?;
    }
    let gone: Vec<String> = snapshots.into_iter().filter(|s| s.file.is_none()).map(|s| s.id).collect();
    if gone.is_empty() { Ok(()) } else { writer.add(&Content::Deleted { pictures: gone, why: BY_RETENTION.to_owned() }) }
}

pub(super) fn all(c: &Connection) -> rusqlite::Result<Vec<Snapshot>> {
    c.prepare(&format!("SELECT {COLUMNS} FROM snapshot ORDER BY rowid"))?.query_map([], read_snapshot)?.collect()
}

pub(super) fn content(new: &Snapshot) -> Content {
    let Snapshot { id, call, door, why, preset, taken_at_ms, width, height, bytes, sha256, .. } = new.clone();
    Content::Picture { picture: id, call, door, why, preset, taken_ms: taken_at_ms, width, height, bytes, sha256 }
}

fn read_snapshot(row: &Row<'_>) -> rusqlite::Result<Snapshot> {
    Ok(Snapshot {
        id: row.get(0)?,
        call: row.get(1)?,
        door: row.get(2)?,
        why: row.get(3)?,
        preset: row.get(4)?,
        taken_at_ms: row.get(5)?,
        width: row.get(6)?,
        height: row.get(7)?,
        bytes: row.get(8)?,
        sha256: row.get(9)?,
        file: row.get(10)?,
    })
}
