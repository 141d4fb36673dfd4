//! Vectors of the RFCs and of the spec, then the life of a nonce, then properties.

use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_600_000_000_000;

fn challenger() -> Challenger {
    Challenger::new([7; 32], "doorline", Algorithm::MD5)
}

/// A phone that answers challenges.
struct Phone {
    challenge: Challenge,
    password: &'static str,
}

impl Phone {
    fn challenged(by: &mut Challenger, now: u64) -> Phone {
        Phone { challenge: Challenge::parse(&by.challenge(now, false)[0]).unwrap(), password: "pw" }
    }

    /// The same without qop, as the spec's phones do.
    fn bare(mut self) -> Phone {
        self.challenge.auth = false;
        self
    }

    fn answer(&self, nc: u32) -> Credentials {
        let value = self.challenge.answer("REGISTER", "sip:example.com", "101", self.password, "c0", nc);
        Credentials::parse(&value).unwrap()
    }
}

fn check(by: &mut Challenger, now: u64, credentials: &Credentials) -> Verdict {
    by.check(now, "REGISTER", credentials, Some("pw"), "call-1", 1)
}

#[test]
fn vectors() {
    let mufasa = |challenge: &str, password: &str, cnonce: &str| {
        let challenge = Challenge::parse(challenge).unwrap();
        let value = challenge.answer("GET", "/dir/index.html", "Mufasa", password, cnonce, 1);
        Credentials::parse(&value).unwrap().response
    };
    // RFC 2617 §3.5
    assert_eq!(
        mufasa(
            "Digest realm=\"testrealm@host.com\", qop=\"auth,auth-int\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", \
             opaque=\"5ccc069c403ebaf9f0171e9517f40e41\"",
            "Circle Of Life",
            "0a4f113b"
        ),
        "6629fae49393a05397450978507c4ef1"
    );
    // RFC 2069 §2.4 with its erratum
    assert_eq!(
        mufasa("Digest realm=\"testrealm@host.com\", nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\"", "CircleOfLife", ""),
        "1949323746fe6a43ef61f9606e7febea"
    );
    // RFC 7616 §3.9.1
    for (algorithm, response) in [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ] {
        let challenge = format!(
            "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm={algorithm}, \
             nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\""
        );
        let cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ";
        assert_eq!(mufasa(&challenge, "Circle of Life", cnonce), response);
    }
}

#[test]
fn vector_of_the_spec() {
    // spec sip.md §2.1, §2.3
    let request = "Digest realm=\"intercom\", nonce=\"59a1c0de\", algorithm=MD5, username=\"U1residentA00000000001\", \
        uri=\"sip:sip.example.com\", response=\"8433178d9b24518f1505773128464136\"";
    let credentials = Credentials::parse(request).unwrap();
    assert_eq!(credentials.expect(Algorithm::Md5, "REGISTER", "pw-7Kd2"), credentials.response);
    let challenge = Challenge::parse("Digest algorithm=MD5, realm=\"intercom\", nonce=\"59a1c0de\"");
    let (uri, user) = ("sip:sip.example.com", "U1residentA00000000001");
    let answer = challenge.unwrap().answer("REGISTER", uri, user, "pw-7Kd2", "", 1);
    assert_eq!(Credentials::parse(&answer), Some(credentials));
}

#[test]
fn a_challenge_is_one_line_with_qop_and_a_new_nonce() {
    let mut challenger = Challenger::new([7; 32], "my \"house\"\r\n", Algorithm::MD5);
    let first = challenger.challenge(NOW, false).remove(0);
    assert!(first.starts_with("Digest realm=\"my \\\"house\\\"\", nonce=\""), "{first}");
    assert!(first.ends_with(", algorithm=MD5, qop=\"auth\""), "{first}");
    assert_ne!(first, challenger.challenge(NOW, false)[0], "two phones must not share one");
    let stale = challenger.challenge(NOW, true).remove(0);
    assert!(stale.ends_with(", stale=true"));
    let read = Challenge::parse(&stale).unwrap();
    assert!(read.stale && read.auth);
    assert_eq!((read.realm.as_str(), read.nonce.len()), ("my \"house\"", 32));
}

