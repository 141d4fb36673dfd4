//! Who may what: every road, asked by every kind of caller.

use super::caller::{Caller, Doorkeeper, May};
use super::*;
use crate::config::Config;
use crate::control::{Answer, OrderReceiver};
use crate::events::selection::Selection;
use crate::live::{CallId, CallView, Registration};
use crate::model::{Account, AccountType, App, Secret, Tenant};
use crate::pictures::Snapshot;
use crate::pictures::album::{Album, Retention};
use crate::record::{Entry, Record, Wanted};
use crate::store::{Hook, NewAccount, Origin};
use axum::body::{Body, to_bytes};
use axum::extract::{Extension, Request};
use fixtures::process::Folder;
use serde_json::{Value, json};
use sip_core::flow::{Flow, Transport};
use sip_core::location::Binding;
use tower::ServiceExt;

/// Reaches everything, as the operators do; `own` and `other` are apps.
const OWNER: (&str, bool, May) = ("", true, May::ALL);
const OPERATOR: (&str, bool, May) = ("", true, May { own: false, passwords: false, pictures: false });
const VIEWER: (&str, bool, May) = ("", true, May { own: false, passwords: false, pictures: true });
const OWN: (&str, bool, May) = ("own", false, May::ALL);
const OTHER: (&str, bool, May) = ("other", false, May::ALL);
const ALL: [(&str, bool, May); 5] = [OWNER, OPERATOR, VIEWER, OWN, OTHER];

fn caller((app, all, may): (&str, bool, May)) -> Caller {
    Caller { name: "x".into(), tenant: Tenant { app: app.into(), all }, may }
}

/// A house of the app `own`: door, phone, group, a call, a registration, an entry of the record and its picture.
struct House {
    state: ApiState,
    /// Number of the entry that has a picture.
    record: i64,
    _folder: Folder,
}

impl House {
    async fn build() -> House {
        let folder = Folder::new("roles");
        let store = Store::open(&folder.path().join("db")).unwrap();
        let (control, orders) = Control::new();
        tokio::spawn(answer(orders));
        let album = Album::new(folder.path().join("snapshots"), Retention { days: 30, bytes: 1 << 20 });
        let (pictures, _) = Pictures::new(album, store.clone(), "/proc/self/exe".into());
        let live = Arc::new(Live::default());
        let config = Config::default();
        let (events, _, _) = crate::events::start(&config, &store).await.unwrap();
        let state = ApiState {
            store: store.clone(),
            control,
            live: live.clone(),
            pictures: pictures.clone(),
            events,
            draining: Arc::default(),
            sip_host: "sip.example.com".into(),
            sip_port: 6050,
            host_ip: "192.0.2.1".parse().unwrap(),
            server_port: false,
            started_ms: 0,
            doorkeeper: Arc::new(Doorkeeper::new(&config.api, "")),
        };
        let own = caller(OWN).tenant;
        let account = |number: &str, kind| NewAccount { number: number.into(), password: "secret-word".into(), kind, name: None };
        let accounts = vec![account("d1", AccountType::Door), account("101", AccountType::App), account("102", AccountType::App)];
        let (accounts, _) = store.add_accounts(own.clone(), accounts, 0).await.unwrap();
        store.add_groups(own, vec![("room".into(), vec!["101".into()], None)], 0).await.unwrap();
        store.add_hook(hook()).await.unwrap();
        let file = pictures.album.write("c1-1", 0, b"jpeg").unwrap();
        store.add_snapshot(snapshot(file)).await.unwrap();
        let record = Record {
            account: "101".into(),
            door: "d1".into(),
            outcome: "opened".into(),
            status: 200,
            snapshot: Some("c1-1".into()),
            ..Record::default()
        };
        store.append(vec![Entry::Ended(Box::new(record))]).await.unwrap();
        live.calls.insert(CallId("c1".into()), call(&accounts[0]));
        live.registrations.insert("101".into(), registration(accounts[1].app.clone()));
        let record = store.records(Wanted { limit: 1, ..Wanted::default() }).await.unwrap()[0].id;
        House { state, record, _folder: folder }
    }

    async fn ask(&self, who: (&str, bool, May), method: &str, path: &str, body: Value) -> (u16, Value) {
        let known = known(routes().into_iter().filter(|route| route.needs != Needs::Nothing).collect());
        let router: Router = known.layer(Extension(caller(who))).with_state(self.state.clone());
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let uri = path.replace("/N/", &format!("/{}/", self.record)).replace("HOOK", "h1");
        let request = Request::builder().method(method).uri(uri).body(body).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        if status == 200 && path == "/events" {
            return (status, Value::Null);
        }
        let bytes = to_bytes(response.into_body(), BODY).await.unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!path.starts_with("/v1/") || !text.contains("secret-word"), "a password is shown: {method} {path}: {text}");
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }
}

