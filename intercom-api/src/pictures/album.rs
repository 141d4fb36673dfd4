//! Where pictures lie: `data_dir/snapshots/YYYY-MM-DD/ID.jpg`, a folder a day (UTC), for their owner's eyes only. The store
//! knows them; a path is never made of what a client says.

#![allow(clippy::disallowed_methods)] // a shell: owns files

use super::Snapshot;
use crate::store::{BY_RETENTION, Store, StoreError};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const DAY_MS: i64 = 86_400_000;
/// Pictures taken out at once.
const BATCH: u32 = 200;
/// Entries of the record taken out at once; unlocks wait for it.
const PRUNED: u32 = 1000;
/// What is being written ends so.
const UNFINISHED: &str = "tmp";

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    pub days: u32,
    pub bytes: i64,
}

/// What a sweep took out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Older than is kept.
    pub old: u64,
    /// The oldest of too many.
    pub too_many: u64,
    /// Entries of the record that are older than is kept.
    pub entries: u64,
}

/// See the module text.
#[derive(Clone, Debug)]
pub struct Album {
    root: PathBuf,
    retention: Retention,
}

impl Album {
    pub fn new(root: PathBuf, retention: Retention) -> Album {
        Album { root, retention }
    }

    /// Writes a picture, whole or not at all, and gives its name for the store. `id` is our own.
    pub fn write(&self, id: &str, taken_ms: i64, bytes: &[u8]) -> io::Result<String> {
        if !is_safe(id) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let day = day(taken_ms);
        let folder = self.root.join(&day);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let (unfinished, file) = (folder.join(format!("{id}.{UNFINISHED}")), format!("{day}/{id}.jpg"));
        let write = || {
            let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
            out.write_all(bytes)?;
            out.sync_data()?;
            fs::rename(&unfinished, self.root.join(&file))
        };
        write().inspect_err(|_| drop(fs::remove_file(&unfinished)))?;
        Ok(file)
    }

