//! The SIP thread: the clock and the sockets around the [`Switchboard`].
//!
//! One turn after another: a due deadline, media events, orders of the HTTP side, messages of devices and news of their
//! connections; after each its effects, in order. Nothing here waits for anything but the next input, and nothing slow runs here.

#![allow(clippy::disallowed_methods)] // a shell: owns the clock, the thread and its tasks

use crate::control::{Answer, Numbers, OrderReceiver};
use crate::events::feed::Said;
use crate::flight::{self, FlightRecorder};
use crate::keeper::Keeper;
use crate::live::{CallId, CallView, Live};
use crate::pictures::Pictures;
use crate::record::Entry;
use crate::recorder::Recorder;
use crate::switchboard::Switchboard;
use crate::switchboard::limits::Sender;
use crate::transport::strangers::{Datagram, Strangers};
use crate::transport::udp::{BATCH, Batch, Bound};
use crate::transport::wires::Wires;
use crate::transport::{Counts, Incoming};
use crate::turn::{Effect, Publication};
use media::command::{Command, Event, SessionId, WorkerId};
use sip_core::location::Unbound;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Messages of connections that may wait; a connection waits when it is full.
pub const MESSAGE_QUEUE: usize = 8192;
/// Media events that may wait; a worker waits when it is full, it never loses one.
pub const MEDIA_QUEUE: usize = 4096;
/// Messages handled before deadlines, media and orders get their turn again.
const BUDGET: usize = 64;
/// The same for strangers, who never wait for all others to be served: every phone is one until it has registered.
const STRANGERS_BUDGET: usize = 16;
/// Datagrams sorted into known and strange in one turn.
const SORTED: usize = 1024;
/// Under load the sockets are looked at once a tick and what came meanwhile is served in one go: most of what a datagram costs
/// in the kernel is waking for it, here and at its sender. Without load each is served when it comes.
const TICK: Duration = Duration::from_millis(1);
/// It is load when a window brings so many datagrams.
const WINDOW: Duration = Duration::from_millis(10);
const LOAD: usize = 16;
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
    /// What connections say; their tasks run elsewhere.
    pub connections: mpsc::Receiver<Incoming>,
    pub counts: Arc<Counts>,
    pub orders: OrderReceiver,
    pub media_events: mpsc::Receiver<Event>,
    pub send_media: SendMedia,
    pub live: Arc<Live>,
    /// Where bindings wait to be written.
    pub keeper: Arc<Keeper>,
    /// Where entries of the record go to be written.
    pub records: Recorder,
    /// Where events go to be told.
    pub events: mpsc::UnboundedSender<Said>,
    /// What of it is on the disk, by the numbers of those who await it.
    pub committed: mpsc::UnboundedReceiver<Vec<u64>>,
    /// Where key frames go to become pictures.
    pub pictures: Arc<Pictures>,
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
        let Driver { mut switchboard, udp, mut connections, counts, mut orders, mut media_events, mut committed, .. } = self;
        let Driver { send_media, live, keeper, records, events, pictures, flights, mut drain, .. } = self;
        let (mut batch, mut next, mut pace) = (Batch::default(), 0, Pace::new(Instant::now()));
        let udp = udp.into_iter().map(Bound::open).collect::<io::Result<_>>()?;
        let mut shell = Shell {
            wires: Wires::new(udp, counts),
            strangers: Strangers::default(),
            send_media,
            live,
            keeper,
            records,
            events,
            pictures,
            recorder: FlightRecorder::default(),
            flights,
            landing: VecDeque::new(),
            ended: VecDeque::new(),
            waiting: HashMap::new(),
            effects: Vec::new(),
            doing: Vec::new(),
        };
        let mut draining: Option<Instant> = None;
        loop {
            let deadlines = [switchboard.next_deadline(), draining, shell.next_deadline(), pace.rest];
            let now;
            tokio::select! {
                biased;
                () = sleep_until(deadlines.into_iter().flatten().min()) => {
                    now = Instant::now();
                    pace.rested(now);
                    switchboard.timeout(now, &mut shell.effects);
                }
                Some(event) = media_events.recv() => {
                    now = Instant::now();
                    switchboard.media(now, event, &mut shell.effects);
                }
                Some(numbers) = committed.recv() => {
                    now = Instant::now();
                    switchboard.committed(now, &numbers, &mut shell.effects);
                }
                Some((order, reply)) = orders.recv() => {
                    now = Instant::now();
                    match switchboard.command(now, order, &mut shell.effects) {
                        Answer::Later { ticket } => drop(shell.waiting.insert(ticket, reply)),
                        mut answer => {
                            if let Answer::Numbers(numbers) = &mut answer {
                                shell.add_numbers(numbers);
                            }
                            let _ = reply.send(answer);
                        }
                    }
                }
                Some(news) = connections.recv() => {
                    now = Instant::now();
                    shell.hear(now, &mut switchboard, news, &mut connections);
                    shell.serve_strangers(now, &mut switchboard);
                }
                socket = shell.wires.readable(next), if pace.rest.is_none() => {
                    now = Instant::now();
                    next = socket + 1;
                    pace.read(now, shell.read(now, &mut switchboard, socket, &mut batch));
                    shell.serve_strangers(now, &mut switchboard);
                }
                () = std::future::ready(()), if !shell.strangers.is_empty() => {
                    now = Instant::now();
                    shell.serve_strangers(now, &mut switchboard);
                }
                Ok(patience) = &mut drain, if draining.is_none() => {
                    now = Instant::now();
                    switchboard.drain();
                    draining = Some(now + patience);
                }
            }
            shell.part_from_strangers(now, &mut switchboard);
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

/// When the sockets are looked at.
struct Pace {
    window: Instant,
    count: usize,
    load: bool,
    /// Until then they are left alone.
    rest: Option<Instant>,
}

impl Pace {
    fn new(now: Instant) -> Pace {
        Pace { window: now, count: 0, load: false, rest: None }
    }

    fn read(&mut self, now: Instant, count: usize) {
        if now >= self.window + WINDOW {
            (self.load, self.count, self.window) = (self.count >= LOAD && now < self.window + WINDOW * 2, 0, now);
        }
        self.count += count;
        // Only once there is nothing left to read.
        self.rest = (self.load && count < BATCH).then_some(now + TICK);
    }

    fn rested(&mut self, now: Instant) {
        self.rest.take_if(|until| *until <= now);
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
    strangers: Strangers,
    send_media: SendMedia,
    live: Arc<Live>,
    keeper: Arc<Keeper>,
    records: Recorder,
    events: mpsc::UnboundedSender<Said>,
    pictures: Arc<Pictures>,
    recorder: FlightRecorder,
    flights: PathBuf,
    /// Ended calls whose last datagrams are still awaited.
    landing: VecDeque<(Instant, CallView)>,
    ended: VecDeque<CallId>,
    /// Orders whose answer comes later, by ticket; every wish to open a door ends within seconds.
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
    effects: Vec<Effect>,
    /// The other of two buffers that take turns, kept for its capacity.
    doing: Vec<Effect>,
}

impl Shell {
    /// Handles the datagrams of those we know, up to the budget; the others wait in their own queue.
    /// Says how many there were.
    fn read(&mut self, now: Instant, switchboard: &mut Switchboard, socket: usize, batch: &mut Batch) -> usize {
        let (mut sorted, mut handled) = (0, 0);
        let Shell { wires, strangers, recorder, effects, .. } = self;
        while sorted < SORTED && handled < BUDGET {
            let read = wires.read(socket, batch, |flow, bytes| match switchboard.admit(now, &flow) {
                Some(Sender::Known) => {
                    handled += 1;
                    recorder.datagram(now, true, flow, &bytes);
                    switchboard.serve(now, flow, bytes, effects);
                }
                Some(Sender::Stranger) => strangers.put((flow, bytes)),
                None => {}
            });
            sorted += read;
            if read < BATCH {
                break;
            }
        }
        sorted
    }

    /// Handles what connections have brought, up to the budget.
    fn hear(&mut self, now: Instant, switchboard: &mut Switchboard, first: Incoming, queue: &mut mpsc::Receiver<Incoming>) {
        let mut next = Some(first);
        for _ in 0..BUDGET {
            let Some(news) = next else { return };
            self.news(now, switchboard, news);
            next = queue.try_recv().ok();
        }
        if let Some(news) = next {
            self.news(now, switchboard, news);
        }
    }

    fn news(&mut self, now: Instant, switchboard: &mut Switchboard, news: Incoming) {
        match news {
            Incoming::Message(flow, bytes) => match switchboard.admit(now, &flow) {
                Some(Sender::Known) => self.serve(now, switchboard, (flow, bytes)),
                Some(Sender::Stranger) => self.strangers.put((flow, bytes)),
                None => {}
            },
            Incoming::Opened(opened) => {
                // The same addresses once more, before the end of the old connection was told.
                if let Some(before) = self.wires.open(now, opened) {
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

    fn serve_strangers(&mut self, now: Instant, switchboard: &mut Switchboard) {
        for _ in 0..STRANGERS_BUDGET {
            let Some(datagram) = self.strangers.take() else { return };
            self.serve(now, switchboard, datagram);
        }
    }

    fn serve(&mut self, now: Instant, switchboard: &mut Switchboard, (flow, bytes): Datagram) {
        self.recorder.datagram(now, true, flow, &bytes);
        switchboard.serve(now, flow, bytes, &mut self.effects);
    }

    /// Does everything the switchboard wants, including what follows from a media worker that could not take a command and
    /// from a connection that is gone.
    fn perform(&mut self, now: Instant, switchboard: &mut Switchboard) {
        let mut refused: Vec<SessionId> = Vec::new();
        loop {
            let mut doing = std::mem::replace(&mut self.effects, std::mem::take(&mut self.doing));
            for effect in doing.drain(..) {
                match effect {
                    Effect::Send(transmit) => {
                        if !self.wires.send(&transmit) {
                            switchboard.flow_closed(now, transmit.flow, &mut self.effects);
                        }
                        self.recorder.datagram(now, false, transmit.flow, &transmit.bytes);
                    }
                    Effect::Media { worker, command } => {
                        let session = session_of(&command);
                        let picture = matches!(*command, Command::TakePicture { .. });
                        if !(self.send_media)(worker, *command) {
                            self.media_refuses(now, switchboard, session, picture, &mut refused);
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

    /// A worker's queue is full: a call goes on without a picture, but not without media.
    fn media_refuses(
        &mut self,
        now: Instant,
        switchboard: &mut Switchboard,
        session: SessionId,
        picture: bool,
        refused: &mut Vec<SessionId>,
    ) {
        if picture {
            switchboard.media(now, Event::Picture { session, picture: None }, &mut self.effects);
        } else if !refused.contains(&session) {
            refused.push(session);
            switchboard.media_refused(now, session, &mut self.effects);
        }
    }

    /// What the transports and the studio count.
    fn add_numbers(&self, numbers: &mut Numbers) {
        numbers.events.extend(self.wires.counts());
        numbers.events.extend(self.pictures.counts());
        numbers.events.insert("stranger_queue_full", self.strangers.lost());
        numbers.events.insert("record_entries_lost", self.records.lost());
        numbers.gauges.push(("record_entries_waiting", self.records.waiting()));
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.landing.front().map(|(at, _)| *at).into_iter().chain(self.wires.next_deadline()).min()
    }

    /// Connections on which nobody has signed in time are closed.
    fn part_from_strangers(&mut self, now: Instant, switchboard: &mut Switchboard) {
        while let Some(flow) = self.wires.due(now) {
            if !switchboard.knows(now, &flow) {
                self.wires.close_strange(&flow);
                switchboard.flow_closed(now, flow, &mut self.effects);
            }
        }
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
            Publication::Registered { registration, refresh } => {
                let binding = &registration.binding;
                let (account, contact) = (&*binding.account, &*binding.contact_uri);
                if refresh {
                    tracing::debug!(account, "registered again");
                } else {
                    tracing::info!(account, contact, flow = %binding.flow, contested = binding.contested, "registered");
                }
                self.live.registrations.insert(binding.account.clone(), registration);
            }
            Publication::Unregistered { account, why } => {
                tracing::info!(account = &*account, ?why, "unregistered");
                if let Some((account, registration)) = self.live.registrations.remove(&account)
                    && why != Unbound::AccountRemoved
                {
                    self.live.last_seen.insert(account, registration.registered_ms);
                }
            }
            Publication::RingsTooOften { door } => {
                tracing::warn!(door, "this door rings too often: a stuck button, or somebody uses its account");
            }
            Publication::Keep { account, kept } => self.keeper.keep(account, kept),
            Publication::Unlocked { ticket, outcome, took } => {
                if let Some(reply) = self.waiting.remove(&ticket) {
                    let _ = reply.send(Answer::Unlocked { outcome, took });
                }
            }
            Publication::Picture(job) => self.pictures.put(*job),
            Publication::Record(record) => {
                tracing::info!(
                    account = record.account,
                    door = record.door,
                    outcome = record.outcome,
                    call = record.call,
                    "unlock"
                );
                // The writer is gone only when the server is.
                self.records.write(Entry::Ended(record));
            }
            Publication::Asked(record) => self.records.write(Entry::Asked(record)),
            Publication::Watched(watched) => self.records.write(Entry::Watched(watched)),
            // The receiver is gone only when the server is.
            Publication::Event(event) => drop(self.events.send(Said::Event(event))),
            Publication::Passage(passage) => drop(self.events.send(Said::Passage(passage))),
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
        | Command::AskKeyFrame { session }
        | Command::TakePicture { session }
        | Command::Watch { session, .. }
        | Command::Press { session, .. }
        | Command::Keys { session, .. }
        | Command::Remove { session, .. }
        | Command::Close { session } => *session,
    }
}
