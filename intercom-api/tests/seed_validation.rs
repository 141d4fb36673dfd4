//! What the provisioning API refuses, with which code, and that nothing is changed by it: spec admin-api.md §2.3 and §13.1, every
//! field of every endpoint, and bodies that nobody would send on purpose.

mod gateway;

use gateway::{Client, Gateway, owner};
use intercom_api::http::caller::{Caller, May};
use intercom_api::http::seed::endpoints;
use intercom_api::http::seed::table::{Field, Kind};
use serde_json::{Map, Value, json};

/// Values that this kind of field does not take, and what they cost.
fn wrongs(kind: &Kind) -> Vec<(Value, u64)> {
    let text = |rest: Vec<(Value, u64)>| {
        let other = [json!(5), json!(true), json!([]), json!({})].map(|value| (value, 20004));
        other.into_iter().chain([(json!("a\u{7}b"), 400)]).chain(rest).collect::<Vec<_>>()
    };
    match kind {
        Kind::Integer { .. } | Kind::Long => {
            let other = [json!("1"), json!(1.5), json!(true), json!([]), json!(1e30)].map(|value| (value, 20004));
            let mut wrongs = Vec::from(other);
            wrongs.push((json!(u64::MAX), 400));
            if let Kind::Integer { min, max } = kind {
                wrongs.extend([(json!(min - 1), 400), (json!(max + 1), 400)]);
            }
            wrongs
        }
        Kind::Text { longest } => text(vec![(json!("x".repeat(longest + 1)), 400)]),
        Kind::GroupId => text(vec![(json!("x".repeat(51)), 400)]),
        Kind::OneOf(_) => text(vec![(json!("nonsense"), 400)]),
        Kind::Port => text(["0", "65536", "-1", "+1", "x", "６０", " 1"].map(|port| (json!(port), 400)).into()),
        Kind::RoomId => text(["1-2", "1 2", "1-2-3-4-5", "123456", "12-9-3-1202", "房", "-"].map(|r| (json!(r), 400)).into()),
        Kind::List { of, most } => {
            let one = wrongs(of).into_iter().map(|(value, code)| (json!([value]), code));
            let text = if matches!(of, Kind::Object(_)) { json!("x") } else { json!("") };
            let inside = (json!([text]), if matches!(of, Kind::Object(_)) { 20004 } else { 460 });
            let sizes = [(json!([]), 400), (json!(vec!["x"; most + 1]), 400), (json!("x"), 20004), (json!({}), 20004), inside];
            one.chain(sizes).collect()
        }
        Kind::Object(_) => [json!([]), json!("x"), json!(1)].map(|value| (value, 20004)).into(),
    }
}

