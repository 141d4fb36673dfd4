//! `doorline serve`: config → store → pool → switchboard → run → drain.

#![allow(clippy::disallowed_methods)] // a shell: starts threads and reads clocks

use crate::config::{self, Config};
use crate::control::Control;
use crate::directory::Directory;
use crate::driver::{Driver, MEDIA_QUEUE, MESSAGE_QUEUE};
use crate::events;
use crate::http::caller::Doorkeeper;
use crate::http::{self, ApiState};
use crate::keeper::{Keeper, Rows};
use crate::keyfile;
use crate::live::Live;
use crate::lock::Held;
use crate::pictures::Pictures;
use crate::pictures::album::{Album, Retention};
use crate::recorder::Recorder;
use crate::store::{self, Store};
use crate::switchboard::{Parts, Switchboard};
use crate::transport::Counts;
use crate::transport::listener::{Gate, Limits, Listener};
use crate::transport::tls::Tls;
use crate::transport::udp::Bound;
use crate::turn::Settings;
use crate::unlock::lock::Spans;
use anyhow::Context;
use media::pool::{Pool, PoolConfig};
use media::ports::PortStock;
use sip_core::flow::Transport;
use std::fs;
use std::io::{IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

/// Holds the key and secret of the app that was made at the first start.
const FIRST_APP: &str = "first-app.txt";

/// Runs the server until SIGTERM or SIGINT has drained it.
pub fn run(config: &Config) -> anyhow::Result<()> {
    // TLS, HTTP and the like; signalling has a thread of its own.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).on_thread_start(store::step_back).enable_all().build()?;
    runtime.block_on(serve(config))
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    fs::create_dir_all(&config.top.data_dir).with_context(|| format!("data_dir {}", config.top.data_dir.display()))?;
    // Before anything is read: what lies there is ours until the end.
    let _held = Held::new(&config.top.data_dir)?;
    let store = Store::open_with(&database(config), config.store.key().as_ref()).context("the database")?;
    let store = store.with_group_members(config.api.group_members);
    store.close_open_wishes().await.context("the database")?;
    let mut directory = Directory::default();
    directory.apply(store.load().await.context("the database")?);
    let (accounts, groups, rooms) = directory.sizes();
    tracing::info!(accounts, groups, rooms, "directory loaded");

    let listener = TcpListener::bind(&config.api.listen).await.with_context(|| format!("api.listen {}", config.api.listen))?;
    let udp = config.sip.udp.iter().map(|address| bind_udp(address)).collect::<anyhow::Result<Vec<_>>>()?;
    let tls = config.tls.is_set().then(|| Tls::load(&config.tls.cert, &config.tls.key)).transpose();
    let tls = tls.map_err(anyhow::Error::msg)?.map(Arc::new);
    let counts = Arc::new(Counts::default());
    let listeners = listen(config, &udp, tls.as_ref(), &Gate::new(Limits::default(), counts.clone()))?;
    let sip_local = udp.first().map_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 6050)), Bound::local);

    let open: Vec<String> = (udp.iter().map(|socket| format!("sip=udp:{}", socket.local())))
        .chain(listeners.iter().map(|listener| format!("sip={}:{}", listener.transport(), listener.local())))
        .collect();

    let (media_events, media_inbox) = mpsc::channel(MEDIA_QUEUE);
    let bind_ip: IpAddr = config.media.bind_ip.parse()?;
    let (from, to) = config.media.port_range().context("media.ports")?;
    let pool_config = PoolConfig { bind_ip, ports: from..=to, workers: config.media.worker_count() };
    let on_event = move |event| {
        // The SIP thread is gone: nobody wants to know.
        let _ = media_events.blocking_send(event);
    };
    let (pool, bound) = Pool::start(&pool_config, on_event)?;
    if let Some(warning) = &bound.warning {
        tracing::warn!("{warning}");
    }

    let public_host = Some(config.sip.public_host.clone()).filter(|host| !host.is_empty());
    let mut domains = config.sip.domains.clone();
    domains.extend(public_host.clone());
    let public_ip: Option<IpAddr> = config.media.public_ip.parse().ok();
    let settings = Settings {
        domains,
        media_ip: public_ip.or((!bind_ip.is_unspecified()).then_some(bind_ip)),
        ring_timeout: Duration::from_secs(config.ring.timeout_s),
        talk_limit: Duration::from_secs(config.talk.limit_s),
        silence: (config.media.silence_s > 0).then(|| Duration::from_secs(config.media.silence_s)),
        ringback: config.ring.tone != "none",
        unlock_while_ringing: config.unlock.while_ringing,
        unlock_out_of_dialog: config.unlock.out_of_dialog,
        unlock: Spans {
            hold: Duration::from_secs(config.unlock.hold_s),
            timeout: Duration::from_millis(config.unlock.timeout_ms),
        },
        utc_offset_minutes: config.unlock.utc_offset_minutes,
        source_rate: config.sip.source_rate,
        sha256: config.sip.sha256,
        ping: (config.sip.ping_s > 0).then(|| Duration::from_secs(config.sip.ping_s)),
        door_alarm: (config.events.door_alarm_min > 0).then(|| Duration::from_secs(60 * u64::from(config.events.door_alarm_min))),
    };
    let epoch = (Instant::now(), i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?);
    let parts = Parts {
        settings,
        realm: config.sip.realm.clone(),
        public_host: public_host.clone(),
        directory,
        ports: PortStock::new(bound.pairs),
        seed: keyfile::random()?,
        // The nonces that devices hold stay valid over a restart (D-11).
        nonce_key: keyfile::read_or_make(&config.top.data_dir.join("nonce.key")).context("nonce.key")?,
        epoch,
    };
    let (records, unwritten) = Recorder::new();
    let (acknowledge, committed) = mpsc::unbounded_channel();
    let recording = tokio::spawn(unwritten.run(store.clone(), acknowledge));
    // Whatever lies where we were started from now: the helper is this program, not the next version of it.
    let (pictures, studio) = Pictures::new(album(config), store.clone(), "/proc/self/exe".into());
    let (stop_pictures, pictures_stopped) = oneshot::channel();
    let studio = tokio::spawn(studio.run(pictures_stopped));
    let (channels, say, feeding) = events::start(config, &store).await?;
    let log = channels.log.clone();
    let (control, orders) = Control::new();
    let live = Arc::new(Live::default());
    let keeper = Arc::new(Keeper::default());
    let mut switchboard = Switchboard::new(parts);
    // D-10: who was reachable is reachable again, before anybody can ask.
    let (mut rows, mut ours) = (Rows::default(), Vec::new());
    for (row, former) in store.bindings(epoch).await.context("the database")? {
        rows.put(former.binding.account.clone(), row);
        if udp.iter().any(|socket| socket.owns(former.binding.flow.local)) {
            ours.push(former);
        } else {
            keeper.keep(former.binding.account, None);
        }
    }
    for registration in switchboard.restore(epoch.0, ours) {
        live.registrations.insert(registration.binding.account.clone(), registration);
    }
    tracing::info!(bindings = live.registrations.len(), "registrations restored");
    let (stop_keeping, keeping_stopped) = oneshot::channel();
    let keeping = tokio::spawn(keeper.clone().run(store.clone(), rows, keeping_stopped));
    // Connections live here, TLS is work; the SIP thread hears of them through one queue.
    let (news, connections) = mpsc::channel(MESSAGE_QUEUE);
    for listener in listeners {
        tokio::spawn(listener.run(news.clone()));
    }
    let (drain, drained) = oneshot::channel();
    let (finished, done) = oneshot::channel();
    let driver = Driver {
        switchboard,
        udp,
        connections,
        counts,
        orders,
        media_events: media_inbox,
        send_media: Box::new(move |worker, command| pool.send(worker, command).is_ok()),
        live: live.clone(),
        keeper,
        records,
        events: say,
        committed,
        pictures: pictures.clone(),
        flights: config.top.data_dir.join("flights"),
        drain: drained,
    };
    std::thread::Builder::new().name("sip".into()).spawn(move || {
        let _ = finished.send(driver.run());
    })?;

    let reachable = reachable_ip(sip_local.ip());
    let sip_host = public_host.unwrap_or_else(|| reachable.to_string());
    let doorkeeper = Arc::new(doorkeeper(config, &store).await?);
    let draining: Arc<AtomicBool> = Arc::default();
    let state = ApiState {
        store: store.clone(),
        control,
        live,
        pictures,
        events: channels,
        draining: draining.clone(),
        sip_host: sip_host.as_str().into(),
        sip_port: sip_local.port(),
        host_ip: sip_host.parse().unwrap_or(reachable),
        server_port: config.api.server_port,
        started_ms: epoch.1,
        doorkeeper,
    };
    let api = listener.local_addr()?;
    let (stop_http, http_stopped) = oneshot::channel::<()>();
    let http = http::listener::serve(listener, tls.clone().filter(|_| config.api.tls), http::router(state), async {
        let _ = http_stopped.await;
    });
    let http = tokio::spawn(http);
    let scheme = if config.api.tls { "https" } else { "http" };
    println!("doorline ready {} api={scheme}://{api}", open.join(" "));
    std::io::stdout().flush()?;

    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut done = done;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => reload(tls.as_deref()),
            ended = &mut done => {
                ended.context("the SIP thread panicked")?.context("the SIP thread")?;
                anyhow::bail!("the SIP thread ended");
            }
        }
    }
    tracing::info!(seconds = config.top.drain_s, "draining");
    draining.store(true, Ordering::Relaxed);
    let _ = drain.send(Duration::from_secs(config.top.drain_s));
    let _ = done.await;
    let (_, _) = (stop_keeping.send(()), stop_pictures.send(()));
    keeping.await?;
    // The SIP thread is done, so this ends with its last word.
    recording.await?;
    studio.await?;
    // The last events are told and written; then the streams end, or the API would wait for them.
    feeding.await?;
    log.close();
    let _ = stop_http.send(());
    http.await?;
    store.settle().await;
    Ok(())
}

