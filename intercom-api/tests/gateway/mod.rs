//! The provisioning API in this process, with its real store and any caller one likes; signalling is a directory that says yes.

#![allow(dead_code, clippy::disallowed_methods)] // shared by several tests, none of which uses all of it; sockets

use axum::routing::any;
use axum::{Extension, Router};
use fixtures::process::Folder;
use intercom_api::config::{Api, Config};
use intercom_api::control::{Answer, Control, Order};
use intercom_api::directory::Directory;
use intercom_api::events;
use intercom_api::http::caller::{Caller, Doorkeeper, May};
use intercom_api::http::{ApiState, seed};
use intercom_api::live::Live;
use intercom_api::model::{AccountType, DirectoryChange, Tenant};
use intercom_api::pictures::Pictures;
use intercom_api::pictures::album::{Album, Retention};
use intercom_api::store::{DoorUnit, NewAccount, Space, Store};
use intercom_api::unlock::Outcome;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;

pub struct Gateway {
    folder: Folder,
    pub state: ApiState,
    /// Doors that were asked to open, by whom.
    pub opened: Arc<Mutex<Vec<(String, String)>>>,
    /// How the next ones answer.
    pub outcome: Arc<Mutex<Outcome>>,
}

/// Whoever reaches everything.
pub fn owner() -> Caller {
    Caller { name: "owner".into(), tenant: Tenant { app: "".into(), all: true }, may: May::ALL }
}

/// An app that has signed its request.
pub fn app(key: &str) -> Caller {
    Caller { name: key.into(), tenant: Tenant { app: key.into(), all: false }, may: May::ALL }
}

impl Gateway {
    pub async fn start() -> Gateway {
        let folder = Folder::new("gateway");
        let store = Store::open(&folder.path().join("doorline.sqlite")).unwrap();
        let album = Album::new(folder.path().join("snapshots"), Retention { days: 1, bytes: 1 });
        let (pictures, _) = Pictures::new(album, store.clone(), "/proc/self/exe".into());
        let (control, mut orders) = Control::new();
        let (opened, outcome) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Outcome::Opened)));
        let (doors, ending) = (opened.clone(), outcome.clone());
        tokio::spawn(async move {
            let mut directory = Directory::default();
            while let Some((order, reply)) = orders.recv().await {
                let answer = match order {
                    Order::Apply(changes) => {
                        directory.apply(changes);
                        Answer::Done
                    }
                    Order::Unlock { door, asker } => {
                        doors.lock().unwrap().push((door, asker));
                        Answer::Unlocked { outcome: *ending.lock().unwrap(), took: Duration::ZERO }
                    }
                    _ => Answer::NotFound,
                };
                let _ = reply.send(answer);
            }
        });
        let (events, _, _) = events::start(&Config::default(), &store).await.unwrap();
        let state = ApiState {
            events,
            store,
            control,
            live: Arc::new(Live::default()),
            pictures,
            draining: Arc::default(),
            sip_host: "sip.example.com".into(),
            sip_port: 6050,
            host_ip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
            server_port: false,
            started_ms: i64::MAX,
            doorkeeper: Arc::new(Doorkeeper::new(&Api::default(), "")),
        };
        Gateway { folder, state, opened, outcome }
    }

    /// The API as this caller meets it.
    pub async fn of(&self, caller: Caller) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = listener.local_addr().unwrap();
        let routes = Router::new().fallback(any(seed::handle)).layer(Extension(caller)).with_state(self.state.clone());
        tokio::spawn(async { axum::serve(listener, routes).await });
        Client { api }
    }

    /// What the examples of the specification speak of: two doors, two phones, two groups, a unit with a map, a space.
    pub async fn provision(&self, tenant: &Tenant, suffix: &str) {
        let store = &self.state.store;
        let account = |number: &str, kind| NewAccount {
            number: format!("{number}{suffix}"),
            password: format!("secret-of-{number}"),
            kind,
            name: None,
        };
        let (door, phone) = (AccountType::Door, AccountType::App);
        let accounts = [("d10000000a", door), ("d10000000b", door), ("u10000000a", phone), ("u10000000b", phone)];
        let accounts = accounts.map(|(number, kind)| account(number, kind)).to_vec();
        let mut changes: Vec<DirectoryChange> = store.add_accounts(tenant.clone(), accounts, 1).await.unwrap().1;
        let phones = vec![format!("u10000000a{suffix}"), format!("u10000000b{suffix}")];
        let groups = vec![(format!("g10000000a{suffix}"), phones, None), (format!("g10000000b{suffix}"), Vec::new(), None)];
        changes.extend(store.add_groups(tenant.clone(), groups, 1).await.unwrap().1);
        let unit = DoorUnit {
            iot_id: format!("iot-1{suffix}"),
            number: format!("d10000000a{suffix}"),
            host: "192.0.2.10".into(),
            port: "6050".into(),
        };
        changes.extend(store.sync_door(tenant.clone(), unit, "secret-of-d10000000a".into()).await.unwrap());
        let maps = vec![("1-9-3-1202".into(), format!("g10000000a{suffix}"))];
        changes.extend(store.map_rooms(tenant.clone(), format!("iot-1{suffix}"), maps).await.unwrap());
        let space = Space { id: format!("space-1202{suffix}"), group: format!("g10000000a{suffix}"), room: "1-9-3-1202".into() };
        store.put_space(tenant.clone(), space).await.unwrap();
        self.state.control.order(Order::Apply(changes)).await.unwrap();
    }

    /// Everything the API may change, as it is in the file.
    pub fn dump(&self) -> Vec<String> {
        let file = rusqlite::Connection::open(self.folder.path().join("doorline.sqlite")).unwrap();
        let mut rows = Vec::new();
        for table in ["account", "sip_group", "member", "door", "room", "space", "community", "access"] {
            let mut query = file.prepare(&format!("SELECT * FROM {table}")).unwrap();
            let columns = query.column_count();
            let read = |row: &rusqlite::Row<'_>| {
                let cells = (0..columns).map(|column| row.get::<_, rusqlite::types::Value>(column));
                Ok(format!("{table} {:?}", cells.collect::<Result<Vec<_>, _>>()?))
            };
            rows.extend(query.query_map([], read).unwrap().map(Result::unwrap));
        }
        rows.sort();
        rows
    }
}