/// A SIP thread that says yes.
async fn answer(mut orders: OrderReceiver) {
    while let Some((order, reply)) = orders.recv().await {
        let _ = reply.send(match order {
            Order::Numbers => Answer::Numbers(Box::default()),
            Order::Bans => Answer::Bans(Vec::new()),
            Order::Picture { .. } => Answer::NoPicture("nothing shown"),
            Order::Unlock { .. } => Answer::NotFound,
            _ => Answer::Done,
        });
    }
}

fn snapshot(file: String) -> Snapshot {
    let (id, call, door) = ("c1-1".into(), "c1".into(), "d1".into());
    let (why, preset, sha256) = ("unlock".into(), "large".into(), "00".into());
    Snapshot { id, call, door, why, preset, taken_at_ms: 0, width: 16, height: 16, bytes: 4, sha256, file: Some(file) }
}

fn hook() -> Hook {
    Hook {
        id: "h1".into(),
        app: "own".into(),
        url: "http://127.0.0.1:9/".into(),
        secret: Secret::new("secret-word"),
        selection: Selection::named([]).unwrap(),
        enabled: true,
        origin: Origin::Api,
        created_ms: 0,
        cursor: 0,
    }
}

fn call(door: &Account) -> CallView {
    CallView {
        id: CallId("c1".into()),
        app: door.app.clone(),
        kind: "call",
        state: "ringing",
        end_reason: None,
        from: door.number.to_string(),
        to: "room".into(),
        group: Some("room".into()),
        answered_by: None,
        started_ms: 0,
        answered_ms: None,
        ended_ms: None,
        door_first_frame_ms: None,
        legs: Vec::new(),
        ladder: Vec::new(),
    }
}

fn registration(app: App) -> Registration {
    let (now, address) = (std::time::Instant::now(), ([192, 0, 2, 1], 5060).into());
    let binding = Arc::new(Binding {
        account: "101".into(),
        contact_uri: "sip:p@192.0.2.1".into(),
        instance: None,
        reg_id: None,
        path: None,
        flow: Flow { transport: Transport::Udp, local: address, remote: address },
        registered_at: now,
        expires_at: now,
        call_id: "c".into(),
        cseq: 1,
        user_agent: None,
        written_as_of: now,
        contested: 0,
        rival: None,
    });
    Registration { binding, app, registered_ms: 0, expires_ms: 0 }
}

/// Owner, operator, operator with pictures, the app whose house it is, another app.
#[tokio::test]
async fn who_may_what() {
    const N: Value = Value::Null;
    let account = json!({"number": "201", "password": "secret-word", "type": 0});
    let group = json!({"id": "200", "members": ["101"]});
    let hook = json!({"url": "http://127.0.0.1:9/", "secret": "secret-word"});
    let password = json!({"password": "secret-word 2"});
    let rows: Vec<(&str, &str, Value, [u16; 5])> = vec![
        ("GET", "/v1/accounts", N, [200; 5]),
        ("POST", "/v1/accounts", account, [201; 5]),
        ("GET", "/v1/accounts/101", N, [200, 200, 200, 200, 403]),
        ("PATCH", "/v1/accounts/101", password.clone(), [200, 200, 200, 200, 403]),
        ("PATCH", "/v1/accounts/d1", password, [200, 200, 200, 200, 403]),
        ("DELETE", "/v1/accounts/101", N, [204, 204, 204, 204, 403]),
        ("GET", "/v1/groups", N, [200; 5]),
        // A group is of one app: the installation's own has no such phone.
        ("POST", "/v1/groups", group, [400, 400, 400, 201, 403]),
        ("GET", "/v1/groups/room", N, [200, 200, 200, 200, 403]),
        ("PATCH", "/v1/groups/room", json!({"members": ["102"]}), [200, 200, 200, 200, 403]),
        ("DELETE", "/v1/groups/room", N, [204, 204, 204, 204, 403]),
        ("GET", "/v1/doors", N, [200; 5]),
        ("GET", "/v1/doors/d1", N, [200, 200, 200, 200, 403]),
        ("PATCH", "/v1/doors/d1", json!({"disabled": true}), [200, 200, 200, 200, 403]),
        // Nobody answers for signalling here: 404 is "may".
        ("POST", "/v1/doors/d1/unlock", N, [404, 404, 404, 404, 403]),
        ("GET", "/v1/registrations", N, [200; 5]),
        ("GET", "/v1/calls", N, [200; 5]),
        ("GET", "/v1/calls/c1", N, [200, 200, 200, 200, 403]),
        ("DELETE", "/v1/calls/c1", N, [204, 204, 204, 204, 403]),
        ("POST", "/v1/calls/c1/snapshot", N, [409, 403, 409, 409, 403]),
        ("GET", "/v1/calls/c1/snapshot", N, [200, 403, 200, 200, 403]),
        ("GET", "/v1/snapshots/c1-1", N, [200, 403, 200, 200, 403]),
        ("GET", "/v1/records/N/snapshot", N, [200, 403, 200, 200, 403]),
        ("DELETE", "/v1/snapshots/c1-1", N, [204, 403, 204, 204, 403]),
        ("DELETE", "/v1/records/N/snapshot", N, [204, 403, 204, 204, 403]),
        ("GET", "/v1/records", N, [200; 5]),
        ("GET", "/v1/watched", N, [200; 5]),
        ("GET", "/v1/passages", N, [200; 5]),
        ("GET", "/events", N, [200; 5]),
        ("GET", "/v1/webhooks", N, [200, 403, 403, 200, 200]),
        ("POST", "/v1/webhooks", hook, [201, 403, 403, 201, 201]),
        ("GET", "/v1/webhooks/HOOK", N, [200, 403, 403, 200, 403]),
        ("PATCH", "/v1/webhooks/HOOK", json!({"enabled": false}), [200, 403, 403, 200, 403]),
        ("GET", "/v1/webhooks/HOOK/dead", N, [200, 403, 403, 200, 403]),
        ("POST", "/v1/webhooks/HOOK/redeliver", N, [202, 403, 403, 202, 403]),
        ("DELETE", "/v1/webhooks/HOOK", N, [204, 403, 403, 204, 403]),
        ("GET", "/v1/bans", N, [200, 200, 200, 403, 403]),
        ("DELETE", "/v1/bans?source=192.0.2.1&account=101", N, [204, 204, 204, 403, 403]),
        ("GET", "/metrics", N, [200, 200, 200, 403, 403]),
        ("GET", "/openapi.json", N, [200; 5]),
    ];
    let house = House::build().await;
    for (method, path, body, wanted) in &rows {
        for (who, wanted) in ALL.into_iter().zip(wanted) {
            // What makes or deletes does so once in a house.
            let other = if ["POST", "DELETE"].contains(method) { Some(House::build().await) } else { None };
            let (status, reply) = other.as_ref().unwrap_or(&house).ask(who, method, path, body.clone()).await;
            assert_eq!(status, *wanted, "{method} {path} by {who:?}: {reply}");
        }
    }
    // Nobody adds a road without saying here whose it is.
    let asked = |route: &Route| {
        let is = |path: &str| {
            let path = path.split('?').next().unwrap_or_default();
            let parts = || path.split('/').zip(route.path.split('/'));
            path.split('/').count() == route.path.split('/').count()
                && parts().all(|(asked, known)| known.starts_with('{') || asked == known)
        };
        rows.iter().any(|(method, path, ..)| method.eq_ignore_ascii_case(route.method) && is(path))
    };
    let left: Vec<&str> =
        routes().iter().filter(|route| route.needs != Needs::Nothing && !asked(route)).map(|r| r.path).collect();
    assert_eq!(left, [""; 0]);
}

