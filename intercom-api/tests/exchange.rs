//! What is stored leaves and comes back: `backup` and `export` beside a running server, `import`, and a file that is damaged.

#![allow(clippy::disallowed_methods)] // real files and processes

mod vault;

use fixtures::process::{Folder, wait_until};
use fixtures::server::{Server, password};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use vault::{copy, doorline, files, phone, register, said};

fn start(ip: &str, data: &Path) -> Server {
    Server::start_in(Path::new(env!("CARGO_BIN_EXE_doorline")), ip, "10000-10099", &[], Some(data))
}

/// A house with one of everything that the API can make.
fn furnish(server: &Server) {
    server.provision(&[("101", 0), ("102", 0), ("door", 1)], "room", &["102", "101"]);
    server.api("POST", "/v1/accounts", Some(&json!({"number": "lobby", "password": "pä\"ss\\", "type": 0, "name": "Empfang"})));
    let hours = json!([{"days": [1, 2], "from": "07:00", "to": "19:30"}]);
    server.api("PATCH", "/v1/accounts/101", Some(&json!({"hours": hours})));
    server.api("PATCH", "/v1/doors/door", Some(&json!({"profile": "2n", "keys": "4711#", "ringback": false})));
    let unit = json!({"iotId": "iot-1", "sipNumber": "door", "password": password("door"), "host": "h", "port": "6050"});
    server.api("POST", "/entrance/paas/videointercom/sipnumber/sync", Some(&unit));
    let maps =
        json!({"iotId": "iot-1", "maps": [{"roomId": "1-9-3-1202", "groupId": "room"}, {"roomId": "7", "groupId": "room"}]});
    server.api("POST", "/entrance/paas/videointercom/map/add", Some(&maps));
}