/// One caller's way to the API.
pub struct Client {
    api: SocketAddr,
}

impl Client {
    /// Bare parameters, no version.
    pub fn call(&self, path: &str, params: &Value) -> Value {
        self.post(path, "", params.to_string().as_bytes())
    }

    pub fn code(&self, path: &str, params: &Value) -> u64 {
        self.call(path, params)["code"].as_u64().unwrap()
    }

    /// In the envelope, with an `apiVer` and perhaps a token.
    pub fn envelope(&self, path: &str, version: &str, token: Option<&str>, params: &Value) -> Value {
        let request = json!({"apiVer": version, "cloudToken": token, "language": "en-US"});
        let body = json!({"id": "a1", "version": "1.0.0", "request": request, "params": params});
        self.post(path, "", body.to_string().as_bytes())
    }

    /// Any body, with further lines of the head. The HTTP status must be the code's (D-32).
    pub fn post(&self, path: &str, head: &str, body: &[u8]) -> Value {
        self.send("POST", path, head, body)
    }

    pub fn send(&self, method: &str, path: &str, head: &str, body: &[u8]) -> Value {
        let mut stream = TcpStream::connect(self.api).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}Content-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        let reply: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{head}\n{body}"));
        let status: u64 = head.split(' ').nth(1).unwrap().parse().unwrap();
        let wanted = match reply["code"].as_u64().unwrap() {
            20003 => 404,
            20004 | 460 => 400,
            600.. => 502,
            code => code,
        };
        assert_eq!(status, wanted, "D-32: {reply}");
        assert!(wanted == 200 || (reply["message"].is_string() && reply["data"].is_null()), "{reply}");
        reply
    }
}
