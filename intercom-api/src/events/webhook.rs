//! One webhook: what comes next is delivered until it is taken or given up, in order; nothing else waits for it.

#![allow(clippy::disallowed_methods)] // a shell: reads the clock and waits

use super::feed::unix_ms;
use super::log::{Cursor, Log, Logged};
use super::passage::Sender;
use super::post::{Post, signature};
use crate::store::{Dead, Hook, Store};
use futures_util::FutureExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// How long it waits after one failure, and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A receiver that says no so often means it.
const REJECTIONS: u32 = 3;

/// How it goes, for `GET /v1/webhooks`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Id of the last event that was taken.
    pub delivered: Option<i64>,
    /// Failures since then, and the last one.
    pub failures: u32,
    pub error: Option<String>,
    /// When it is tried again, in milliseconds since 1970.
    pub next_try_ms: Option<i64>,
    /// How far it is, also past what was given up.
    pub cursor: i64,
    /// The receiver said 410: it wants no more.
    pub gone: bool,
}

/// What a task and those who look at it share.
#[derive(Debug, Default)]
pub struct Shared {
    state: Mutex<State>,
    /// Dead letters are to be tried again.
    pub again: Notify,
}

impl Shared {
    pub fn at(cursor: i64) -> Shared {
        Shared { state: Mutex::new(State { cursor, ..State::default() }), again: Notify::new() }
    }

    pub fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// What the task works with.
pub struct Webhook {
    pub hook: Hook,
    pub log: Arc<Log>,
    pub store: Store,
    pub sender: Arc<Sender>,
    pub keep_days: u32,
    pub shared: Arc<Shared>,
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Taken,
    /// Wants nothing any more.
    Gone,
    /// Does not want this one.
    Rejected,
    /// Perhaps later.
    Later,
}

fn verdict(status: u16) -> Verdict {
    match status {
        200..=299 => Verdict::Taken,
        410 => Verdict::Gone,
        408 | 425 | 429 => Verdict::Later,
        // A redirect is not followed: where events go is set here.
        300..=499 => Verdict::Rejected,
        _ => Verdict::Later,
    }
}

/// What became of one event.
enum End {
    Taken,
    GivenUp(String),
    Gone,
}

impl Webhook {
    /// Runs until the server stops, or the receiver says that it wants no more.
    pub async fn run(self, mut cursor: Cursor, mut post: Post) {
        loop {
            let some = tokio::select! {
                some = cursor.next() => some,
                () = self.shared.again.notified() => {
                    self.redeliver(&mut post).await;
                    continue;
                }
            };
            let Some(some) = some else { return };
            for logged in some {
                if self.shared.again.notified().now_or_never().is_some() {
                    self.redeliver(&mut post).await;
                }
                // The version of the record has no word for it.
                let Some(body) = logged.body(&self.sender) else { continue };
                match self.deliver(&mut post, &logged, &body).await {
                    End::Taken => self.done(logged.id).await,
                    End::GivenUp(reason) => self.bury(logged.id, reason, body).await,
                    End::Gone => return self.gone().await,
                }
            }
        }
    }