#[test]
fn a_phone_registers_again_and_again_on_one_nonce() {
    let mut c = challenger();
    let phone = Phone::challenged(&mut c, NOW);
    for nc in [1, 2, 9, 10, 11, 255, 256] {
        assert_eq!(check(&mut c, NOW + u64::from(nc), &phone.answer(nc)), Verdict::Ok, "nc {nc}");
    }
}

#[test]
fn an_nc_counts_once_in_whatever_order() {
    let mut c = challenger();
    let phone = Phone::challenged(&mut c, NOW);
    let replayed = Verdict::Stale(Stale::Replayed);
    for (nc, verdict) in [
        (3, Verdict::Ok),
        (3, replayed),
        (1, Verdict::Ok),
        (2, Verdict::Ok),
        (1, replayed),
        (2, replayed),
        (66, Verdict::Ok),
        (3, replayed),
        (4, Verdict::Ok),
        (2, replayed),
        (u32::MAX, Verdict::Ok),
        (66, replayed),
        (u32::MAX, replayed),
        (u32::MAX - 63, Verdict::Ok),
        (u32::MAX - 64, replayed),
    ] {
        assert_eq!(check(&mut c, NOW, &phone.answer(nc)), verdict, "nc {nc}");
    }
}

#[test]
fn a_nonce_ages() {
    let mut c = challenger();
    let phone = Phone::challenged(&mut c, NOW);
    assert_eq!(check(&mut c, NOW + NONCE_LIFE_MS, &phone.answer(1)), Verdict::Ok);
    let late = check(&mut c, NOW + NONCE_LIFE_MS + 1, &phone.answer(2));
    assert_eq!(late, Verdict::Stale(Stale::Expired));

    let mut c = challenger();
    let bare = Phone::challenged(&mut c, NOW).bare();
    let in_time = NOW + BARE_NONCE_LIFE_MS;
    assert_eq!(check(&mut c, in_time, &bare.answer(1)), Verdict::Ok);
    let late = check(&mut c, in_time + 1, &bare.answer(1));
    assert_eq!(late, Verdict::Stale(Stale::Expired));
}

#[test]
fn a_clock_set_back_locks_nobody_out() {
    let mut c = challenger();
    c.max_used = 1;
    for _ in 0..2 {
        let phone = Phone::challenged(&mut c, NOW);
        assert_eq!(check(&mut c, NOW, &phone.answer(1)), Verdict::Ok);
    }
    let hour_ago = NOW - 3_600_000;
    let phone = Phone::challenged(&mut c, hour_ago);
    assert_eq!(check(&mut c, hour_ago, &phone.answer(1)), Verdict::Ok);

    let mut restarted = challenger();
    let verdict = check(&mut restarted, hour_ago, &phone.answer(2));
    assert_eq!(verdict, Verdict::Stale(Stale::Expired));
}

#[test]
fn without_qop_a_nonce_belongs_to_one_call_id_and_rising_cseq() {
    let mut c = challenger();
    let phone = Phone::challenged(&mut c, NOW).bare();
    let credentials = phone.answer(1);
    let mut ask = |call_id: &str, cseq: u32| c.check(NOW, "REGISTER", &credentials, Some("pw"), call_id, cseq);
    let replayed = Verdict::Stale(Stale::Replayed);
    assert_eq!(ask("a", 20), Verdict::Ok);
    assert_eq!(ask("a", 20), replayed);
    assert_eq!(ask("b", 21), replayed);
    assert_eq!(ask("a", 19), replayed);
    assert_eq!(ask("a", 21), Verdict::Ok);

    let counted = Phone { challenge: Challenge { auth: true, ..phone.challenge }, ..phone };
    assert_eq!(check(&mut c, NOW, &counted.answer(1)), replayed, "one nonce, one way");
}

#[test]
fn a_wrong_password_and_an_unknown_account_are_told_the_same_and_leave_nothing() {
    let mut c = challenger();
    let phone = Phone::challenged(&mut c, NOW);
    let guess = Phone { password: "guess", challenge: phone.challenge.clone() };
    assert_eq!(check(&mut c, NOW, &guess.answer(1)), Verdict::Wrong);
    let unknown = c.check(NOW, "REGISTER", &phone.answer(1), None, "call-1", 1);
    assert_eq!(unknown, Verdict::Wrong);
    let no_password = Phone { password: "", challenge: phone.challenge.clone() };
    let unknown = c.check(NOW, "REGISTER", &no_password.answer(1), None, "call-1", 1);
    assert_eq!(unknown, Verdict::Wrong);
    let other_method = c.check(NOW, "INVITE", &phone.answer(1), Some("pw"), "call-1", 1);
    assert_eq!(other_method, Verdict::Wrong);
    assert!(c.used.is_empty());
    assert_eq!(check(&mut c, NOW, &phone.answer(1)), Verdict::Ok, "nc 1 was not used up");
}

