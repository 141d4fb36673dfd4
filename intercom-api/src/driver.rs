//! The SIP thread: the clock and the sockets around the [`Switchboard`].
//!
//! One turn after another: a due deadline, media events, orders of the HTTP side, messages of devices and news of their
//! connections; after each its effects, in order. Nothing here waits for anything but the next input, and nothing slow runs here.

#![allow(clippy::disallowed_methods)] // a shell: owns the clock, the thread and its tasks

use crate::control::OrderReceiver;
use crate::flight::{self, FlightRecorder};
use crate::live::{CallId, CallView, Live};
use crate::record::Record;
use crate::switchboard::Switchboard;
use crate::transport::listener::Listener;
use crate::transport::udp::Udp;
use crate::transport::wires::Wires;
use crate::transport::{Counts, Incoming};
use crate::turn::{Effect, Publication};
use media::command::{Command, Event, SessionId, WorkerId};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Messages that may wait for the SIP thread.
const MESSAGE_QUEUE: usize = 8192;
/// Media events that may wait; a worker waits when it is full, it never loses one.
pub const MEDIA_QUEUE: usize = 4096;
/// Messages handled before deadlines, media and orders get their turn again.
const BUDGET: usize = 64;
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
    pub udp: Vec<Udp>,
    pub listeners: Vec<Listener>,
    pub counts: Arc<Counts>,
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
    /// Runs until drained. Needs a tokio runtime on its own thread.
    pub async fn run(self) {
        let Driver {
            mut switchboard,
            udp,
            listeners,
            counts,
            mut orders,
            mut media_events,
            send_media,
            live,
            records,
            flights,
            mut drain,
        } = self;
        let (queue, mut incoming) = mpsc::channel(MESSAGE_QUEUE);
        for socket in &udp {
            tokio::spawn(socket.clone().read(queue.clone()));
        }
        for listener in listeners {
            tokio::spawn(listener.run(queue.clone()));
        }
        let mut shell = Shell {
            wires: Wires::new(udp, counts),
            send_media,
            live,
            records,
            recorder: FlightRecorder::default(),
            flights,
            landing: VecDeque::new(),
            ended: VecDeque::new(),
            effects: Vec::new(),
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
                Some(first) = incoming.recv() => {
                    now = Instant::now();
                    receive(now, &mut switchboard, first, &mut incoming, &mut shell);
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
                    return;
                }
            }
        }
    }
}

/// Handles what came first and what else already waits, up to the budget.
fn receive(
    now: Instant,
    switchboard: &mut Switchboard,
    first: Incoming,
    queue: &mut mpsc::Receiver<Incoming>,
    shell: &mut Shell,
) {
    shell.receive(now, switchboard, first);
    for _ in 0..BUDGET {
        let Ok(next) = queue.try_recv() else { return };
        shell.receive(now, switchboard, next);
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// The hands of the driver.
struct Shell {
    wires: Wires,
    send_media: SendMedia,
    live: Arc<Live>,
    records: mpsc::UnboundedSender<Record>,
    recorder: FlightRecorder,
    flights: PathBuf,
    /// Ended calls whose last datagrams are still awaited.
    landing: VecDeque<(Instant, CallView)>,
    ended: VecDeque<CallId>,
    effects: Vec<Effect>,
}

impl Shell {
    fn receive(&mut self, now: Instant, switchboard: &mut Switchboard, incoming: Incoming) {
        match incoming {
            Incoming::Message(flow, bytes) => {
                self.recorder.datagram(now, true, flow, bytes.clone());
                switchboard.receive(now, flow, bytes, &mut self.effects);
            }
            Incoming::Opened(opened) => {
                // The same addresses once more, before the end of the old connection was told.
                if let Some(before) = self.wires.open(opened) {
                    switchboard.flow_closed(now, before, &mut self.effects);
                }
            }
            Incoming::Closed { flow, id } => {
                if self.wires.close(&flow, id) {
                    switchboard.flow_closed(now, flow, &mut self.effects);
                }
            }
        }
    }

    /// Does everything the switchboard wants, including what follows from a media worker that could not take a command and
    /// from a connection that is gone.
    fn perform(&mut self, now: Instant, switchboard: &mut Switchboard) {
        let mut refused: Vec<SessionId> = Vec::new();
        loop {
            for effect in std::mem::take(&mut self.effects) {
                match effect {
                    Effect::Send(transmit) => {
                        if !self.wires.send(&transmit) {
                            switchboard.flow_closed(now, transmit.flow, &mut self.effects);
                        }
                        self.recorder.datagram(now, false, transmit.flow, transmit.bytes);
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
                tracing::info!(account = view.account, contact = view.contact, flow = view.flow, "registered");
                self.live.registrations.insert(view.account.clone(), view);
            }
            Publication::Unregistered { account } => {
                tracing::info!(account, "unregistered");
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
