//! The feed: the tasks around the [`Log`]: ids for what signalling says, what the house adds to passages, writing and pruning.

#![allow(clippy::disallowed_methods)] // a shell: owns tasks and reads the wall clock

use super::event::Event;
use super::log::{Log, What};
use super::passage::Passage;
use crate::store::Store;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio::time::sleep;

/// Rows of one transaction: the store's other users wait some milliseconds at most.
const BATCH: usize = 500;
/// A store that did not write is asked again after so long.
const WRITE_AGAIN: Duration = Duration::from_secs(1);
/// How often what is too old is looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(600);
/// Behind the last day: receivers that are behind give it up themselves, by name.
const GRACE_DAYS: u32 = 1;
const DAY_MS: i64 = 86_400_000;

/// What signalling says.
#[derive(Clone, Debug)]
pub enum Said {
    Event(Box<Event>),
    Passage(Box<Passage>),
}

/// How long things are kept.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    pub events_days: u32,
    pub passages_days: u32,
}

/// Runs until signalling has no more to say, then writes what is left.
pub async fn run(log: Arc<Log>, store: Store, said: mpsc::UnboundedReceiver<Said>, keep: Keep) {
    let writer = tokio::spawn(write(log.clone(), store.clone()));
    let pruner = tokio::spawn(prune(store.clone(), keep));
    tell(&log, &store, said).await;
    pruner.abort();
    writer.abort();
    let _ = writer.await;
    if let Err(left) = write_all(&log, &store).await {
        tracing::error!(left, "events are lost: the store does not write them");
    }
}

/// Events get their id when they come. A passage first gets what the house calls its door, beside and in order, so that nothing
/// live waits for the store.
async fn tell(log: &Arc<Log>, store: &Store, mut said: mpsc::UnboundedReceiver<Said>) {
    let (passages, waiting) = mpsc::unbounded_channel();
    let completing = tokio::spawn(complete(log.clone(), store.clone(), waiting));
    while let Some(said) = said.recv().await {
        match said {
            Said::Event(event) => log.push(unix_us(), What::Event(*event)),
            Said::Passage(passage) => drop(passages.send(passage)),
        }
    }
    drop(passages);
    let _ = completing.await;
}

async fn complete(log: Arc<Log>, store: Store, mut passages: mpsc::UnboundedReceiver<Box<Passage>>) {
    while let Some(passage) = passages.recv().await {
        let all = match store.complete_passage(Passage::clone(&passage)).await {
            Ok(all) => all,
            Err(error) => {
                tracing::warn!(%error, door = passage.door, "a passage goes without what the house calls its door");
                log.count("passage_incomplete");
                vec![*passage]
            }
        };
        all.into_iter().for_each(|passage| log.push(unix_us(), What::Passage(Box::new(passage))));
    }
}

async fn write(log: Arc<Log>, store: Store) {
    let mut last = log.last();
    while log.newer(last).await {
        last = log.last();
        while let Err(left) = write_all(&log, &store).await {
            tracing::debug!(left, "events are not written yet");
            log.count("event_write_failed");
            sleep(WRITE_AGAIN).await;
        }
    }
}

/// An error: how many are left.
async fn write_all(log: &Log, store: &Store) -> Result<(), usize> {
    loop {
        let some = log.unwritten(BATCH);
        let Some(last) = some.last().map(|logged| logged.id) else { return Ok(()) };
        let count = some.len();
        store.add_events(some).await.map_err(|_| count)?;
        log.written(last);
    }
}

async fn prune(store: Store, keep: Keep) {
    loop {
        let now = unix_ms();
        let horizon = |days: u32| now - i64::from(days) * DAY_MS;
        let (events, passages) = (horizon(keep.events_days + GRACE_DAYS), horizon(keep.passages_days));
        // In small pieces, between which others have their turn.
        while store.prune_events(events, passages).await.is_ok_and(|count| count > 0) {
            tokio::task::yield_now().await;
        }
        let _ = store.prune_dead(horizon(keep.events_days + GRACE_DAYS)).await;
        sleep(PRUNE_EVERY).await;
    }
}

fn unix_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Milliseconds since 1970.
pub(super) fn unix_ms() -> i64 {
    unix_us() / 1000
}