/// The file of the store.
pub fn database(config: &Config) -> PathBuf {
    config.top.data_dir.join("doorline.sqlite")
}

/// Who may call the API. Where no app is set there is one of our own making; its secret is shown once, to a person or in a file
/// that only the owner reads, never in a log.
async fn doorkeeper(config: &Config, store: &Store) -> anyhow::Result<Doorkeeper> {
    let mut api = config.api.clone();
    if let Some(first) = api.apps.first() {
        let own = store.own_app(first.key.clone()).await.context("the database")?;
        if !api.apps.iter().any(|app| app.key == own) {
            tracing::warn!(
                own,
                "the app that stood for the installation itself is not in api.apps: what is the installation's own is closed to all of them"
            );
        }
        return Ok(Doorkeeper::new(&api, &own));
    }
    let app = match store.made_app().await.context("the database")? {
        Some(app) => app,
        None => {
            let app = store::new_app().context("an app for the API")?;
            // In this order: one that nobody has seen would be of no use to anybody.
            show(&config.top.data_dir.join(FIRST_APP), &app).context(FIRST_APP)?;
            store.keep_app(app.clone()).await.context("the database")?;
            app
        }
    };
    let own = app.key.clone();
    api.apps.push(app);
    Ok(Doorkeeper::new(&api, &own))
}