/// Parameters with one field that is wrong, inner ones too.
fn spoiled(params: &Map<String, Value>, fields: &'static [Field]) -> Vec<(Value, u64)> {
    let mut all = Vec::new();
    for field in fields {
        let with = |value: Value| {
            let mut params = params.clone();
            params.insert(field.name.to_owned(), value);
            Value::Object(params)
        };
        let mut wrong = wrongs(&field.kind);
        if field.required {
            let mut without = params.clone();
            without.remove(field.name);
            all.push((Value::Object(without), 400));
            wrong.push((Value::Null, 400));
            if !matches!(field.kind, Kind::Integer { .. } | Kind::Long | Kind::List { .. } | Kind::Object(_)) {
                wrong.push((json!(""), 460));
            }
        }
        all.extend(wrong.into_iter().map(|(value, code)| (with(value), code)));
        match (&field.kind, params.get(field.name)) {
            (Kind::Object(fields), Some(Value::Object(inner))) => {
                all.extend(spoiled(inner, fields).into_iter().map(|(inner, code)| (with(inner), code)));
            }
            (Kind::List { of: Kind::Object(fields), .. }, Some(Value::Array(list))) => {
                let inner = list[0].as_object().unwrap();
                all.extend(spoiled(inner, fields).into_iter().map(|(inner, code)| (with(json!([inner])), code)));
            }
            _ => {}
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_field_of_every_endpoint_is_checked_and_nothing_changes() {
    let gateway = Gateway::start().await;
    gateway.provision(&owner().tenant, "").await;
    let client = gateway.of(owner()).await;
    let before = gateway.dump();
    assert_eq!(before.len(), 4 + 2 + 2 + 1 + 1 + 1, "{before:#?}");
    let mut tried = 0;
    for endpoint in endpoints() {
        let params: Map<String, Value> = serde_json::from_str(endpoint.example.params).unwrap();
        for (params, code) in spoiled(&params, endpoint.params) {
            let reply = client.envelope(endpoint.path, endpoint.versions[0], None, &params);
            assert_eq!(reply["code"], code, "{} {params}: {reply}", endpoint.path);
            assert_eq!(reply["id"], "a1");
            assert!(!reply.to_string().contains("secret-of"), "{reply}");
            tried += 1;
        }
        assert_eq!(gateway.dump(), before, "{}", endpoint.path);
    }
    assert!(tried > 300 && gateway.opened.lock().unwrap().is_empty(), "{tried}");
}

/// Spec admin-api.md §13.1, row by row; what needs another application is in `seed_tenants.rs`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_validation_table_holds() {
    let gateway = Gateway::start().await;
    gateway.provision(&owner().tenant, "").await;
    gateway.provision(&owner().tenant, "-2").await;
    let client = gateway.of(owner()).await;
    let before = gateway.dump();
    let (sip, video) = ("/entrance/paas/sipservice", "/entrance/paas/videointercom");
    let many: Vec<String> = (0..101).map(|n| format!("u{n}")).collect();
    let map = |iot: &str, room: &str, group: &str| json!({"iotId": iot, "maps": [{"roomId": room, "groupId": group}]});
    let (known, new) = (json!({"roomId": "1-1", "groupId": "g10000000a"}), json!({"roomId": "7", "groupId": "nowhere"}));
    let rows = [
        (format!("{sip}/sip/add"), json!({"count": 0, "type": 0}), 400),
        (format!("{sip}/sip/add"), json!({"count": -1, "type": 0}), 400),
        (format!("{sip}/sip/add"), json!({"count": 101, "type": 0}), 400),
        (format!("{sip}/sip/add"), json!({"count": "2", "type": 0}), 20004),
        (format!("{sip}/group/add"), json!({"count": 0}), 400),
        (format!("{sip}/sip/add"), json!({"count": 1, "type": 2}), 400),
        (format!("{sip}/sip/delete"), json!({"sipNumberList": []}), 400),
        (format!("{sip}/sip/delete"), json!({"sipNumberList": many}), 400),
        (format!("{sip}/group/delete"), json!({"groupList": many}), 400),
        // One that there is and one that there is not: neither is deleted.
        (format!("{sip}/sip/delete"), json!({"sipNumberList": ["u10000000a", "nobody"]}), 404),
        (format!("{sip}/group/delete"), json!({"groupList": ["g10000000a", "nowhere"]}), 404),
        (format!("{sip}/group/sip/add"), json!({"groupID": "nowhere", "sipNumberList": ["u10000000a"]}), 404),
        (
            format!("{sip}/group/sip/delete"),
            json!({"groupID": "g10000000a", "sipNumberList": ["u10000000a", "u10000000a-2"]}),
            404,
        ),
        (format!("{sip}/group/sip/list"), json!({"groupID": "nowhere"}), 404),
        (format!("{sip}/group/sip/add"), json!({"groupID": "g10000000b", "sipNumberList": ["u10000000a", "d10000000a"]}), 400),
        (format!("{sip}/sip/detail/get"), json!({"sipNumber": "nobody"}), 404),
        (format!("{sip}/sip/password/update"), json!({"sipNumber": "nobody"}), 404),
        ("/entrance/paas/sipserver/bind".into(), json!({"serverId": "srv-2"}), 404),
        // Unknown devices, everywhere but in `sync`.
        (format!("{video}/sipnumber/get"), json!({"iotId": "nowhere"}), 404),
        (format!("{video}/map/add"), map("nowhere", "1202", "g10000000a"), 404),
        (format!("{video}/map/delete"), map("nowhere", "1-9-3-1202", "g10000000a"), 404),
        (format!("{video}/map/query"), json!({"iotId": "nowhere"}), 404),
        ("/cloud/thing/service/invoke".into(), json!({"iotId": "nowhere", "identifier": "remoteOpen", "args": {}}), 404),
        ("/app/thing/status/get".into(), json!({"iotId": "nowhere"}), 404),
        ("/app/thing/status/get".into(), json!({"productKey": "pk", "deviceName": "dn"}), 404),
        ("/app/thing/status/get".into(), json!({"productKey": "pk"}), 400),
        (
            "/solution/community/device/nickname/update".into(),
            json!({"deviceIdentity": {"type": "PK_AND_DN", "iotId": "iot-1", "productKey": "pk"}, "nickName": "x"}),
            400,
        ),
        // Unknown and ill-fitting rooms, groups and spaces.
        (format!("{video}/map/add"), map("iot-1", "1-2", "g10000000a"), 400),
        (format!("{video}/map/add"), json!({"iotId": "iot-1", "maps": [known, new]}), 400),
        (format!("{video}/map/add"), map("iot-1", "7", "nowhere"), 404),
        (format!("{video}/map/delete"), map("iot-1", "1-9-3-1202", "g10000000b"), 404),
        (format!("{video}/space/add"), json!({"spaceId": "s", "groupId": "nowhere", "roomId": "1"}), 404),
        (format!("{video}/space/delete"), json!({"spaceId": "nowhere"}), 404),
        (format!("{video}/space/get"), json!({"spaceId": "nowhere"}), 404),
        (format!("{video}/space/get"), json!({"groupId": "g10000000b"}), 404),
        (format!("{video}/space/get"), json!({}), 460),
        (format!("{video}/space/get"), json!({"spaceId": "", "groupId": null}), 460),
        (format!("{video}/space/get"), json!({"spaceId": "space-1202", "groupId": "g10000000b"}), 400),
        (
            format!("{video}/sipnumber/sync"),
            json!({"iotId": "x", "sipNumber": "u10000000a", "password": "p", "host": "h", "port": "1"}),
            400,
        ),
        (
            format!("{video}/sipnumber/sync"),
            json!({"iotId": "x", "sipNumber": "nobody", "password": "p", "host": "h", "port": "1"}),
            404,
        ),
        ("/cloud/thing/service/invoke".into(), json!({"iotId": "iot-1", "identifier": "SyncSipNumber", "args": {}}), 501),
        (format!("{sip}/no/such"), json!({}), 20003),
    ];
    for (path, params, code) in rows {
        let reply = client.call(&path, &params);
        assert_eq!(reply["code"], code, "{path} {params}: {reply}");
    }
    let wrong_version = client.envelope(&format!("{sip}/group/add"), "9.9.9", None, &json!({"count": 1}));
    assert_eq!(wrong_version["code"], 20003);
    assert_eq!(gateway.dump(), before);

    let unknown = client.call(&format!("{sip}/sip/detail/get"), &json!({"sipNumber": "nobody"}));
    assert_eq!((&unknown["message"], &unknown["localizedMsg"]), (&json!("SYS_0002"), &json!("SIP number invalid")));
    let both = client.call(&format!("{video}/space/get"), &json!({"spaceId": "space-1202", "groupId": "g10000000a"}));
    assert_eq!(both["data"]["roomId"], "1-9-3-1202", "consistent keys");
}

/// `group/add` with this body and head.
fn add(client: &Client, query: &str, head: &str, body: impl AsRef<[u8]>) -> u64 {
    client.post(&format!("/entrance/paas/sipservice/group/add{query}"), head, body.as_ref())["code"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_is_refused_in_the_envelope_and_changes_nothing() {
    let gateway = Gateway::start().await;
    let client = gateway.of(owner()).await;
    let deep = |n: usize| format!("{{\"count\":1,\"x\":{}{}}}", "[".repeat(n), "]".repeat(n));
    let bodies: Vec<Vec<u8>> = vec![
        b"{".to_vec(),
        b"nonsense".to_vec(),
        b"\xff\xfe".to_vec(),
        b"{\"count\":1,\"x\":\"\xc3\x28\"}".to_vec(),
        b"[1]".to_vec(),
        b"1".to_vec(),
        b"{\"params\":3}".to_vec(),
        b"{\"params\":[]}".to_vec(),
        b"{\"count\":1e999}".to_vec(),
        b"{\"count\":1,\"count\":1}".to_vec(),
        b"{\"params\":{\"count\":1},\"params\":{\"count\":2}}".to_vec(),
        b"{\"params\":{\"count\":1,\"x\":{\"y\":1,\"y\":2}}}".to_vec(),
        b"{\"count\":1} trailing".to_vec(),
        b"\"\\ud800\"".to_vec(),
        deep(100_000).into(),
        deep(200).into(),
        b"".to_vec(),
        b"{\"params\":null}".to_vec(),
    ];
    for body in bodies {
        assert_eq!(add(&client, "", "", &body), 400, "{}", String::from_utf8_lossy(&body[..body.len().min(80)]));
    }
    for (query, head, body) in [
        ("", "", r#"{"request":{"apiVer":"1.0.1"},"params":{"count":1}}"#),
        ("", "", r#"{"request":{"apiVer":1},"params":{"count":1}}"#),
        ("", "apiVer: 2.0.0\r\n", r#"{"count":1}"#),
        ("?apiVer=2.0.0", "", r#"{"count":1}"#),
    ] {
        assert_eq!(add(&client, query, head, body), 20003, "{query} {head} {body}");
    }
    for method in ["GET", "PUT", "DELETE"] {
        let reply = client.send(method, "/entrance/paas/sipservice/group/add", "", b"{\"count\":1}");
        assert_eq!(reply["code"], 20003, "{method}");
    }
    assert_eq!(gateway.dump(), Vec::<String>::new());

    // What is not known is ignored, at every depth; the version comes with the envelope, the head or the query.
    for (query, head, body) in [
        ("", "", r#"{"count":1,"colour":"red","x":{"y":[1e400e]}}"#),
        ("", "", r#"{"count":1,"colour":"red","x":{"y":[{}]}}"#),
        ("", "", r#"{"request":{"apiVer":"1.0.0","iotToken":"t","x":1},"params":{"count":1,"z":null},"more":1}"#),
        ("", "", r#"{"request":null,"params":{"count":1}}"#),
        ("", "apiVer: 1.0.0\r\n", r#"{"count":1}"#),
        ("?apiVer=1.0.0", "", r#"{"count":1}"#),
        ("", "", &deep(100)),
    ] {
        let wanted = if body.contains("1e400e") { 400 } else { 200 };
        assert_eq!(add(&client, query, head, body), wanted, "{query} {head} {body}");
    }
    assert_eq!(gateway.dump().len(), 6, "six groups");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_are_for_those_who_may_see_them() {
    let gateway = Gateway::start().await;
    gateway.provision(&owner().tenant, "").await;
    let operator = Caller { name: "operator".into(), may: May { own: false, passwords: false, pictures: false }, ..owner() };
    let operator = gateway.of(operator).await;
    for (path, params) in [
        ("sip/detail/get", json!({"sipNumber": "u10000000a"})),
        ("group/sip/list", json!({"groupID": "g10000000a"})),
        ("sip/add", json!({"count": 2, "type": 0})),
        ("sip/password/update", json!({"sipNumber": "u10000000a"})),
    ] {
        let reply = operator.call(&format!("/entrance/paas/sipservice/{path}"), &params);
        let one = reply["data"].get(0).unwrap_or(&reply["data"]);
        assert_eq!((&reply["code"], &one["sipPassword"]), (&json!(200), &json!("")), "{path}: {reply}");
        assert!(!reply.to_string().contains("secret-of"));
    }
    let get = |client: &Client, number: &str| {
        client.call("/entrance/paas/sipservice/sip/detail/get", &json!({"sipNumber": number}))["data"]["sipPassword"].clone()
    };
    let owner = gateway.of(owner()).await;
    assert_eq!(get(&owner, "u10000000b"), "secret-of-u10000000b");
    assert_ne!(get(&owner, "u10000000a"), "secret-of-u10000000a", "the operator has changed it");
}
