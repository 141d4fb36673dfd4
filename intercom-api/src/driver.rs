//! The SIP thread: the clock and the sockets around the [`Switchboard`].
//!
//! One turn after another: a due deadline, media events, orders of the HTTP side, datagrams; after each its effects, in
//! order. Nothing here waits for anything but the next input, and nothing slow runs here.

#![allow(clippy::disallowed_methods)] // a shell: owns the clock, the thread and its tasks

use crate::control::OrderReceiver;
use crate::flight::{self, FlightRecorder};
use crate::live::{CallId, CallView, Live};
use crate::record::Record;
use crate::switchboard::Switchboard;
use crate::transport::udp::{Batch, Bound, Udp};
use crate::turn::{Effect, Publication};
use media::command::{Command, Event, SessionId, WorkerId};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Media events that may wait; a worker waits when it is full, it never loses one.
pub const MEDIA_QUEUE: usize = 4096;
/// How long after its end a call's datagrams are awaited for its flight record, and how many ended calls may wait.
const AFTERMATH: Duration = Duration::from_secs(2);
const LANDING: usize = 256;
/// Ended calls kept readable.
const ENDED_KEPT: usize = 1000;

/// How commands reach the media workers: `false` when the worker's queue is full.
pub type SendMedia = Box<dyn Fn(WorkerId, Command) -> bool + Send>;

/// What the SIP thread works with.
pub struct Driver {
    pub switchboard: Switchboard,
    pub udp: Vec<Bound>,
    pub orders: OrderReceiver,
    pub media_events: mpsc::Receiver<Event>,
    pub send_media: SendMedia,
    pub live: Arc<Live>,
    /// Where entries of the record go to be written.
    pub records: mpsc::UnboundedSender<Record>,
    /// Where calls that ended badly are written down.
    pub flights: PathBuf,
    /// SIGTERM: no new calls; running ones have so long.
    pub drain: oneshot::Receiver<Duration>,
}

impl Driver {
    /// Runs until drained, on this thread alone: a datagram is read, understood and answered without waking another one.
    pub fn run(self) -> io::Result<()> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(self.turns())
    }

    async fn turns(self) -> io::Result<()> {
        let Driver { mut switchboard, udp, mut orders, mut media_events, send_media, live, records, flights, mut drain } = self;
        let (mut batch, mut next) = (Batch::default(), 0);
        let mut shell = Shell {
            udp: udp.into_iter().map(Bound::open).collect::<io::Result<_>>()?,
            send_media,
            live,
            records,
            recorder: FlightRecorder::default(),
            flights,
            landing: VecDeque::new(),
            ended: VecDeque::new(),
            effects: Vec::new(),
            doing: Vec::new(),
        };
        let mut draining: Option<Instant> = None;
        loop {
            let deadline = [switchboard.next_deadline(), draining, shell.next_deadline()].into_iter().flatten().min();
            let now;
            tokio::select! {
                biased;
                () = sleep_until(deadline) => {
                    now = Instant::now();
                    switchboard.timeout(now, &mut shell.effects);
                }
                Some(event) = media_events.recv() => {
                    now = Instant::now();
                    switchboard.media(now, event, &mut shell.effects);
                }
                Some((order, reply)) = orders.recv() => {
                    now = Instant::now();
                    let answer = switchboard.command(now, order, &mut shell.effects);
                    let _ = reply.send(answer);
                }
                socket = readable(&shell.udp, next) => {
                    now = Instant::now();
                    next = socket + 1;
                    let Shell { udp, recorder, effects, .. } = &mut shell;
                    udp[socket].read(&mut batch, |flow, bytes| {
                        recorder.datagram(now, true, flow, &bytes);
                        switchboard.receive(now, flow, bytes, effects);
                    });
                }
                Ok(patience) = &mut drain, if draining.is_none() => {
                    now = Instant::now();
                    switchboard.drain();
                    draining = Some(now + patience);
                }
            }
            shell.perform(now, &mut switchboard);
            shell.write_flights(now);
            if let Some(end) = draining {
                if now >= end {
                    switchboard.hang_up_all(now, &mut shell.effects);
                    shell.perform(now, &mut switchboard);
                }
                if switchboard.running_calls() == 0 {
                    return Ok(());
                }
            }
        }
    }
}