#[test]
fn what_is_not_ours_is_named() {
    let mut c = challenger();
    let good = Phone::challenged(&mut c, NOW).answer(1);
    let mut other = Challenger::new([8; 32], "doorline", Algorithm::MD5);
    let foreign = Phone::challenged(&mut other, NOW).answer(1);
    assert_eq!(check(&mut c, NOW, &foreign), Verdict::Stale(Stale::Unknown));
    let unusable = |unusable| Verdict::Unusable(unusable);
    let text = |s: &str| Some(s.to_owned());
    for (credentials, verdict) in [
        (Credentials { nonce: "59a1c0de".into(), ..good.clone() }, Verdict::Stale(Stale::Unknown)),
        (Credentials { nonce: String::new(), ..good.clone() }, Verdict::Stale(Stale::Unknown)),
        (Credentials { realm: "Doorline".into(), ..good.clone() }, unusable(Unusable::Realm)),
        (Credentials { algorithm: text("SHA-256"), ..good.clone() }, unusable(Unusable::Algorithm)),
        (Credentials { algorithm: text("MD5-sess"), ..good.clone() }, unusable(Unusable::Algorithm)),
        (Credentials { qop: text("auth-int"), ..good.clone() }, unusable(Unusable::Qop)),
        (Credentials { nc: text("1"), ..good.clone() }, unusable(Unusable::Incomplete)),
        (Credentials { nc: text("+0000001"), ..good.clone() }, unusable(Unusable::Incomplete)),
        (Credentials { nc: None, ..good.clone() }, unusable(Unusable::Incomplete)),
        (Credentials { cnonce: None, ..good.clone() }, unusable(Unusable::Incomplete)),
        (Credentials { response: String::new(), ..good.clone() }, Verdict::Wrong),
        (Credentials { qop: None, ..good.clone() }, Verdict::Wrong),
        (Credentials { algorithm: None, ..good.clone() }, Verdict::Ok),
    ] {
        assert_eq!(check(&mut c, NOW, &credentials), verdict, "{credentials}");
    }
}

#[test]
fn with_sha256_switched_on_a_phone_answers_the_challenge_it_knows() {
    let mut c = Challenger::new([7; 32], "doorline", Algorithm::SHA256_AND_MD5);
    for (index, algorithm) in [Algorithm::Sha256, Algorithm::Md5].into_iter().enumerate() {
        let challenge = Challenge::parse(&c.challenge(NOW, false)[index]).unwrap();
        assert_eq!(challenge.algorithm, algorithm, "best first");
        let phone = Phone { challenge, password: "pw" };
        assert_eq!(check(&mut c, NOW, &phone.answer(1)), Verdict::Ok);
        assert_eq!(check(&mut c, NOW, &Phone { password: "other", ..phone }.answer(2)), Verdict::Wrong);
    }
}

#[test]
fn memory_is_bounded_and_what_is_forgotten_cannot_be_replayed() {
    let mut c = challenger();
    c.max_used = 2;
    let phones: Vec<_> = (0..3).map(|_| Phone::challenged(&mut c, NOW)).collect();
    for phone in &phones {
        assert_eq!(check(&mut c, NOW, &phone.answer(1)), Verdict::Ok);
    }
    assert_eq!(c.used.len(), 2);
    let forgotten = Verdict::Stale(Stale::Forgotten);
    assert_eq!(check(&mut c, NOW, &phones[0].answer(1)), forgotten);
    assert_eq!(check(&mut c, NOW, &phones[1].answer(2)), Verdict::Ok);
    let later = Phone::challenged(&mut c, NOW + NONCE_LIFE_MS + 1);
    assert_eq!(check(&mut c, NOW + NONCE_LIFE_MS + 1, &later.answer(1)), Verdict::Ok);
    assert_eq!(c.used.len(), 1, "expired ones are dropped");
}

