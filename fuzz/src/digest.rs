//! Header values → credentials and challenges: nothing invented is ever right, and the answer to any challenge can be read.

use sip_core::digest::{Algorithm, Challenge, Challenger, Credentials, Verdict};

pub fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Some(credentials) = Credentials::parse(&text) {
        let mut server = Challenger::new([9; 32], &credentials.realm, Algorithm::SHA256_AND_MD5);
        let verdict = server.check(1_790_000_000_000, "REGISTER", &credentials, Some("secret"), "call", 1);
        assert_ne!(verdict, Verdict::Ok, "{text}");
    }
    // Control characters are never written.
    if let Some(challenge) = Challenge::parse(&text).filter(|c| !c.realm.contains(char::is_control)) {
        let answer = challenge.answer("REGISTER", "sip:a@b", "user", "secret", "c", 1);
        let credentials = Credentials::parse(&answer).unwrap_or_else(|| panic!("we read what we write: {answer}"));
        assert_eq!((credentials.username, credentials.realm), ("user".to_owned(), challenge.realm));
    }
}
