use super::*;

fn load_text(text: &str, environment: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let path = std::env::temp_dir().join(format!("doorline-config-{:?}.toml", std::thread::current().id()));
    std::fs::write(&path, text).unwrap();
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let result = load(Some(&path), environment);
    std::fs::remove_file(&path).unwrap();
    let base = path.display().to_string();
    result.map_err(|problems| problems.iter().map(|p| p.to_string().replace(&base, "FILE")).collect())
}

#[test]
fn defaults_stand_and_are_printed_so_that_they_load_again() {
    let config = load(None, std::iter::empty()).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(load_text(&config.to_toml(), &[]).unwrap(), config);
    for (section, key, _) in keys() {
        assert!(config.to_toml().contains(&format!("\n{key} = ")), "{section}.{key}");
    }
}

#[test]
fn environment_wins_over_the_file() {
    let config = load_text(
        "drain_s = 5\n[ring]\ntimeout_s = 20\n[sip]\nrealm = \"a\"\n",
        &[("DOORLINE_RING__TIMEOUT_S", "30"), ("DOORLINE_SIP__UDP", "127.0.0.50:6050, 127.0.0.51:6050"), ("OTHER", "x")],
    )
    .unwrap();
    assert_eq!((config.top.drain_s, config.ring.timeout_s, config.sip.realm.as_str()), (5, 30, "a"));
    assert_eq!(config.sip.udp, ["127.0.0.50:6050", "127.0.0.51:6050"]);
}

#[test]
fn tcp_goes_where_udp_goes_unless_told_otherwise() {
    let udp = ("DOORLINE_SIP__UDP", "127.0.0.50:6050");
    assert_eq!(load_text("", &[udp]).unwrap().sip.tcp, ["127.0.0.50:6050"]);
    assert_eq!(load_text("[sip]\nudp = [\"127.0.0.51:1\"]\n", &[]).unwrap().sip.tcp, ["127.0.0.51:1"]);
    assert_eq!(load_text("[sip]\ntcp = []\n", &[udp]).unwrap().sip.tcp, Vec::<String>::new());
    assert_eq!(load_text("", &[udp, ("DOORLINE_SIP__TCP", "")]).unwrap().sip.tcp, Vec::<String>::new());
}

#[test]
fn tls_needs_a_certificate_that_can_be_read() {
    let problems = load_text("[sip]\ntls = [\"127.0.0.1:5061\"]\n", &[]).unwrap_err();
    assert_eq!(problems, ["tls.cert: sip.tls and sip.wss need tls.cert and tls.key"]);
    let problems = load_text("[tls]\ncert = \"/nowhere.pem\"\nkey = \"/nowhere.key\"\n", &[]).unwrap_err();
    assert!(problems.len() == 1 && problems[0].starts_with("FILE:2: tls.cert: /nowhere.pem: no certificate"), "{problems:?}");
}

#[test]
fn problems_name_place_and_cure() {
    let problems = load_text(
        "[ring]\ntimeout_s = 0\n[media]\nports = \"20000-10000\"\nbind_ip = \"here\"\n[sip]\nudp = []\n",
        &[("DOORLINE_API__LISTEN", "8080")],
    )
    .unwrap_err();
    assert_eq!(
        problems,
        [
            "FILE:7: sip.udp: needs at least one address, e.g. \"0.0.0.0:6050\"",
            "FILE:5: media.bind_ip: `here` is not an IP address",
            "FILE:4: media.ports: `20000-10000` is not a range of ports, e.g. \"10000-20000\"",
            "DOORLINE_API__LISTEN: `8080` is not an address with a port, e.g. \"127.0.0.1:8080\"",
            "FILE:2: ring.timeout_s: 0 is not within 1-180",
        ]
    );
}

#[test]
fn unknown_and_mistyped_settings_are_refused() {
    for (text, environment, wanted) in [
        ("[ring]\ntimeuot_s = 1\n", vec![], "FILE:2"),
        ("colour = 1\n", vec![], "colour"),
        ("[ring]\ntimeout_s = \"x\"\n", vec![], "FILE:2"),
        ("[ring\n", vec![], "FILE:1"),
        ("", vec![("DOORLINE_RING__TIMEUOT_S", "1")], "DOORLINE_RING__TIMEUOT_S: unknown setting"),
        ("", vec![("DOORLINE_RING__TIMEOUT_S", "soon")], "`soon` is not a whole number"),
    ] {
        let problems = load_text(text, &environment).unwrap_err();
        assert!(problems.iter().any(|problem| problem.contains(wanted)), "{text}: {problems:?}");
    }
}

#[test]
fn secrets_are_masked() {
    let variables = [
        ("DOORLINE_API__BEARER", "s3cret-1"),
        ("DOORLINE_API__APPS", "a:s3cret-2,b:s3cret:3"),
        ("DOORLINE_API__USERS", "jo:owner:s3cret-4,al:operator+pictures:s3cret-5"),
    ];
    let config = load(None, variables.iter().map(|(name, value)| ((*name).into(), (*value).into()))).unwrap();
    let (printed, debug) = (config.to_toml(), format!("{config:?}"));
    assert!(!printed.contains("s3cret") && !debug.contains("s3cret"), "{printed}\n{debug}");
    assert_eq!((config.api.apps[1].secret.reveal(), config.api.users[1].may.as_slice()), ("s3cret:3", &[Grant::Pictures][..]));
    // What is printed is a configuration, though not with these secrets.
    toml::from_str::<Config>(&printed).unwrap();
}

#[test]
fn callers_are_told_apart() {
    let text = "[api]\nbearer = \"tokentoken\"\nusers = [{ name = \"a\", token = \"tokentoken\", role = \"owner\" }]\n\
                    apps = [\"k:123456\", { key = \"k\", secret = \"12345\" }, \"no\"]\n";
    let problems = load_text(text, &[]).unwrap_err();
    assert!(problems[0].contains("an app is `key:secret`"), "{problems:?}");
    let problems = load_text(&text.replace(", \"no\"", ""), &[]).unwrap_err();
    let text = "[api]\napps = [{ key = \"a\", secret = \"123456\", name = \"owner\" }, { key = \"b\", secret = \"123456\", name = \"Jo\" }]\n\
                users = [{ name = \"Jo\", token = \"tokentoken\", role = \"operator\" }]\n";
    let names: Vec<String> = load_text(text, &[]).unwrap_err();
    assert!(names.len() == 2 && names[0].contains("`owner` is no name") && names[1].contains("`Jo` is no name"), "{names:?}");
    let wanted = ["the secret of `k` has", "`k` is there twice", "the token of `a`"];
    assert!(wanted.iter().zip(&problems).all(|(wanted, problem)| problem.contains(wanted)), "{problems:?}");
}

#[test]
fn keys_of_the_store_are_masked() {
    let key = "5ec2e7".repeat(11)[..64].to_owned();
    let set = [("API__BEARER", "s3cret"), ("STORE__KEY", &key), ("STORE__NEW_KEY", &key)];
    let set = set.map(|(name, value)| (format!("DOORLINE_{name}"), value.to_owned()));
    let config = load(None, set.into_iter()).unwrap();
    assert!(config.store.key().is_some() && config.store.new_key() == config.store.key());
    for shown in [config.to_toml(), format!("{config:?}")] {
        assert!(!shown.contains("s3cret") && !shown.contains("5ec2e7"), "{shown}");
    }
    let problems = load_text("[store]\nkey = \"5ec2e7\"\n", &[]).unwrap_err();
    assert_eq!(problems, ["FILE:2: store.key: is not 64 hex digits, e.g. of `openssl rand -hex 32`"]);
}