fn export(data: &Path, args: &[&str]) -> String {
    let output = doorline(data, &[&["export"], args].concat(), &[]);
    said(&output, 0);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_backup_of_a_running_server_is_a_house_with_all_its_phones() {
    let folder = Folder::new("backup");
    let (data, file) = (folder.path().join("data"), folder.path().join("backup.sqlite"));
    let server = start("127.0.98.1", &data);
    furnish(&server);
    // A refused wish is an entry of the record.
    server.try_api("POST", "/v1/doors/door/unlock", None).unwrap();
    assert!(wait_until(Duration::from_secs(10), || server.api("GET", "/v1/records", None).as_array().map(Vec::len) == Some(1)));
    let name = file.to_str().unwrap();
    let told = said(&doorline(&data, &["backup", name], &[]), 0);
    assert!(told.contains("secrets.key") && told.contains("records.key") && told.contains("snapshots"), "{told}");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    let there = said(&doorline(&data, &["backup", name], &[]), 1);
    assert!(there.contains("is there already"), "{there}");
    assert!(!folder.path().join("backup.sqlite.draft").exists());
    // What comes after it is not in it.
    server.api("POST", "/v1/accounts", Some(&json!({"number": "late", "password": "x", "type": 0})));
    assert!(server.stop());

    let restored = folder.path().join("restored");
    copy(&data, &restored);
    for (path, _) in files(&restored).into_iter().filter(|(path, _)| path.contains(".sqlite")) {
        fs::remove_file(path).unwrap();
    }
    fs::copy(&file, restored.join("doorline.sqlite")).unwrap();
    let verified = doorline(&restored, &["verify-records"], &[]);
    said(&verified, 0);
    assert!(String::from_utf8_lossy(&verified.stdout).starts_with("1 records"), "{verified:?}");
    let server = start("127.0.98.1", &restored);
    let socket = phone("127.0.98.2");
    assert_eq!(register(server.sip, &socket, "102", "pw-102"), "200");
    assert_eq!(register(server.sip, &socket, "late", "x"), "403");
    assert!(server.stop());
}

#[test]
fn an_export_read_into_another_house_exports_the_same() {
    let folder = Folder::new("export");
    let (data, other, file) = (folder.path().join("data"), folder.path().join("other"), folder.path().join("all.jsonl"));
    let server = start("127.0.98.3", &data);
    furnish(&server);
    let name = file.to_str().unwrap();
    let told = said(&doorline(&data, &["export", name], &[]), 0);
    assert_eq!(told.trim(), "11 lines, with passwords in clear text");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    said(&doorline(&data, &["export", name], &[]), 1);
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(export(&data, &[]), text, "stdout");
    let without = export(&data, &["--without-passwords"]);
    for secret in ["pw-101", "pw-door", "4711", "pä"] {
        assert!(text.contains(secret) && !without.contains(secret), "{secret}");
    }
    let busy = said(&doorline(&data, &["import", name], &[]), 1);
    assert!(busy.contains("is in use by another doorline"), "{busy}");
    assert!(server.stop());

    // A space, which another face makes.
    let space = json!({"kind": "space", "space_id": "s1", "group": "room", "room": "1-9-3-1202", "app": ""});
    fs::write(&file, format!("{text}{space}\n")).unwrap();
    assert_eq!(said(&doorline(&other, &["import", name], &[]), 0).trim(), "11 new, 0 replaced, 0 as they were");
    // A set: the space has its place before the limits.
    let parse = |text: &str| text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap().to_string()).collect();
    let (again, wanted): (BTreeSet<String>, BTreeSet<String>) =
        (parse(&export(&other, &["-"])), parse(&fs::read_to_string(&file).unwrap()));
    assert_eq!(again, wanted);
    assert_eq!(said(&doorline(&other, &["import", name], &[]), 0).trim(), "0 new, 0 replaced, 11 as they were", "once more");

    // Without passwords it changes names and leaves passwords.
    fs::write(&file, without.replace("Empfang", "Pförtner")).unwrap();
    let refused = said(&doorline(&other, &["import", name], &[]), 1);
    assert!(refused.contains("account lobby is there already and is another one; --replace"), "{refused}");
    assert_eq!(said(&doorline(&other, &["import", "--replace", name], &[]), 0).trim(), "0 new, 1 replaced, 9 as they were");
    let server = start("127.0.98.3", &other);
    assert_eq!(register(server.sip, &phone("127.0.98.4"), "lobby", "pä\"ss\\"), "200");
    assert_eq!(server.api("GET", "/v1/accounts/lobby", None)["name"], "Pförtner");
    assert_eq!(server.api("GET", "/v1/doors/door", None)["keys"], "4711#");
    assert!(server.stop());
}