    /// `file`: as the store has it.
    pub fn read(&self, file: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path(file)?)
    }

    /// One that is gone already is as good.
    pub fn remove(&self, file: &str) -> io::Result<()> {
        match fs::remove_file(self.path(file)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Even a store that somebody has tampered with names nothing outside.
    fn path(&self, file: &str) -> io::Result<PathBuf> {
        let parts = file.split_once('/').filter(|(day, name)| is_safe(day) && name.strip_suffix(".jpg").is_some_and(is_safe));
        parts.map(|(day, name)| self.root.join(day).join(name)).ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    /// Takes out what is too old, then, oldest first, what is too much, and entries of the record that are too old; `unfinished`: nothing is being written, so what a
    /// crash left half written goes as well.
    pub async fn sweep(&self, store: &Store, now_ms: i64, unfinished: bool) -> Result<Swept, StoreError> {
        let horizon = now_ms.saturating_sub(i64::from(self.retention.days).saturating_mul(DAY_MS));
        let mut swept = Swept::default();
        loop {
            let old = store.oldest_snapshots(horizon, BATCH).await?;
            if old.is_empty() {
                break;
            }
            swept.old += old.len() as u64;
            self.take_out(store, old).await?;
        }
        let mut too_much = store.snapshot_bytes().await? - self.retention.bytes;
        while too_much > 0 {
            let mut oldest = store.oldest_snapshots(i64::MAX, BATCH).await?;
            let mut enough = oldest.len();
            for (index, snapshot) in oldest.iter().enumerate() {
                too_much -= i64::from(snapshot.bytes);
                if too_much <= 0 {
                    enough = index + 1;
                    break;
                }
            }
            oldest.truncate(enough);
            if oldest.is_empty() {
                break;
            }
            swept.too_many += oldest.len() as u64;
            self.take_out(store, oldest).await?;
        }
        loop {
            let pruned = store.prune(horizon, PRUNED).await?;
            swept.entries += pruned;
            if pruned < PRUNED.into() {
                break;
            }
        }
        let (root, horizon) = (self.root.clone(), day(horizon));
        let _ = tokio::task::spawn_blocking(move || tidy(&root, &horizon, unfinished)).await;
        Ok(swept)
    }

    /// Files first: what a crash in between leaves is a name without a file, and the next sweep takes that.
    async fn take_out(&self, store: &Store, snapshots: Vec<Snapshot>) -> Result<(), StoreError> {
        let (album, files) = (self.clone(), snapshots.iter().filter_map(|s| s.file.clone()).collect::<Vec<_>>());
        let removed = tokio::task::spawn_blocking(move || {
            files.iter().for_each(|file| {
                if let Err(error) = album.remove(file) {
                    tracing::warn!(file, %error, "a picture cannot be removed");
                }
            });
        });
        removed.await.map_err(|_| StoreError::Unavailable)?;
        store.forget_snapshots(snapshots.into_iter().map(|snapshot| snapshot.id).collect(), BY_RETENTION).await
    }
}

/// Folders of days before the horizon, with whatever nobody knows of in them, and empty ones.
fn tidy(root: &Path, horizon: &str, unfinished: bool) {
    let entries =
        |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    for folder in entries(root) {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.len() == horizon.len() && is_safe(name) && name < horizon {
            let _ = fs::remove_dir_all(&folder);
            continue;
        }
        if unfinished {
            let half = entries(&folder).into_iter().filter(|file| file.extension().is_some_and(|end| end == UNFINISHED));
            half.for_each(|file| drop(fs::remove_file(file)));
            // Only an empty one goes.
            let _ = fs::remove_dir(&folder);
        }
    }
}

/// Letters, digits and `-`: no way out of a folder.
fn is_safe(name: &str) -> bool {
    !name.is_empty() && name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// `YYYY-MM-DD` in UTC, by the count of days since 0000-03-01 (400 years are 146,097 days).
fn day(ms: i64) -> String {
    let days = ms.div_euclid(DAY_MS) + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// `YYYY-MM-DDTHH:MM:SSZ`.
pub fn utc(ms: i64) -> String {
    let seconds = ms.rem_euclid(DAY_MS) / 1000;
    format!("{}T{:02}:{:02}:{:02}Z", day(ms), seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Entry, Record, Wanted};
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn folder() -> PathBuf {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let path =
            std::env::temp_dir().join(format!("doorline-album-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn snapshot(id: &str, taken_at_ms: i64, file: String) -> Snapshot {
        let text = |text: &str| text.to_owned();
        let (call, door, why, preset, sha256) = (text("c"), text("d"), text("ring"), text("large"), text("00"));
        Snapshot { id: text(id), call, door, why, preset, taken_at_ms, width: 1, height: 1, bytes: 100, sha256, file: Some(file) }
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        for (ms, wanted) in [
            (0, "1970-01-01"),
            (951_782_400_000, "2000-02-29"),
            (951_868_799_999, "2000-02-29"),
            (951_868_800_000, "2000-03-01"),
            (1_767_225_599_999, "2025-12-31"),
            (4_107_542_400_000, "2100-03-01"),
            (-1, "1969-12-31"),
        ] {
            assert_eq!(day(ms), wanted);
        }
    }

    #[test]
    fn pictures_are_for_their_owner_and_nothing_leads_outside() {
        let root = folder();
        let album = Album::new(root.join("snapshots"), Retention { days: 30, bytes: 1 << 30 });
        let file = album.write("abc-1", 0, b"jpeg").unwrap();
        assert_eq!((file.as_str(), album.read(&file).unwrap()), ("1970-01-01/abc-1.jpg", b"jpeg".to_vec()));
        let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("snapshots"), mode("snapshots/1970-01-01")), (0o700, 0o700));
        assert_eq!(mode("snapshots/1970-01-01/abc-1.jpg"), 0o600);
        for id in ["", ".", "..", "../x", "a/b", "a\0", "a.b", &"x".repeat(65)] {
            assert!(album.write(id, 0, b"x").is_err(), "{id:?}");
        }
        fs::write(root.join("secret.jpg"), b"x").unwrap();
        for file in
            ["", "../secret.jpg", "1970-01-01/../../secret.jpg", "/etc/passwd", "a/b.png", "1970-01-01", "1970-01-01/abc-1"]
        {
            assert!(album.read(file).is_err() && album.remove(file).is_err(), "{file:?}");
        }
        album.remove(&file).unwrap();
        album.remove(&file).unwrap();
        assert!(album.read(&file).is_err());
        fs::remove_dir_all(root).unwrap();
    }

    #[tokio::test]
    async fn what_is_old_or_too_much_goes_and_the_rest_stays() {
        let root = folder();
        let store = Store::open(&root.join("db")).unwrap();
        let album = Album::new(root.join("snapshots"), Retention { days: 30, bytes: 250 });
        let now = 100 * DAY_MS;
        for (id, age) in [("a", 31), ("b", 29), ("c", 2), ("d", 1), ("e", 0)] {
            let file = album.write(id, now - age * DAY_MS, b"jpeg").unwrap();
            store.add_snapshot(snapshot(id, now - age * DAY_MS, file)).await.unwrap();
        }
        // What a crash may leave: a file nobody knows, and half a file.
        let orphan = root.join("snapshots").join(day(now - 40 * DAY_MS));
        fs::create_dir_all(&orphan).unwrap();
        fs::write(orphan.join("orphan-1.jpg"), b"x").unwrap();
        let half = root.join("snapshots").join(day(now)).join("half.tmp");
        fs::write(&half, b"x").unwrap();
        assert_eq!(album.sweep(&store, now, true).await.unwrap(), Swept { old: 1, too_many: 2, entries: 0 });
        let left = store.oldest_snapshots(i64::MAX, 10).await.unwrap();
        assert_eq!(left.iter().map(|s| s.id.as_str()).collect::<Vec<_>>(), ["d", "e"]);
        assert!(left.iter().all(|s| album.read(s.file.as_deref().unwrap()).is_ok()));
        assert!(!orphan.exists() && !half.exists() && !root.join("snapshots").join(day(now - 29 * DAY_MS)).exists());
        assert_eq!(album.sweep(&store, now, true).await.unwrap(), Swept::default());
        fs::remove_dir_all(root).unwrap();
    }

    #[tokio::test]
    async fn the_hash_in_the_record_outlives_the_picture() {
        let root = folder();
        let store = Store::open(&root.join("db")).unwrap();
        let album = Album::new(root.join("snapshots"), Retention { days: 1, bytes: 1 << 30 });
        let record = Record {
            account: "p".into(),
            door: "d".into(),
            outcome: "opened".into(),
            status: 200,
            snapshot: Some("c-1".into()),
            ..Record::default()
        };
        store.append(vec![Entry::Ended(Box::new(record))]).await.unwrap();
        let named = || async { store.records(Wanted { limit: 1, ..Wanted::default() }).await.unwrap().remove(0) };
        assert_eq!((named().await.snapshot, named().await.snapshot_sha256), (None, None), "not made yet");
        let file = album.write("c-1", 0, b"jpeg").unwrap();
        store.add_snapshot(snapshot("c-1", 0, file)).await.unwrap();
        assert_eq!(named().await.snapshot_sha256.as_deref(), Some("00"));
        assert_eq!(album.sweep(&store, 10 * DAY_MS, false).await.unwrap(), Swept { old: 1, too_many: 0, entries: 0 });
        assert_eq!((named().await.snapshot.as_deref(), named().await.snapshot_sha256.as_deref()), (Some("c-1"), Some("00")));
        assert_eq!(store.snapshot_of_record(2).await.unwrap().unwrap().file, None);
        fs::remove_dir_all(root).unwrap();
    }
}
