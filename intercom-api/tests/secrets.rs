//! Secrets at rest: passwords lie sealed in the database, an older database is sealed when it is opened and keeps nothing of
//! the clear text, keys are never made or replaced by mistake, and `rotate-key` may be cut off anywhere.

#![allow(clippy::disallowed_methods)] // real files and processes

mod vault;

use fixtures::process::Folder;
use fixtures::server::{Server, password};
use intercom_api::model::{AccountType, Tenant};
use intercom_api::store::{AccountsWanted, NewAccount, SECRETS_FILE, Store, rotate};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use vault::{copy, doorline, files, files_with, phone, register, said, wait_for_close};

fn all() -> Tenant {
    Tenant { app: "".into(), all: true }
}

fn database(data: &Path) -> PathBuf {
    data.join("doorline.sqlite")
}

/// A data folder with so many accounts `p0`, `p1`, … that have the passwords of the fixtures, and nobody in it.
async fn house(data: &Path, accounts: usize) {
    fs::create_dir_all(data).unwrap();
    let store = Store::open(&database(data)).unwrap();
    let new = |index: usize| {
        let number = format!("p{index}");
        NewAccount { password: password(&number), number, kind: AccountType::App, name: None }
    };
    store.add_accounts(all(), (0..accounts).map(new).collect(), 0).await.unwrap();
    drop(store);
    wait_for_close(&database(data));
}

async fn passwords(data: &Path) -> Vec<String> {
    let store = Store::open(&database(data)).unwrap();
    let accounts = store.accounts(all(), AccountsWanted { limit: 1000, ..AccountsWanted::default() }).await.unwrap();
    drop(store);
    wait_for_close(&database(data));
    accounts.iter().map(|(account, _)| account.password.reveal().to_owned()).collect()
}

fn refusal(data: &Path) -> String {
    Store::open(&database(data)).err().expect("it must not open").to_string()
}

#[tokio::test]
async fn an_older_database_is_sealed_and_nothing_of_the_clear_text_stays() {
    let folder = Folder::new("sealing");
    let path = database(folder.path());
    let old = Connection::open(&path).unwrap();
    old.execute_batch(include_str!("data/store_v4.sql")).unwrap();
    old.execute_batch("PRAGMA journal_mode = WAL").unwrap();
    for index in 0..2000 {
        let (number, password) = (format!("p{index}"), format!("clear-text-{index}"));
        old.execute("INSERT INTO account VALUES (?1, ?2, 0, NULL, 0)", (&number, &password)).unwrap();
    }
    old.execute("INSERT INTO account VALUES ('d', 'clear-text-d', 1, 'Gate', 5)", []).unwrap();
    old.execute("INSERT INTO door VALUES ('iot', 'd', 'clear-text-unit', 'h', '6050')", []).unwrap();
    // Accounts that are gone leave their text in free pages.
    old.execute("DELETE FROM account WHERE number LIKE 'p1%'", []).unwrap();
    // The program of then was killed: its log is still there.
    std::mem::forget(old);
    assert!(!files_with(folder.path(), "clear-text-").is_empty());

    let store = Store::open(&path).unwrap();
    assert_eq!(files_with(folder.path(), "clear-text-"), [""; 0], "while it is open");
    assert_eq!(store.account(all(), "p7".into()).await.unwrap().password.reveal(), "clear-text-7");
    let door = store.account(all(), "d".into()).await.unwrap();
    assert_eq!((door.password.reveal(), door.name.as_deref(), door.created_ms), ("clear-text-d", Some("Gate"), 5));
    drop(store);
    let mode = fs::metadata(folder.path().join(SECRETS_FILE)).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(files_with(folder.path(), "clear-text-"), [""; 0]);
}

#[tokio::test]
async fn a_key_that_does_not_fit_or_is_gone_is_told_and_nothing_is_touched() {
    let folder = Folder::new("keys");
    let data = folder.path().join("data");
    house(&data, 3).await;
    let key = data.join(SECRETS_FILE);
    let right = fs::read(&key).unwrap();
    let before = files(&data);
    let untouched = |why: &str| assert!(files(&data).keys().eq(before.keys()) && fs::read(&key).unwrap() != right, "{why}");

    fs::write(&key, [7; 32]).unwrap();
    assert!(refusal(&data).ends_with("secrets.key does not fit the database: its passwords are sealed with another key"));
    untouched("a wrong key");
    fs::write(&key, b"short").unwrap();
    assert!(refusal(&data).ends_with("secrets.key: a key has 32 bytes"));
    untouched("half a key");

    fs::write(&key, &right).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let told = refusal(&data);
    assert!(told.ends_with(&format!("others than its owner can read it: chmod 600 {}", key.display())), "{told}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(
        Store::open_with(&database(&data), Some(&[7; 32])).is_err_and(|e| e.to_string().starts_with("store.key does not fit"))
    );

    fs::remove_file(&key).unwrap();
    let told = refusal(&data);
    assert!(told.contains("secrets.key is missing, and the database's passwords are sealed with it"), "{told}");
    assert!(!key.exists(), "no new key for old secrets");
    // The same key from elsewhere is as good, and no file is made for it.
    let given: [u8; 32] = right.clone().try_into().unwrap();
    let store = Store::open_with(&database(&data), Some(&given)).unwrap();
    assert_eq!(store.account(all(), "p1".into()).await.unwrap().password.reveal(), "pw-p1");
    assert!(!key.exists());
    fs::write(&key, right).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    drop(store);
    assert_eq!(passwords(&data).await, ["pw-p0", "pw-p1", "pw-p2"]);
}

