//! Two applications on one server (spec admin-api.md §2.1, §2.2): what is one's is closed to the other, and whoever reaches both
//! cannot mix them. Tokens of communities, and who is on record for opening a door.

mod gateway;

use gateway::{Client, Gateway, app, owner};
use intercom_api::unlock::Outcome;
use serde_json::{Value, json};

const SIP: &str = "/entrance/paas/sipservice";
const VIDEO: &str = "/entrance/paas/videointercom";
const INVOKE: &str = "/cloud/thing/service/invoke";
const TOKEN: &str = "/solution/community/paas/token/get";
const REFRESH: &str = "/solution/community/paas/token/refresh";
const DEVICES: &str = "/solution/community/paas/tenant/device/query";
const NICKNAME: &str = "/solution/community/device/nickname/update";

/// Everything that can be done to what ends in `-a`.
fn about_a() -> Vec<(String, Value)> {
    let group = json!({"groupID": "g10000000a-a", "sipNumberList": ["u10000000a-a"]});
    let maps = json!({"iotId": "iot-1-a", "maps": [{"roomId": "1-9-3-1202", "groupId": "g10000000a-a"}]});
    let own_number = json!({"iotId": "iot-1-a", "sipNumber": "d10000000b-b", "password": "p", "host": "h", "port": "1"});
    let own_unit = json!({"iotId": "iot-1-b", "sipNumber": "d10000000a-a", "password": "p", "host": "h", "port": "1"});
    vec![
        (format!("{SIP}/sip/delete"), json!({"sipNumberList": ["u10000000b-b", "u10000000a-a"]})),
        (format!("{SIP}/sip/detail/get"), json!({"sipNumber": "u10000000a-a"})),
        (format!("{SIP}/sip/password/update"), json!({"sipNumber": "u10000000a-a"})),
        (format!("{SIP}/group/delete"), json!({"groupList": ["g10000000b-b", "g10000000a-a"]})),
        (format!("{SIP}/group/sip/add"), group.clone()),
        (format!("{SIP}/group/sip/add"), json!({"groupID": "g10000000a-a", "sipNumberList": ["u10000000a-b"]})),
        (format!("{SIP}/group/sip/add"), json!({"groupID": "g10000000a-b", "sipNumberList": ["u10000000a-a"]})),
        (format!("{SIP}/group/sip/delete"), group),
        (format!("{SIP}/group/sip/list"), json!({"groupID": "g10000000a-a"})),
        (format!("{VIDEO}/sipnumber/sync"), own_number),
        (format!("{VIDEO}/sipnumber/sync"), own_unit),
        (format!("{VIDEO}/sipnumber/get"), json!({"iotId": "iot-1-a"})),
        (format!("{VIDEO}/map/add"), maps.clone()),
        (format!("{VIDEO}/map/add"), json!({"iotId": "iot-1-b", "maps": [{"roomId": "7", "groupId": "g10000000a-a"}]})),
        (format!("{VIDEO}/map/add"), json!({"iotId": "iot-1-a", "maps": [{"roomId": "7", "groupId": "g10000000a-b"}]})),
        (format!("{VIDEO}/map/delete"), maps),
        (format!("{VIDEO}/map/query"), json!({"iotId": "iot-1-a"})),
        (format!("{VIDEO}/space/add"), json!({"spaceId": "space-1202-a", "groupId": "g10000000a-b", "roomId": "1"})),
        (format!("{VIDEO}/space/add"), json!({"spaceId": "new", "groupId": "g10000000a-a", "roomId": "1"})),
        (format!("{VIDEO}/space/delete"), json!({"spaceId": "space-1202-a"})),
        (format!("{VIDEO}/space/get"), json!({"spaceId": "space-1202-a"})),
        (format!("{VIDEO}/space/get"), json!({"groupId": "g10000000a-a"})),
        (INVOKE.into(), json!({"iotId": "iot-1-a", "identifier": "remoteOpen", "args": {}})),
        ("/app/thing/service/invoke".into(), json!({"iotId": "iot-1-a", "identifier": "remoteOpen", "args": {}})),
        ("/app/thing/status/get".into(), json!({"iotId": "iot-1-a"})),
    ]
}