#[tokio::test]
async fn lists_show_a_tenant_what_is_his() {
    let house = House::build().await;
    for (path, entries) in [
        ("/v1/accounts", 3),
        ("/v1/accounts?group=room", 1),
        ("/v1/groups", 1),
        ("/v1/doors", 1),
        ("/v1/registrations", 1),
        ("/v1/calls", 1),
        ("/v1/records", 1),
    ] {
        for (who, wanted) in [(OWNER, entries), (OWN, entries), (OTHER, 0)] {
            let (_, list) = house.ask(who, "GET", path, Value::Null).await;
            assert_eq!(list.as_array().map(Vec::len), Some(wanted), "{path} by {who:?}: {list}");
        }
    }
    let (_, records) = house.ask(OPERATOR, "GET", "/v1/records", Value::Null).await;
    assert_eq!(records[0]["snapshot"], "c1-1", "that there is a picture is no secret");
}

/// The app that stands for the installation itself is one app among others: it hears nothing of theirs, and what the owner
/// hears is not its business either.
#[tokio::test]
async fn the_first_app_is_no_owner() {
    const FIRST: (&str, bool, May) = ("", false, May::ALL);
    let house = House::build().await;
    let new = json!({"url": "http://127.0.0.1:9/", "secret": "s"});
    let add = async |who| house.ask(who, "POST", "/v1/webhooks", new.clone()).await.1["id"].as_str().unwrap().to_owned();
    let (owners, firsts) = (add(OWNER).await, add(FIRST).await);
    let hears = async |id: &String| house.state.store.hook(caller(OWNER).tenant, id.clone()).await.unwrap().tenant();
    assert!(hears(&owners).await.all);
    assert!(!hears(&firsts).await.all && !hears(&firsts).await.may("other") && hears(&firsts).await.may(""));
    let (own, owner) = (format!("/v1/webhooks/{firsts}"), format!("/v1/webhooks/{owners}/dead"));
    assert_eq!(house.ask(FIRST, "GET", &own, Value::Null).await.0, 200);
    assert_eq!(house.ask(FIRST, "GET", &owner, Value::Null).await.0, 403);
    assert_eq!(house.ask(FIRST, "GET", "/v1/webhooks", Value::Null).await.1.as_array().map(Vec::len), Some(1));
    for path in ["/v1/accounts", "/v1/records", "/v1/calls", "/v1/registrations"] {
        assert_eq!(house.ask(FIRST, "GET", path, Value::Null).await.1, json!([]), "{path}: that is another's");
    }
    assert_eq!(house.ask(FIRST, "GET", "/v1/bans", Value::Null).await.0, 403);
}