/// Every state in which a power cut can leave it, made of the files of before and after.
#[tokio::test]
async fn a_change_of_keys_may_be_cut_off_anywhere() {
    let folder = Folder::new("rotation");
    let (before, after) = (folder.path().join("before"), folder.path().join("after"));
    house(&before, 50).await;
    copy(&before, &after);
    assert_eq!(rotate(&database(&after), None).unwrap(), 50);
    let key = |data: &Path| fs::read(data.join(SECRETS_FILE)).unwrap();
    let (old, new) = (key(&before), key(&after));
    assert_ne!(old, new);
    let all: Vec<String> = passwords(&before).await;
    assert_eq!(passwords(&after).await, all);

    let next = |data: &Path, bytes: &[u8]| {
        let path = data.join("secrets.key.new");
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    type Cut<'a> = (&'a str, &'a Path, Box<dyn Fn(&Path) + 'a>, &'a [u8]);
    let cuts: [Cut<'_>; 5] = [
        (
            "before the new key is whole",
            &before,
            Box::new(|data| fs::write(data.join("secrets.key.new.draft"), b"ha").unwrap()),
            &old,
        ),
        ("half a file, as some file systems leave it", &before, Box::new(|data| next(data, b"half")), &old),
        ("before the commit", &before, Box::new(|data| next(data, &new)), &old),
        (
            "after the commit, before the new key has its name",
            &after,
            Box::new(|data| {
                next(data, &new);
                fs::write(data.join(SECRETS_FILE), &old).unwrap();
            }),
            &new,
        ),
        (
            "before old pages are wiped",
            &after,
            Box::new(|data| {
                let c = Connection::open(database(data)).unwrap();
                c.execute("INSERT INTO setting VALUES ('store.wipe', '1')", []).unwrap();
            }),
            &new,
        ),
    ];
    for (when, from, cut, key_after) in cuts {
        let data = folder.path().join(when);
        copy(from, &data);
        cut(&data);
        assert_eq!(passwords(&data).await, all, "{when}");
        assert_eq!(key(&data), key_after, "{when}");
        assert!(!data.join("secrets.key.new").exists(), "{when}");
        let c = Connection::open(database(&data)).unwrap();
        let wipes: i64 = c.query_row("SELECT count(*) FROM setting WHERE name = 'store.wipe'", [], |row| row.get(0)).unwrap();
        assert_eq!(wipes, 0, "{when}");
        drop(c);
        assert_eq!(rotate(&database(&data), None).unwrap(), 50, "and once more");
        assert_eq!(passwords(&data).await, all, "{when}");
    }

    // Neither key fits: both stay.
    let data = folder.path().join("strange");
    copy(&before, &data);
    next(&data, &[1; 32]);
    fs::write(data.join(SECRETS_FILE), [2; 32]).unwrap();
    assert!(refusal(&data).contains("does not fit"));
    assert!(data.join("secrets.key.new").exists() && key(&data) == [2; 32]);
}

fn start(ip: &str, data: &Path, settings: &[(&str, &str)]) -> Server {
    Server::start_in(Path::new(env!("CARGO_BIN_EXE_doorline")), ip, "10000-10099", settings, Some(data))
}

#[test]
fn phones_register_after_a_change_of_keys_and_none_happens_beside_a_running_server() {
    let folder = Folder::new("rotate");
    let data = folder.path().join("data");
    let server = start("127.0.97.1", &data, &[]);
    server.provision(&[("101", 0), ("door", 1)], "room", &["101"]);
    let socket = phone("127.0.97.2");
    assert_eq!(register(server.sip, &socket, "101", "pw-101"), "200");
    let used = said(&doorline(&data, &["rotate-key"], &[]), 1);
    assert!(used.contains("is in use by another doorline"), "{used}");
    // Nor a second server.
    let used = said(&doorline(&data, &["serve"], &[("SIP__UDP", "127.0.97.3:0"), ("API__LISTEN", "127.0.97.3:0")]), 1);
    assert!(used.contains("is in use by another doorline"), "{used}");
    assert!(server.stop());

    let old = fs::read(data.join(SECRETS_FILE)).unwrap();
    let done = said(&doorline(&data, &["rotate-key"], &[]), 0);
    // Those of the two accounts, and of the app that was made.
    assert!(done.starts_with("3 passwords are sealed with a new key; secrets.key is the new one."), "{done}");
    assert_ne!(fs::read(data.join(SECRETS_FILE)).unwrap(), old);
    let server = start("127.0.97.1", &data, &[]);
    assert_eq!(register(server.sip, &socket, "101", "pw-101"), "200");
    assert_eq!(register(server.sip, &socket, "101", "pw-102"), "403");
    assert!(server.stop());
}

#[test]
fn a_key_of_the_environment_makes_no_file_and_is_changed_there() {
    let folder = Folder::new("environment-key");
    let data = folder.path().join("data");
    let (first, second) = ("0f".repeat(32), "1e".repeat(32));
    let server = start("127.0.97.4", &data, &[("STORE__KEY", &first)]);
    server.provision(&[("101", 0)], "room", &["101"]);
    assert!(server.stop());
    assert!(!data.join(SECRETS_FILE).exists());
    let none = said(&doorline(&data, &["rotate-key"], &[("STORE__KEY", &first)]), 1);
    assert!(none.contains("DOORLINE_STORE__NEW_KEY"), "{none}");
    let none = said(&doorline(&data, &["rotate-key"], &[]), 1);
    assert!(none.contains("secrets.key is missing"), "{none}");
    said(&doorline(&data, &["rotate-key"], &[("STORE__KEY", &first), ("STORE__NEW_KEY", &second)]), 0);
    let wrong = said(&doorline(&data, &["serve"], &[("STORE__KEY", &first)]), 1);
    assert!(wrong.contains("store.key does not fit the database") && !wrong.contains(&first), "{wrong}");
    let server = start("127.0.97.4", &data, &[("STORE__KEY", &second)]);
    assert_eq!(register(server.sip, &phone("127.0.97.5"), "101", "pw-101"), "200");
    assert!(server.stop());
    assert!(!data.join(SECRETS_FILE).exists());
}

/// With everything logged that can be, and every call that takes or gives a password.
#[test]
fn no_password_is_ever_in_the_log_or_in_a_file() {
    let folder = Folder::new("no-password");
    let data = folder.path().join("data");
    let mut passwords = vec!["chosen-Pass-1".to_owned(), "unit-Pass-2".to_owned(), "guessed-Pass-3".to_owned()];
    let server = start("127.0.97.6", &data, &[("RUST_LOG", "trace")]);
    let call = |path: &str, params: Value| {
        let (_, reply) = server.try_api("POST", &format!("/entrance/paas/{path}"), Some(&params)).unwrap();
        reply["data"].clone()
    };
    let account = |number: &str, kind: u8| json!({"number": number, "password": "chosen-Pass-1", "type": kind});
    server.api("POST", "/v1/accounts", Some(&json!([account("101", 0), account("door", 1)])));
    for body in [
        account("101", 0),
        json!({"number": "x", "password": "chosen-Pass-1"}),
        json!({"number": "y", "password": ["chosen-Pass-1"]}),
    ] {
        let (status, reply) = server.try_api("POST", "/v1/accounts", Some(&body)).unwrap();
        assert!((400..500).contains(&status) && !reply.to_string().contains("chosen-Pass-1"), "{reply}");
    }
    for path in ["/v1/accounts", "/v1/accounts/101", "/v1/doors", "/v1/doors/door", "/v1/groups"] {
        server.try_api("GET", path, None).unwrap();
    }
    let phones = call("sipservice/sip/add", json!({"count": 3, "type": 0}));
    let number = &phones[0]["sipNumber"];
    passwords.extend(phones.as_array().unwrap().iter().filter_map(|phone| Some(phone["sipPassword"].as_str()?.to_owned())));
    call("sipservice/sip/detail/get", json!({"sipNumber": number}));
    let renewed = call("sipservice/sip/password/update", json!({"sipNumber": number}));
    passwords.push(renewed["sipPassword"].as_str().unwrap().to_owned());
    let group = call("sipservice/group/add", json!({"count": 1}))[0]["groupID"].clone();
    call("sipservice/group/sip/add", json!({"groupID": group, "sipNumberList": [number]}));
    call("sipservice/group/sip/list", json!({"groupID": group}));
    for iot in ["iot-1", ""] {
        let unit = json!({"iotId": iot, "sipNumber": "door", "password": "unit-Pass-2", "host": "h", "port": "6050"});
        call("videointercom/sipnumber/sync", unit);
    }
    let socket = phone("127.0.97.7");
    assert_eq!(register(server.sip, &socket, "101", "chosen-Pass-1"), "200");
    assert_eq!(register(server.sip, &socket, "101", "guessed-Pass-3"), "403");
    let log = server.log();
    assert!(log.contains("registered"), "{log}");
    assert!(passwords.len() >= 7);
    for password in &passwords {
        assert!(!log.contains(password.as_str()), "a password is in the log");
        assert_eq!(files_with(&data, password), [""; 0]);
    }
    assert!(server.stop());
}
