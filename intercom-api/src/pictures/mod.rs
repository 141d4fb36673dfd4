//! Pictures of visitors, off every thread that matters: signalling puts a [`Job`] into a short queue, one task has the helper
//! process turn it into a JPEG, stores it, and tells whoever waits.

#![allow(clippy::disallowed_methods)] // a shell: owns a task and the wall clock

pub mod album;
mod child;
pub mod helper;
pub mod job;

use crate::live::CallId;
use crate::store::Store;
use album::{Album, Swept};
use child::{Helper, HelperError};
use job::{Job, Shown};
use media::snapshot::{Jpeg, SnapshotError};
use schemars::JsonSchema;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Pictures that may wait; with a full queue the next has none.
pub const QUEUE: usize = 32;
/// Between two sweeps of the album, and pictures after which one comes sooner.
const SWEEP: Duration = Duration::from_secs(3600);
const SWEEP_AFTER: u64 = 500;
/// Pictures in a row that a call's door may crash or hang the helper with; then it gets no more in this call.
const STRIKES: u32 = 3;
/// Calls whose strikes are remembered.
const STRUCK: usize = 64;
/// How long what waits at the end is still made.
const PARTING: Duration = Duration::from_secs(3);

/// One picture: its row in the store, and what HTTP shows of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Snapshot {
    pub id: String,
    pub call: String,
    /// Account of the door unit.
    pub door: String,
    /// `ring`, `unlock`, `asked`.
    pub why: String,
    /// `small` or `large`.
    pub preset: String,
    /// When the door had sent all of it; milliseconds since 1970.
    pub taken_at_ms: i64,
    pub width: u16,
    pub height: u16,
    pub bytes: u32,
    /// In hex.
    pub sha256: String,
    /// In the album; none once it is deleted.
    #[serde(skip)]
    pub file: Option<String>,
}

/// Why there is no picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPicture {
    /// The door has shown no complete key frame yet.
    NothingShown,
    QueueFull,
    Refused(SnapshotError),
    Helper(HelperError),
    /// This call's door has brought the helper down too often.
    Struck,
    NotStored,
    /// Nobody answered in time.
    Late,
}

impl NoPicture {
    /// Its counter.
    pub fn name(self) -> &'static str {
        match self {
            NoPicture::NothingShown => "picture_nothing_shown",
            NoPicture::QueueFull => "picture_queue_full",
            NoPicture::Refused(error) => error.name(),
            NoPicture::Helper(error) => error.name(),
            NoPicture::Struck => "picture_door_struck_out",
            NoPicture::NotStored => "picture_not_stored",
            NoPicture::Late => "picture_late",
        }
    }
}

type Outcome = Result<Snapshot, NoPicture>;

/// What signalling, HTTP and the task share.
pub struct Pictures {
    jobs: mpsc::Sender<Job>,
    waiting: Mutex<BTreeMap<u64, oneshot::Sender<Outcome>>>,
    tickets: AtomicU64,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    pub album: Album,
}

/// Makes the pictures; to be run in a task.
pub struct Studio {
    jobs: mpsc::Receiver<Job>,
    pictures: Arc<Pictures>,
    store: Store,
    helper: Helper,
    /// Calls that have brought the helper down, and how often in a row.
    struck: VecDeque<(CallId, u32)>,
    since_sweep: u64,
}

impl Pictures {
    /// `program`: this same program, for its helper.
    pub fn new(album: Album, store: Store, program: PathBuf) -> (Arc<Pictures>, Studio) {
        let (jobs, inbox) = mpsc::channel(QUEUE);
        let (waiting, tickets, counts) = Default::default();
        let pictures = Arc::new(Pictures { jobs, waiting, tickets, counts, album });
        let (helper, struck) = (Helper::new(program), VecDeque::new());
        (pictures.clone(), Studio { jobs: inbox, pictures, store, helper, struck, since_sweep: 0 })
    }

    /// From the SIP thread: never waits.
    pub fn put(&self, job: Job) {
        if let Err(mpsc::error::TrySendError::Full(job) | mpsc::error::TrySendError::Closed(job)) = self.jobs.try_send(job) {
            self.tell(&job.tickets, Err(NoPicture::QueueFull));
        }
    }