#[test]
fn one_wrong_line_is_named_and_nothing_is_imported() {
    let folder = Folder::new("import");
    let (data, file) = (folder.path().join("data"), folder.path().join("in.jsonl"));
    let head = json!({"kind": "doorline_export", "version": 1});
    let account = |number: &str, kind: u8| json!({"kind": "account", "number": number, "password": "s3cret", "type": kind, "name": null, "created_ms": 5, "app": ""});
    let group =
        |id: &str, members: &[&str]| json!({"kind": "group", "id": id, "members": members, "name": null, "created_ms": 5});
    let with = |mut value: Value, key: &str, new: Value| {
        value[key] = new;
        value
    };
    let good = [head.clone(), account("101", 0), account("d", 1)];
    let many: Vec<String> = (0..65).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for (wrong, why) in [
        (json!({"kind": "account"}).to_string(), "line 4: its fields are not those of its kind"),
        (json!({"kind": "secret", "password": "s3cret"}).to_string(), "line 4: its fields are not those of its kind"),
        (with(account("102", 0), "colour", json!("s3cret")).to_string(), "line 4: its fields are not those of its kind"),
        ("{\"kind\":".into(), "line 4: it is not JSON"),
        (head.to_string(), "line 4: a file begins with one line"),
        (account("1 2", 0).to_string(), "line 4: number has 1 to 50 ASCII characters"),
        (account("", 0).to_string(), "line 4: number has"),
        (account("102", 2).to_string(), "line 4: type is 0 (app) or 1 (door unit)"),
        (with(account("102", 0), "password", json!("")).to_string(), "line 4: password has 1 to 50 printable characters"),
        (with(account("102", 0), "password", Value::Null).to_string(), "line 4: account 102 is new and has no password"),
        (with(account("101", 0), "name", json!("other")).to_string(), "line 4: account 101 is there already and is another one"),
        (account("101", 1).to_string(), "line 4: account 101 is there already, of another type or application"),
        (group("g", &["101", "nobody"]).to_string(), "line 4: there is no account nobody"),
        (group("g", &["d"]).to_string(), "line 4: d is a door unit; only app accounts go into a group"),
        (group("g", &["101", "101"]).to_string(), "line 4: a member is named twice"),
        (group("g", &many).to_string(), "line 4: a group has at most 64 members"),
        (group("101", &[]).to_string(), "line 4: 101 is the number of an account"),
        (with(group("g", &["101"]), "app", json!("b")).to_string(), "line 4: account 101 belongs to another application"),
        (json!({"kind": "room", "iot_id": "i", "room": "7", "group": "g"}).to_string(), "line 4: there is no group g"),
        (json!({"kind": "room", "iot_id": "i", "room": "3-7-1", "group": "g"}).to_string(), "line 4: room is not a room id"),
        (
            json!({"kind": "access", "number": "x", "disabled": true, "hours": [], "profile": null, "ringback": null,
                   "key_frame": null, "star": null})
            .to_string(),
            "line 4: there is no account x",
        ),
    ] {
        let text: String = good.iter().map(|line| format!("{line}\n")).chain([format!("{wrong}\n")]).collect();
        fs::write(&file, text).unwrap();
        let told = said(&doorline(&data, &["import", file.to_str().unwrap()], &[]), 1);
        assert!(told.contains("nothing was imported") && told.contains(why), "{wrong}\n{told}");
        assert!(!told.contains("s3cret"), "{told}");
        assert_eq!(export(&data, &[]).lines().count(), 1, "{wrong}");
    }
    fs::write(&file, format!("{}\n", account("101", 0))).unwrap();
    let told = said(&doorline(&data, &["import", file.to_str().unwrap()], &[]), 1);
    assert!(told.contains("line 1: a file begins with one line"), "{told}");
}

#[test]
fn a_damaged_file_is_told_at_start_with_what_to_do() {
    let folder = Folder::new("damaged");
    let data = folder.path().join("data");
    let server = start("127.0.98.5", &data);
    let account = |index: usize| json!({"number": format!("p{index}"), "password": "x", "type": 0});
    for first in (0..1000).step_by(100) {
        server.api("POST", "/v1/accounts", Some(&(first..first + 100).map(account).collect::<Value>()));
    }
    assert!(server.stop());
    let database = data.join("doorline.sqlite");
    assert!(fs::metadata(data.join("doorline.sqlite-wal")).map_or(0, |log| log.len()) == 0, "an orderly end leaves one file");
    let whole = fs::read(&database).unwrap();
    let mut hurt = whole.clone();
    let middle = hurt.len() / 2 / 4096 * 4096;
    hurt[middle..middle + 4096].fill(0x5a);
    let mut cut = whole.clone();
    cut.truncate(whole.len() / 2);
    for (bytes, what) in
        [(hurt, "a page of it"), (cut, "half of it"), (b"not a database at all, but long enough".repeat(99), "all")]
    {
        fs::write(&database, &bytes).unwrap();
        let told = said(&doorline(&data, &["serve"], &[("SIP__UDP", "127.0.98.5:0"), ("API__LISTEN", "127.0.98.5:0")]), 1);
        assert!(
            told.contains("doorline.sqlite is damaged (") && told.contains("put the last backup in its place"),
            "{what}: {told}"
        );
        assert!(fs::read(&database).unwrap() == bytes, "{what} is not touched");
    }
}
