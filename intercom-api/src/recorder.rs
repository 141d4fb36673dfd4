//! From the SIP thread into the record. What came while the disk was busy is written with the next commit, all of it; what cannot be
//! written (a full disk) waits until there is room again, as far as memory is meant for it.

#![allow(clippy::disallowed_methods)] // a shell: owns a task and its rhythm

use crate::record::Entry;
use crate::store::Store;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// Entries that may wait: some 20 MB, a day of a large estate.
const WAITING: usize = 50_000;
/// Entries of one commit.
const BATCH: usize = 256;
/// When they are tried once more; then again and again after the last pause.
const AGAIN: [Duration; 3] = [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(5)];
/// Tries after which it is not the disk but the entries: two hours.
const ENOUGH: usize = 1440;

/// The SIP thread's end; cheap to clone.
#[derive(Clone, Debug)]
pub struct Recorder {
    entries: mpsc::UnboundedSender<Entry>,
    waiting: Arc<AtomicUsize>,
    lost: Arc<AtomicU64>,
}

/// The other end.
#[derive(Debug)]
pub struct Unwritten {
    entries: mpsc::UnboundedReceiver<Entry>,
    waiting: Arc<AtomicUsize>,
    lost: Arc<AtomicU64>,
}

impl Recorder {
    pub fn new() -> (Recorder, Unwritten) {
        let (entries, unwritten) = mpsc::unbounded_channel();
        let (waiting, lost) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
        let recorder = Recorder { entries, waiting: waiting.clone(), lost: lost.clone() };
        (recorder, Unwritten { entries: unwritten, waiting, lost })
    }

    /// Never waits: a door does not, either. What has no room is lost, and counted.
    pub fn write(&self, entry: Entry) {
        if self.waiting.load(Ordering::Relaxed) < WAITING {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            let _ = self.entries.send(entry);
        } else {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Entries that nobody will ever read.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Entries that are not on the disk yet.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

impl Unwritten {
    /// Writes until the SIP thread has no more to say.
    pub async fn run(mut self, store: Store, acknowledge: mpsc::UnboundedSender<Vec<u64>>) {
        let mut some = Vec::new();
        while self.entries.recv_many(&mut some, BATCH).await > 0 {
            let awaited: Vec<u64> = some.iter().filter_map(Entry::awaited).collect();
            let count = some.len();
            if self.append(&store, std::mem::take(&mut some)).await {
                // Who waits for what is lost waits in vain, and is told all the same.
                if !awaited.is_empty() {
                    // The SIP thread is gone: nobody waits.
                    drop(acknowledge.send(awaited));
                }
            } else {
                tracing::error!(count, "entries of the record are lost");
                self.lost.fetch_add(count as u64, Ordering::Relaxed);
            }
            self.waiting.fetch_sub(count, Ordering::Relaxed);
        }
    }

    /// `false`: given up.
    async fn append(&self, store: &Store, some: Vec<Entry>) -> bool {
        for attempt in 0..ENOUGH {
            match store.append(some.clone()).await {
                Ok(()) if attempt > 0 => tracing::info!("entries of the record that had to wait are written"),
                Ok(()) => {}
                // The end of the server does not wait for a sick disk.
                Err(_) if attempt >= AGAIN.len() && self.entries.is_closed() => return false,
                Err(error) => {
                    if attempt == AGAIN.len() {
                        tracing::error!(%error, count = some.len(), "entries of the record wait for the disk");
                    }
                    tokio::time::sleep(AGAIN[attempt.min(AGAIN.len() - 1)]).await;
                    continue;
                }
            }
            return true;
        }
        false
    }
}