    /// A ticket for a picture that will be asked for, and where its outcome comes.
    pub fn wait(&self) -> (u64, oneshot::Receiver<Outcome>) {
        let (sender, outcome) = oneshot::channel();
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        lock(&self.waiting).insert(ticket, sender);
        (ticket, outcome)
    }

    /// Nobody waits any more.
    pub fn give_up(&self, ticket: u64) {
        lock(&self.waiting).remove(&ticket);
    }

    pub fn count(&self, name: &'static str) {
        self.count_more(name, 1);
    }

    /// Everything made, refused or given up, by name.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.counts).clone()
    }

    fn count_more(&self, name: &'static str, more: u64) {
        *lock(&self.counts).entry(name).or_default() += more;
    }

    fn tell(&self, tickets: &[u64], outcome: Outcome) {
        self.count(outcome.as_ref().map_or_else(|none| none.name(), |_| "pictures_taken"));
        for ticket in tickets {
            if let Some(sender) = lock(&self.waiting).remove(ticket) {
                // Who has gone meanwhile does not hear it.
                let _ = sender.send(outcome.clone());
            }
        }
    }
}

/// A panic elsewhere leaves a map that is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Studio {
    /// Works until `stop`, and then on what is left.
    pub async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        self.sweep(true).await;
        let mut sweeps = interval(SWEEP);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        sweeps.reset();
        loop {
            tokio::select! {
                biased;
                _ = &mut stop => break,
                Some(job) = self.jobs.recv() => self.work(job).await,
                _ = sweeps.tick() => self.sweep(false).await,
            }
            if self.since_sweep >= SWEEP_AFTER {
                self.sweep(false).await;
            }
        }
        let rest = async {
            while let Ok(job) = self.jobs.try_recv() {
                self.work(job).await;
            }
        };
        let _ = timeout(PARTING, rest).await;
    }

    async fn work(&mut self, job: Job) {
        let (tickets, call, door) = (job.tickets.clone(), job.call.clone(), job.door.clone());
        let outcome = self.make(job).await;
        if let Err(none) = &outcome {
            tracing::debug!(%call, %door, reason = none.name(), "no picture");
        }
        self.pictures.tell(&tickets, outcome);
    }

    async fn make(&mut self, mut job: Job) -> Outcome {
        let shown = job.shown.take().ok_or(NoPicture::NothingShown)?;
        let strikes = self.struck.iter().find(|(call, _)| *call == job.call).map_or(0, |(_, strikes)| *strikes);
        if strikes >= STRIKES {
            return Err(NoPicture::Struck);
        }
        let developed = self.develop(&shown, &job).await;
        self.struck.retain(|(call, _)| *call != job.call);
        if let Err(NoPicture::Helper(HelperError::Died | HelperError::Hung | HelperError::Nonsense)) = developed {
            self.struck.push_back((job.call.clone(), strikes + 1));
            if self.struck.len() > STRUCK {
                self.struck.pop_front();
            }
        }
        self.store(job, shown.taken_ms, developed?).await
    }

    /// A helper that dies once is started once more: it may have died of something else than this picture.
    async fn develop(&mut self, shown: &Shown, job: &Job) -> Result<Jpeg, NoPicture> {
        let before = self.helper.starts;
        let mut answer = self.helper.picture(&shown.annex_b, job.preset).await;
        if answer == Err(HelperError::Died) {
            self.pictures.count(HelperError::Died.name());
            answer = self.helper.picture(&shown.annex_b, job.preset).await;
        }
        // The very first start is no restart.
        self.pictures.count_more("picture_helper_restarts", self.helper.starts.saturating_sub(before.max(1)));
        if let Err(error) = &answer {
            tracing::warn!(call = %job.call, door = %job.door, reason = error.name(), "the picture helper failed");
        }
        answer.map_err(NoPicture::Helper)?.map_err(NoPicture::Refused)
    }

    async fn store(&mut self, job: Job, taken_at_ms: i64, jpeg: Jpeg) -> Outcome {
        let Jpeg { width, height, bytes } = jpeg;
        let mut snapshot = Snapshot {
            id: job.id,
            call: job.call.to_string(),
            door: job.door.to_string(),
            why: job.why.name().to_owned(),
            preset: job.preset.name().to_owned(),
            taken_at_ms,
            width,
            height,
            bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            sha256: Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect(),
            file: None,
        };
        let (album, id) = (self.pictures.album.clone(), snapshot.id.clone());
        let written = tokio::task::spawn_blocking(move || album.write(&id, taken_at_ms, &bytes)).await;
        let file = written.map_err(|_| NoPicture::NotStored)?.map_err(|error| {
            tracing::error!(%error, "a picture cannot be written");
            NoPicture::NotStored
        })?;
        snapshot.file = Some(file.clone());
        if self.store.add_snapshot(snapshot.clone()).await.is_err() {
            let album = self.pictures.album.clone();
            let _ = tokio::task::spawn_blocking(move || album.remove(&file)).await;
            return Err(NoPicture::NotStored);
        }
        self.since_sweep += 1;
        Ok(snapshot)
    }

    async fn sweep(&mut self, unfinished: bool) {
        self.since_sweep = 0;
        match self.pictures.album.sweep(&self.store, now_ms(), unfinished).await {
            Ok(Swept { old, too_many, entries }) => {
                self.pictures.count_more("record_entries_pruned", entries);
                self.pictures.count_more("pictures_swept_old", old);
                self.pictures.count_more("pictures_swept_too_many", too_many);
                if too_many > 0 {
                    tracing::warn!(pictures = too_many, "records.snapshots_mb is reached: the oldest pictures are deleted early");
                }
            }
            Err(error) => tracing::warn!(%error, "old pictures are not deleted yet"),
        }
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::album::Retention;
    use super::*;
    use crate::model::Number;
    use bytes::Bytes;
    use job::Why;
    use media::snapshot::Preset;

    fn scene(program: &str) -> (Arc<Pictures>, Studio, PathBuf) {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("doorline-studio-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        let store = Store::open(&root.join("db")).unwrap();
        let album = Album::new(root.join("snapshots"), Retention { days: 30, bytes: 1 << 30 });
        let (pictures, studio) = Pictures::new(album, store, program.into());
        (pictures, studio, root)
    }

    fn job(call: &str, tickets: Vec<u64>) -> Job {
        let shown = Some(Shown { taken_ms: 0, annex_b: Bytes::from_static(b"x") });
        let (call, door) = (CallId(call.into()), Number::new("d"));
        Job { id: "c-1".into(), call, door, why: Why::Asked, preset: Preset::Large, tickets, shown }
    }

    #[tokio::test]
    async fn a_full_queue_refuses_the_next_at_once() {
        let (pictures, _studio, root) = scene("/nowhere");
        for _ in 0..QUEUE {
            pictures.put(job("c", vec![]));
        }
        assert!(pictures.counts().is_empty());
        let (ticket, outcome) = pictures.wait();
        pictures.put(job("c", vec![ticket]));
        assert_eq!(outcome.await.unwrap(), Err(NoPicture::QueueFull));
        assert_eq!(pictures.counts(), [("picture_queue_full", 1)].into());
        std::fs::remove_dir_all(root).unwrap();
    }

    #[tokio::test]
    async fn a_door_that_kills_every_helper_gets_no_more_of_them() {
        // Ends at once, whatever it is asked.
        let (pictures, studio, root) = scene("/bin/false");
        let (stop, stopped) = oneshot::channel();
        let studio = tokio::spawn(studio.run(stopped));
        let ask = async |call: &str| {
            let (ticket, outcome) = pictures.wait();
            pictures.put(job(call, vec![ticket]));
            outcome.await.unwrap()
        };
        for _ in 0..STRIKES {
            assert_eq!(ask("bad").await, Err(NoPicture::Helper(HelperError::Died)));
        }
        assert_eq!(ask("bad").await, Err(NoPicture::Struck));
        let counts = pictures.counts();
        assert_eq!((counts["picture_helper_died"], counts["picture_helper_restarts"]), (6, 5), "twice each");
        stop.send(()).unwrap();
        studio.await.unwrap();
        std::fs::remove_dir_all(root).unwrap();
    }
}