async fn two_apps() -> (Gateway, Client, Client) {
    let gateway = Gateway::start().await;
    gateway.provision(&app("a").tenant, "-a").await;
    gateway.provision(&app("b").tenant, "-b").await;
    let (a, b) = (gateway.of(app("a")).await, gateway.of(app("b")).await);
    (gateway, a, b)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_one_applications_is_closed_to_the_other() {
    let (gateway, a, b) = two_apps().await;
    let before = gateway.dump();
    for (path, params) in about_a() {
        let reply = b.call(&path, &params);
        assert_eq!((&reply["code"], &reply["message"]), (&json!(403), &json!("request forbidden.")), "{path} {params}: {reply}");
        assert!(!reply.to_string().contains("secret-of"), "{reply}");
    }
    assert_eq!(gateway.dump(), before, "and nothing of it happened, not even b's half");
    assert!(gateway.opened.lock().unwrap().is_empty());

    // What somebody makes is his.
    let number = a.call(&format!("{SIP}/sip/add"), &json!({"count": 1, "type": 0}))["data"][0]["sipNumber"].clone();
    let group = a.call(&format!("{SIP}/group/add"), &json!({"count": 1}))["data"][0]["groupID"].clone();
    assert_eq!(b.code(&format!("{SIP}/sip/detail/get"), &json!({"sipNumber": number})), 403);
    assert_eq!(b.code(&format!("{SIP}/group/sip/list"), &json!({"groupID": group})), 403);
    assert_eq!(a.code(&format!("{SIP}/group/sip/add"), &json!({"groupID": group, "sipNumberList": [number]})), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_reaches_both_cannot_mix_them() {
    let (gateway, ..) = two_apps().await;
    gateway.provision(&owner().tenant, "").await;
    let all = gateway.of(owner()).await;
    let before = gateway.dump();
    let sync = |iot: &str, number: &str| json!({"iotId": iot, "sipNumber": number, "password": "p", "host": "h", "port": "1"});
    for (path, params) in [
        (format!("{SIP}/group/sip/add"), json!({"groupID": "g10000000a-a", "sipNumberList": ["u10000000a-b"]})),
        (format!("{SIP}/group/sip/add"), json!({"groupID": "g10000000a", "sipNumberList": ["u10000000a-b"]})),
        (format!("{VIDEO}/sipnumber/sync"), sync("iot-1-a", "d10000000b-b")),
        (format!("{VIDEO}/sipnumber/sync"), sync("iot-1-a", "d10000000b")),
        (format!("{VIDEO}/map/add"), json!({"iotId": "iot-1-a", "maps": [{"roomId": "7", "groupId": "g10000000a-b"}]})),
        (format!("{VIDEO}/space/add"), json!({"spaceId": "space-1202-a", "groupId": "g10000000a-b", "roomId": "1"})),
    ] {
        assert_eq!(all.code(&path, &params), 400, "{path} {params}");
    }
    assert_eq!(gateway.dump(), before);

    // What it makes for an application is the application's.
    let (a, b) = (gateway.of(app("a")).await, gateway.of(app("b")).await);
    assert_eq!(all.code(&format!("{VIDEO}/sipnumber/sync"), &sync("iot-2", "d10000000b-a")), 200);
    assert_eq!(all.code(&format!("{VIDEO}/space/add"), &json!({"spaceId": "s", "groupId": "g10000000b-a", "roomId": "1"})), 200);
    for (client, code) in [(&a, 200), (&b, 403)] {
        assert_eq!(client.code(&format!("{VIDEO}/sipnumber/get"), &json!({"iotId": "iot-2"})), code);
        assert_eq!(client.code(&format!("{VIDEO}/space/get"), &json!({"spaceId": "s"})), code);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_account_takes_its_unit_and_its_memberships_with_it() {
    let (gateway, a, _) = two_apps().await;
    let others = |gateway: &Gateway| gateway.dump().into_iter().filter(|row| row.contains("-b\"")).collect::<Vec<_>>();
    let before = others(&gateway);
    // Named twice is named once.
    let numbers = json!({"sipNumberList": ["d10000000a-a", "u10000000a-a", "u10000000a-a"]});
    assert_eq!(a.code(&format!("{SIP}/sip/delete"), &numbers), 200);
    assert_eq!(a.code(&format!("{SIP}/sip/delete"), &numbers), 404, "gone already");
    assert_eq!(a.code(&format!("{VIDEO}/map/query"), &json!({"iotId": "iot-1-a"})), 404);
    let members = a.call(&format!("{SIP}/group/sip/list"), &json!({"groupID": "g10000000a-a"}));
    assert_eq!((members["data"].as_array().map(Vec::len), &members["data"][0]["sipNumber"]), (Some(1), &json!("u10000000b-a")));

    // The unit gets another account, with an empty map.
    let sync = json!({"iotId": "iot-1-a", "sipNumber": "d10000000b-a", "password": "p", "host": "h", "port": "1"});
    assert_eq!(a.code(&format!("{VIDEO}/sipnumber/sync"), &sync), 200);
    assert_eq!(a.call(&format!("{VIDEO}/map/query"), &json!({"iotId": "iot-1-a"}))["data"]["total"], 0);

    // A group takes its rooms and spaces with it.
    let map = json!({"iotId": "iot-1-a", "maps": [{"roomId": "9-3-1202", "groupId": "g10000000a-a"}]});
    assert_eq!(a.code(&format!("{VIDEO}/map/add"), &map), 200);
    assert_eq!(a.code(&format!("{SIP}/group/delete"), &json!({"groupList": ["g10000000a-a"]})), 200);
    assert_eq!(a.call(&format!("{VIDEO}/map/query"), &json!({"iotId": "iot-1-a"}))["data"]["total"], 0);
    assert_eq!(a.code(&format!("{VIDEO}/space/get"), &json!({"spaceId": "space-1202-a"})), 404);
    assert_eq!(others(&gateway), before, "b has lost nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_map_is_read_by_page_room_and_group() {
    let (_gateway, a, _) = two_apps().await;
    for hundred in 0..3 {
        let maps: Vec<Value> =
            (0..100).map(|n| json!({"roomId": format!("1-1-{}", 1000 + 100 * hundred + n), "groupID": "g10000000b-a"})).collect();
        assert_eq!(a.code(&format!("{VIDEO}/map/add"), &json!({"iotId": "iot-1-a", "maps": maps})), 200);
    }
    let query = |more: Value| {
        let mut params = json!({"iotId": "iot-1-a"});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        a.call(&format!("{VIDEO}/map/query"), &params)["data"].clone()
    };
    let page = query(json!({}));
    assert_eq!((&page["total"], &page["pageNo"], &page["pageSize"]), (&json!(301), &json!(1), &json!(20)), "OPEN-20");
    assert_eq!((page["data"].as_array().map(Vec::len), &page["data"][0]["roomId"]), (Some(20), &json!("1-1-1-1000")));
    let mut all = Vec::new();
    for number in 1..=4 {
        all.extend(query(json!({"pageNo": number, "pageSize": 100}))["data"].as_array().unwrap().clone());
    }
    all.dedup();
    assert_eq!(all.len(), 301, "each room once");
    assert_eq!(query(json!({"pageNo": 1_000_000}))["data"], json!([]), "behind the last one");
    // Any grammar finds the room (OPEN-24).
    for room in ["9-3-1202", "1-9-3-1202"] {
        let found = query(json!({"roomId": room}));
        assert_eq!((&found["total"], &found["data"][0]["groupId"]), (&json!(1), &json!("g10000000a-a")), "{room}");
    }
    assert_eq!(query(json!({"groupId": "g10000000a-a"}))["total"], 1);
    assert_eq!(query(json!({"groupID": "g10000000b-a", "pageSize": 1}))["total"], 300);
    assert_eq!(query(json!({"groupId": "g10000000b-a", "roomId": "9-3-1202"}))["total"], 0);
    // A room that is there is replaced.
    let map = json!({"iotId": "iot-1-a", "maps": [{"roomId": "9-3-1202", "groupId": "g10000000b-a"}]});
    assert_eq!(a.code(&format!("{VIDEO}/map/add"), &map), 200);
    assert_eq!(query(json!({}))["total"], 301);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_community_has_one_token_and_belongs_to_who_came_first() {
    let (gateway, a, b) = two_apps().await;
    let owned = json!({"queryType": "OWNED"});
    let get = |client: &Client, community: i64| client.call(TOKEN, &json!({"communityId": community}));
    let devices = |client: &Client, token: Option<&str>| client.envelope(DEVICES, "1.0.1", token, &owned);
    assert_eq!(devices(&a, None)["code"], 403, "no token");
    assert_eq!(devices(&a, Some("c.1504"))["code"], 403);

    let first = get(&a, 1504);
    assert_eq!((&first["code"], &first["data"]["expiresIn"]), (&json!(200), &json!(7_200_000)));
    let first = first["data"]["cloudToken"].as_str().unwrap().to_owned();
    assert!(!gateway.dump().iter().any(|row| row.contains(&first)), "only a hash is kept");
    assert_eq!(get(&b, 1504)["code"], 403, "another's community");
    let page = devices(&a, Some(&first));
    assert_eq!((&page["data"]["total"], &page["data"]["data"][0]["iotId"]), (&json!(1), &json!("iot-1-a")), "his own only");
    assert_eq!(devices(&b, Some(&first))["code"], 403, "another's token");
    let authorized = a.envelope(DEVICES, "1.0.1", Some(&first), &json!({"queryType": "AUTHORIZED", "pageSize": 5}));
    assert_eq!(authorized["data"], json!({"total": 0, "pageNo": 1, "pageSize": 5, "data": []}));

    // Refreshed it lasts; a further get kills it.
    let refreshed = a.call(REFRESH, &json!({"cloudToken": first}));
    assert_eq!((&refreshed["code"], &refreshed["data"]["cloudToken"]), (&json!(200), &json!(first)));
    assert_eq!(b.code(REFRESH, &json!({"cloudToken": first})), 403);
    let second = get(&a, 1504)["data"]["cloudToken"].as_str().unwrap().to_owned();
    assert_ne!(first, second);
    assert_eq!((&devices(&a, Some(&first))["code"], &devices(&a, Some(&second))["code"]), (&json!(403), &json!(200)));
    assert_eq!(a.code(REFRESH, &json!({"cloudToken": first})), 403);
    // Another community of the same application does not disturb it.
    assert_eq!(get(&a, -7)["code"], 200);
    assert_eq!(devices(&a, Some(&second))["code"], 200);
    // A time comes when it is over.
    let store = &gateway.state.store;
    let late = i64::MAX / 2;
    assert!(store.check_token(app("a").tenant, second.clone(), late).await.is_err());

    let name = |client: &Client, token: Option<&str>, iot: &str| {
        let params = json!({"deviceIdentity": {"type": "IOT_ID", "iotId": iot}, "nickName": "Gate"});
        client.envelope(NICKNAME, "1.0.0", token, &params)["code"].as_u64().unwrap()
    };
    assert_eq!((name(&a, None, "iot-1-a"), name(&a, Some(&second), "iot-1-b")), (403, 403));
    assert_eq!(name(&a, Some(&second), "iot-1-a"), 200);
    assert_eq!(devices(&a, Some(&second))["data"]["data"][0]["nickName"], "Gate");
    // Whoever reaches everything needs none.
    let all = gateway.of(owner()).await;
    assert_eq!((&devices(&all, None)["data"]["total"], name(&all, None, "iot-1-b")), (&json!(2), 200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn remote_open_says_ok_only_if_the_door_opened_and_the_record_who_asked() {
    let (gateway, a, _) = two_apps().await;
    let open = |path: &str, version: &str, more: Value| {
        let mut params = json!({"iotId": "iot-1-a", "identifier": "remoteOpen", "args": {}});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        a.envelope(path, version, None, &params)
    };
    let names = json!({"productKey": "pk1", "deviceName": "HJSB-000205"});
    let plain = json!({"id": "a1", "code": 200, "message": null, "localizedMsg": null});
    assert_eq!(open(INVOKE, "1.0.1", json!({})), plain);
    assert_eq!(open(INVOKE, "1.0.2", names.clone()), plain);
    assert_eq!(open(INVOKE, "1.0.2", json!({}))["code"], 400, "there both names are needed");
    let as_app = open("/app/thing/service/invoke", "1.0.3", json!({}));
    assert_eq!((&as_app["code"], &as_app["data"]["data"]), (&json!(200), &json!({})));
    assert!(as_app["data"]["messageId"].is_string());
    let asked = ("d10000000a-a".to_owned(), "a".to_owned());
    assert_eq!(*gateway.opened.lock().unwrap(), vec![asked; 3]);

    for (outcome, code, reason) in [
        (Outcome::Refused(403), 403, "refused"),
        (Outcome::Refused(603), 603, "refused"),
        (Outcome::Unknown, 408, "unknown"),
        (Outcome::Relayed, 408, "relayed"),
        (Outcome::Offline, 480, "offline"),
        (Outcome::Forbidden, 403, "forbidden"),
    ] {
        *gateway.outcome.lock().unwrap() = outcome;
        let reply = open(INVOKE, "1.0.1", json!({}));
        assert_eq!((&reply["code"], &reply["localizedMsg"]), (&json!(code), &json!(reason)), "{outcome:?}");
    }

    // The names it is called by are asked for where they are known.
    *gateway.outcome.lock().unwrap() = Outcome::Opened;
    let unit = intercom_api::store::DeviceNames {
        product_key: Some(Some("pk1".into())),
        device_name: Some(Some("HJSB-000205".into())),
        nick_name: None,
    };
    let patch = intercom_api::store::AccessPatch { unit, ..Default::default() };
    let (tenant, kind) = (app("a").tenant, intercom_api::model::AccountType::Door);
    gateway.state.store.change_access(tenant, "d10000000a-a".into(), kind, patch).await.unwrap();
    assert_eq!(open(INVOKE, "1.0.2", names)["code"], 200);
    assert_eq!(open(INVOKE, "1.0.2", json!({"productKey": "pk1", "deviceName": "other"}))["code"], 400);
    let status = a.call("/app/thing/status/get", &json!({"productKey": "pk1", "deviceName": "HJSB-000205"}));
    assert_eq!(status["data"]["status"], 3, "offline, and older than the server");
}