#[test]
fn header_values_as_phones_write_them() {
    let odd = "DIGEST  USERNAME=\"a\\\"b\\\\c, d\" ,Realm=\"r\",nonce=\"n\", uri=\"sip:x@h;p=\\\"1,2\",\r\n response=\"AB\",qop=\"auth\",NC=0000001F,cnonce=\"\",";
    let read = Credentials::parse(odd).unwrap();
    assert_eq!(read.username, "a\"b\\c, d");
    assert_eq!(read.uri, "sip:x@h;p=\\\"1,2");
    assert_eq!(read.nc(), Ok(Some(31)));
    assert_eq!(Credentials::parse(&read.to_string()), Some(read));
    for bad in [
        "",
        "Digest",
        "Digest ",
        "Basic username=\"a\",realm=\"r\",nonce=\"n\",uri=\"u\",response=\"x\"",
        "Digest username=\"a\",realm=\"r\",nonce=\"n\",uri=\"u\"",
        "Digest username=\"a\",realm=\"r\",nonce=\"n\",uri=\"u\",response=\"x",
        "Digest username=\"a\"b,realm=\"r\",nonce=\"n\",uri=\"u\",response=\"x\"",
        "Digest username=\"a\",Username=\"b\",realm=\"r\",nonce=\"n\",uri=\"u\",response=\"x\"",
        "Digest =\"a\",realm=\"r\",nonce=\"n\",uri=\"u\",response=\"x\"",
        "Digest username=\"a\",realm=\"r\",nonce=\"n\",uri=\"u\",response=\"x\",\"",
    ] {
        assert_eq!(Credentials::parse(bad), None, "{bad}");
    }
    let long = format!("Digest username=\"{}\"", "a".repeat(MAX_VALUE));
    assert_eq!(Credentials::parse(&long), None);
    assert_eq!(Challenge::parse("Digest realm=\"r\",nonce=\"n\",qop=\"auth-int\""), None);
    assert_eq!(Challenge::parse("Digest realm=\"r\",nonce=\"n\",algorithm=SHA-512-256"), None);
}

#[test]
fn debug_tells_no_secret() {
    let mut c = challenger();
    let credentials = Phone::challenged(&mut c, NOW).answer(1);
    let text = format!("{c:?} {credentials:?}");
    assert!(!text.contains(&credentials.response), "{text}");
    assert!(!text.contains("[7, 7"), "{text}");
}

proptest! {
    #[test]
    fn reading_never_panics(value in "(Digest )?[ -~\u{80}-\u{ff}]{0,200}") {
        let _ = Credentials::parse(&value);
        let _ = Challenge::parse(&value);
    }

    #[test]
    fn params_of_any_shape_never_panic(parts in prop::collection::vec("(username|realm|nonce|uri|response|nc|qop)=\"?[a\\\\\",= ]{0,6}\"?", 0..9)) {
        let value = format!("Digest {}", parts.join(","));
        let mut c = challenger();
        if let Some(credentials) = Credentials::parse(&value) {
            prop_assert_ne!(check(&mut c, NOW, &credentials), Verdict::Ok);
        }
    }

    #[test]
    fn any_name_and_password_get_through_their_own_quotes(user in "[ -~äß]{1,20}", password in "\\PC{0,20}", cnonce in "[ -~]{1,20}") {
        let mut c = challenger();
        let challenge = Challenge::parse(&c.challenge(NOW, false)[0]).unwrap();
        let value = challenge.answer("INVITE", "sip:g1@h", &user, &password, &cnonce, 1);
        let credentials = Credentials::parse(&value).unwrap();
        prop_assert_eq!(&credentials.username, &user);
        prop_assert_eq!(c.check(NOW, "INVITE", &credentials, Some(&password), "c", 1), Verdict::Ok);
    }

    /// However `nc`s come: each passes at most once.
    #[test]
    fn no_nc_passes_twice(ncs in prop::collection::vec(0..200_u32, 0..80)) {
        let mut c = challenger();
        let phone = Phone::challenged(&mut c, NOW);
        let mut passed: Vec<_> = ncs.iter().filter(|nc| check(&mut c, NOW, &phone.answer(**nc)) == Verdict::Ok).collect();
        let all = passed.len();
        passed.sort();
        passed.dedup();
        prop_assert_eq!(passed.len(), all);
    }
}