fn show(path: &Path, app: &config::App) -> std::io::Result<()> {
    let text = format!("X-Ca-Key {}\nsecret {}\n", app.key, app.secret.reveal());
    if std::io::stderr().is_terminal() {
        eprintln!("doorline: an app was made for the HTTP API; this is shown once:\n{text}");
        return Ok(());
    }
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    tracing::info!(path = %path.display(), "an app was made for the HTTP API: its key and secret are there; keep them and delete it");
    Ok(())
}

/// Where pictures are.
pub fn album(config: &Config) -> Album {
    let retention = Retention { days: config.records.keep_days, bytes: i64::from(config.records.snapshots_mb) * 1_000_000 };
    Album::new(config.top.data_dir.join("snapshots"), retention)
}

/// Opens the listeners of all streams.
fn listen(config: &Config, udp: &[Bound], tls: Option<&Arc<Tls>>, gate: &Arc<Gate>) -> anyhow::Result<Vec<Listener>> {
    let transports = [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss];
    let mut listeners = Vec::new();
    for (transport, (_, addresses)) in transports.into_iter().zip(config.sip.listeners()).skip(1) {
        let tls = tls.filter(|_| matches!(transport, Transport::Tls | Transport::Wss));
        for address in addresses {
            let mut wanted: SocketAddr = address.parse()?;
            // A port of the system's choice for UDP is the same for TCP, as one that was chosen would be.
            let twin = udp.iter().find(|socket| socket.local().ip() == wanted.ip());
            if let (Transport::Tcp, 0, Some(twin)) = (transport, wanted.port(), twin) {
                wanted.set_port(twin.local().port());
            }
            listeners.push(Listener::bind(transport, wanted, tls.cloned(), gate.clone())?);
        }
    }
    Ok(listeners)
}

/// SIGHUP: what can be read again is.
fn reload(tls: Option<&Tls>) {
    match tls.map(Tls::reload) {
        Some(Ok(())) => tracing::info!("the certificate was read again"),
        Some(Err(error)) => tracing::error!(%error, "the new certificate cannot be used; the old one stays"),
        None => tracing::info!("SIGHUP: nothing to read again"),
    }
}

fn bind_udp(address: &str) -> anyhow::Result<Bound> {
    Ok(Bound::bind(address.parse()?)?)
}

/// The address other machines reach us at, for a server bound to all of them: the one the default route leaves from.
/// Connecting a UDP socket sends nothing.
fn reachable_ip(bound: IpAddr) -> IpAddr {
    if !bound.is_unspecified() {
        return bound;
    }
    let probe = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr().map(|address| address.ip())
    };
    probe().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}
