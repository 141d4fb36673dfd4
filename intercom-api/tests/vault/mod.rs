//! What tests of the store share: bytes of a folder, copies of it, a phone that tries a password, the program's commands.

#![allow(dead_code, clippy::disallowed_methods)] // each test file uses some of it; real files and processes

use fixtures::process::wait_until;
use sip_core::digest::Challenge;
use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Every file below a folder, with its bytes.
pub fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else if let Ok(bytes) = fs::read(&path) {
            all.insert(path.display().to_string(), bytes);
        }
    }
    all
}

/// The files of a folder in which a text stands.
pub fn files_with(folder: &Path, text: &str) -> Vec<String> {
    let holds = |bytes: &[u8]| memchr::memmem::find(bytes, text.as_bytes()).is_some();
    files(folder).into_iter().filter(|(_, bytes)| holds(bytes)).map(|(path, _)| path).collect()
}

/// Copies the files of a folder into another, permissions with them.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

/// Waits until the last connection to the database is closed: it takes the log with it.
pub fn wait_for_close(database: &Path) {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    assert!(wait_until(Duration::from_secs(10), || !Path::new(&name).exists()), "the database stays open");
}

/// Runs a command of the program on a data folder.
pub fn doorline(data: &Path, args: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorline"));
    command.args(args).arg("--data-dir").arg(data);
    for (name, value) in settings {
        command.env(format!("DOORLINE_{name}"), value);
    }
    command.output().unwrap()
}

/// What a command said on stderr, which must have ended with this status.
pub fn said(output: &Output, code: i32) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

/// A socket on an address of its own.
pub fn phone(ip: &str) -> UdpSocket {
    let phone = UdpSocket::bind((ip, 0)).unwrap();
    phone.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    phone
}

/// The answer to a signed REGISTER.
pub fn register(server: SocketAddr, phone: &UdpSocket, number: &str, password: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let run = COUNT.fetch_add(1, Ordering::Relaxed);
    let (local, uri) = (phone.local_addr().unwrap(), format!("sip:{server}"));
    let ask = |step: u32, more: &str| {
        let text = format!(
            "REGISTER {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{run}-{step}-{number};rport\r\nMax-Forwards: 70\r\n\
             From: <sip:{number}@x>;tag=1\r\nTo: <sip:{number}@x>\r\nCall-ID: {run}-{number}@{local}\r\nCSeq: {step} REGISTER\r\n\
             Contact: <sip:{number}@{local}>\r\n{more}Content-Length: 0\r\n\r\n"
        );
        phone.send_to(text.as_bytes(), server).unwrap();
        let mut buffer = [0; 4096];
        let length = phone.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let challenged = ask(1, "");
    let challenge = challenged.lines().find_map(|line| line.strip_prefix("WWW-Authenticate: "));
    let challenge = challenge.unwrap_or_else(|| panic!("no challenge: {challenged}"));
    let answer = Challenge::parse(challenge).unwrap().answer("REGISTER", &uri, number, password, "c", 1);
    ask(2, &format!("Authorization: {answer}\r\n"))[8..11].to_owned()
}