/// The place of a socket that has something to read, looked for from `first` on: a flood at one must not starve the others.
async fn readable(sockets: &[Udp], first: usize) -> usize {
    poll_fn(|context| {
        let mut turn = (first..sockets.len()).chain(0..first.min(sockets.len()));
        turn.find(|at| sockets[*at].poll_readable(context)).map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// The hands of the driver.
struct Shell {
    udp: Vec<Udp>,
    send_media: SendMedia,
    live: Arc<Live>,
    records: mpsc::UnboundedSender<Record>,
    recorder: FlightRecorder,
    flights: PathBuf,
    /// Ended calls whose last datagrams are still awaited.
    landing: VecDeque<(Instant, CallView)>,
    ended: VecDeque<CallId>,
    effects: Vec<Effect>,
    /// The other of two buffers that take turns, kept for its capacity.
    doing: Vec<Effect>,
}

impl Shell {
    /// Does everything the switchboard wants, including what follows from a media worker that could not take a command.
    fn perform(&mut self, now: Instant, switchboard: &mut Switchboard) {
        let mut refused: Vec<SessionId> = Vec::new();
        loop {
            let mut doing = std::mem::replace(&mut self.effects, std::mem::take(&mut self.doing));
            for effect in doing.drain(..) {
                match effect {
                    Effect::Send(transmit) => {
                        if let Some(socket) = self.udp.iter_mut().find(|socket| socket.owns(transmit.flow.local)) {
                            socket.send(&transmit.flow, &transmit.bytes);
                        }
                        self.recorder.datagram(now, false, transmit.flow, &transmit.bytes);
                    }
                    Effect::Media { worker, command } => {
                        let session = session_of(&command);
                        if !(self.send_media)(worker, command) && !refused.contains(&session) {
                            refused.push(session);
                            switchboard.media_refused(now, session, &mut self.effects);
                        }
                    }
                    Effect::Publish(publication) => self.publish(now, publication),
                }
            }
            self.doing = doing;
            if self.effects.is_empty() {
                return;
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.landing.front().map(|(at, _)| *at)
    }

    /// Writes down what ended badly a moment ago; off this thread, a disk may take its time.
    fn write_flights(&mut self, now: Instant) {
        while let Some((_, view)) = self.landing.pop_front_if(|(at, _)| *at <= now) {
            self.write_flight(&view);
        }
    }

    fn write_flight(&self, view: &CallView) {
        let Some(text) = self.recorder.record(view) else { return };
        let (folder, call, ended_ms) = (self.flights.clone(), view.id.to_string(), view.ended_ms.unwrap_or_default());
        tokio::task::spawn_blocking(move || match flight::write(&folder, &call, ended_ms, &text) {
            Ok(path) => tracing::warn!(call, flight = %path.display(), "the call ended badly; its datagrams are written down"),
            Err(error) => tracing::warn!(call, %error, "the call ended badly; its datagrams could not be written down"),
        });
    }

    fn publish(&mut self, now: Instant, publication: Publication) {
        match publication {
            Publication::Registered(view) => {
                tracing::debug!(account = view.account, contact = view.contact, flow = view.flow, "registered");
                self.live.registrations.insert(view.account.clone(), view);
            }
            Publication::Unregistered { account } => {
                tracing::debug!(account, "unregistered");
                self.live.registrations.remove(&account);
            }
            Publication::Record(record) => {
                tracing::info!(
                    account = record.account,
                    door = record.door,
                    outcome = record.outcome,
                    call = record.call,
                    "unlock"
                );
                // The writer is gone only when the server is.
                let _ = self.records.send(*record);
            }
            Publication::Call(view) => {
                let before = self.live.calls.get(&view.id).map(|call| call.state);
                if before != Some(view.state) {
                    tracing::info!(call = %view.id, from = view.from, to = view.to, state = view.state, reason = view.end_reason, "call");
                    if view.state == "ended" {
                        self.ended.push_back(view.id.clone());
                        if self.landing.len() < LANDING {
                            self.landing.push_back((now + AFTERMATH, CallView::clone(&view)));
                        }
                    }
                }
                self.live.calls.insert(view.id.clone(), *view);
                if self.ended.len() > ENDED_KEPT
                    && let Some(oldest) = self.ended.pop_front()
                {
                    self.live.calls.remove(&oldest);
                }
            }
        }
    }
}

fn session_of(command: &Command) -> SessionId {
    match command {
        Command::Open { session, .. }
        | Command::Put { session, .. }
        | Command::Talk { session, .. }
        | Command::Ringback { session, .. }
        | Command::Remove { session, .. }
        | Command::Close { session } => *session,
    }
}