    /// Tries until there is an end.
    async fn deliver(&self, post: &mut Post, logged: &Logged, body: &str) -> End {
        let (mut rejections, mut pause) = (0, FIRST_PAUSE);
        loop {
            if logged.wakes().is_some_and(|call| !self.log.still_rings(call)) {
                self.log.count("webhook_ring_ended");
                return End::GivenUp("ring ended".to_owned());
            }
            if logged.at_ms() < unix_ms() - i64::from(self.keep_days) * 86_400_000 {
                self.log.count("webhook_too_old");
                return End::GivenUp("too old".to_owned());
            }
            let answer = self.post(post, logged.id, body).await;
            let error = match answer.as_ref().map(|status| verdict(*status)) {
                Ok(Verdict::Taken) => return End::Taken,
                Ok(Verdict::Gone) => return End::Gone,
                Ok(Verdict::Rejected) => {
                    rejections += 1;
                    format!("status {}", answer.unwrap_or_default())
                }
                Ok(Verdict::Later) => format!("status {}", answer.unwrap_or_default()),
                Err(error) => error.clone(),
            };
            if rejections >= REJECTIONS {
                self.log.count("webhook_rejected");
                return End::GivenUp(error);
            }
            let wait = jittered(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
            self.log.count("webhook_failed");
            tracing::debug!(hook = self.hook.id, event = logged.id, error, "a webhook is tried again");
            self.shared.change(|state| {
                state.failures += 1;
                state.error = Some(error);
                state.next_try_ms = Some(unix_ms() + i64::try_from(wait.as_millis()).unwrap_or_default());
            });
            tokio::time::sleep(wait).await;
        }
    }

    async fn post(&self, post: &mut Post, id: i64, body: &str) -> Result<u16, String> {
        let now = unix_ms();
        let headers = [
            ("x-doorline-event", id.to_string()),
            ("x-doorline-timestamp", now.to_string()),
            ("x-doorline-signature", signature(self.hook.secret.reveal(), now, body)),
        ];
        post.send(&headers, body).await
    }

    async fn done(&self, id: i64) {
        self.shared.change(|state| *state = State { delivered: Some(id), cursor: id, gone: false, ..State::default() });
        if self.store.move_hook(self.hook.id.clone(), id).await.is_err() {
            // After a restart it may come twice, with the same id.
            self.log.count("webhook_cursor_not_stored");
        }
    }

    async fn bury(&self, id: i64, reason: String, body: String) {
        tracing::info!(hook = self.hook.id, event = id, reason, "an event is given up for a webhook");
        let rejected = reason.starts_with("status");
        self.shared.change(|state| {
            state.cursor = id;
            if rejected {
                (state.failures, state.next_try_ms) = (0, None);
            }
        });
        let dead = Dead { event: id, at_ms: unix_ms(), reason, body };
        if self.store.bury(self.hook.id.clone(), dead).await.is_err() {
            self.log.count("webhook_dead_not_stored");
        }
    }

    async fn gone(&self) {
        tracing::warn!(hook = self.hook.id, "the receiver said 410 Gone: this webhook is off");
        self.log.count("webhook_gone");
        self.shared.change(|state| (state.gone, state.next_try_ms) = (true, None));
        let _ = self.store.change_hook(self.hook.id.clone(), None, Some(false)).await;
    }

    /// Each once; what fails stays dead, with the new reason.
    async fn redeliver(&self, post: &mut Post) {
        while let Ok(Some(dead)) = self.store.next_redelivery(self.hook.id.clone()).await {
            let reason = match self.post(post, dead.event, &dead.body).await {
                Ok(status) if verdict(status) == Verdict::Taken => {
                    let _ = self.store.revive(self.hook.id.clone(), dead.event).await;
                    continue;
                }
                Ok(status) => format!("status {status}"),
                Err(error) => error,
            };
            if self.store.bury(self.hook.id.clone(), Dead { reason, at_ms: unix_ms(), ..dead }).await.is_err() {
                return;
            }
        }
    }
}

/// A quarter less to a quarter more: many receivers behind one door do not come back at once.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [128];
    let _ = getrandom::fill(&mut byte);
    pause.mul_f64(0.75 + f64::from(byte[0]) / 510.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_status_means() {
        let said: Vec<_> = [200, 204, 302, 404, 408, 410, 425, 429, 500, 503].map(verdict).into();
        use Verdict::{Gone, Later, Rejected, Taken};
        assert_eq!(said, [Taken, Taken, Rejected, Rejected, Later, Gone, Later, Later, Later, Later]);
    }

    #[test]
    fn pauses_are_near_what_they_should_be() {
        for _ in 0..100 {
            let wait = jittered(Duration::from_secs(8));
            assert!(wait >= Duration::from_secs(6) && wait <= Duration::from_secs(10), "{wait:?}");
        }
    }
}
