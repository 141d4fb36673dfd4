//! The flight recorder: the last datagrams of every call are kept for a moment, and written down when a call ends badly, as
//! a trace that the simulator replays (`fixtures/flights/`, `tests/world/flight.rs`).
//!
//! ```text
//! # call 4kq…: all declined; p1: no common codec
//! cast
//!   door1 door 127.0.0.9:5070
//!   p1 phone 127.0.0.11:5070
//!   room group
//! server 127.0.0.1:6050
//! end
//!   call all declined
//!   p1 no common codec
//! datagrams                 milliseconds since the first, who > whom; then the message
//!   0 door1 > server
//!     INVITE sip:room@127.0.0.1:6050 SIP/2.0
//!     …
//! ```
//!
//! What a stranger may not read is masked: digest responses and media keys. Other bytes than text are escaped.

use crate::live::CallView;
use bytes::Bytes;
use sip_core::flow::Flow;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Datagrams remembered, of all calls together, and the longest of them that is remembered whole.
const REMEMBERED: usize = 4096;
const LONGEST: usize = 8192;
/// Datagrams written of one call: its last ones.
const WRITTEN: usize = 200;
/// Files kept; the oldest goes.
const FILES: usize = 50;

/// How calls and legs end when nothing is wrong.
const ORDINARY: &[&str] = &[
    "caller hung up",
    "callee hung up",
    "caller gave up",
    "not answered",
    "talk limit",
    "all declined",
    "all busy",
    "ended by operator",
    "server stopped",
    "door called again",
    "answered elsewhere",
    "answered too late",
    "declined",
    "busy",
    "busy with an ended ring",
    "hung up",
    "registered elsewhere",
    "password changed",
    "account removed",
    "connection lost",
];

struct Datagram {
    at: Instant,
    /// From the network, not to it.
    inward: bool,
    flow: Flow,
    bytes: Bytes,
}

/// Remembers, and finds what belongs to a call.
#[derive(Default)]
pub struct FlightRecorder {
    datagrams: VecDeque<Datagram>,
}

impl FlightRecorder {
    /// One datagram came in or goes out. Costs a reference, not a copy. Registrations belong to no call; a storm of them would
    /// push out what is awaited here.
    pub fn datagram(&mut self, at: Instant, inward: bool, flow: Flow, bytes: &Bytes) {
        if is_about_registering(bytes) {
            return;
        }
        if self.datagrams.len() == REMEMBERED {
            self.datagrams.pop_front();
        }
        let bytes = if bytes.len() > LONGEST { Bytes::copy_from_slice(&bytes[..LONGEST]) } else { bytes.clone() };
        self.datagrams.push_back(Datagram { at, inward, flow, bytes });
    }

    /// The record of a call that has just ended; none when it ended as calls do.
    pub fn record(&self, call: &CallView) -> Option<String> {
        let trouble = trouble(call)?;
        let accounts: BTreeMap<&str, &str> =
            call.legs.iter().map(|leg| (leg.sip_call_id.as_str(), leg.account.as_str())).collect();
        let of_call = |d: &&Datagram| call_id(&d.bytes).is_some_and(|id| accounts.contains_key(id));
        let mut datagrams: Vec<&Datagram> = self.datagrams.iter().rev().filter(of_call).take(WRITTEN).collect();
        datagrams.reverse();
        let first = datagrams.first()?;
        let account = |d: &Datagram| call_id(&d.bytes).and_then(|id| accounts.get(id).copied()).unwrap_or("?");
        let mut addresses = BTreeMap::new();
        for datagram in &datagrams {
            addresses.entry(account(datagram)).or_insert(datagram.flow.remote);
        }
        let mut text = format!("# call {}: {trouble}\ncast\n", call.id);
        for leg in &call.legs {
            if let Some(address) = addresses.remove(leg.account.as_str()) {
                let kind = if leg.role == "door" { "door" } else { "phone" };
                let _ = writeln!(text, "  {} {kind} {address}", leg.account);
            }
        }
        let _ = writeln!(text, "  {} group\nserver {}\nend", call.to, first.flow.local);
        let _ = writeln!(text, "  call {}", call.end_reason.as_deref().unwrap_or(call.state));
        for leg in call.legs.iter().filter(|leg| leg.role == "member") {
            let _ = writeln!(text, "  {} {}", leg.account, leg.end_reason.as_deref().unwrap_or(leg.state));
        }
        text.push_str("datagrams\n");
        for datagram in &datagrams {
            let ms = datagram.at.saturating_duration_since(first.at).as_millis();
            let (from, to) = if datagram.inward { (account(datagram), "server") } else { ("server", account(datagram)) };
            let _ = writeln!(text, "  {ms} {from} > {to}");
            message(&datagram.bytes, &mut text);
        }
        Some(text)
    }
}

/// By its CSeq: an Allow may end with the word as well.
fn is_about_registering(bytes: &[u8]) -> bool {
    let mut found = memchr::memmem::find_iter(bytes, b" REGISTER\r\n");
    found.any(|at| at > 0 && bytes[at - 1].is_ascii_digit())
}

/// What was not as it should be, in words.
fn trouble(call: &CallView) -> Option<String> {
    let odd = |reason: &Option<String>| reason.clone().filter(|reason| !ORDINARY.contains(&reason.as_str()));
    let members = call.legs.iter().filter(|leg| leg.role == "member" && leg.end_reason != call.end_reason);
    let legs = members.filter_map(|leg| Some(format!("{}: {}", leg.account, odd(&leg.end_reason)?)));
    let all: Vec<String> = odd(&call.end_reason).into_iter().chain(legs).collect();
    (!all.is_empty()).then(|| format!("{}; {}", call.end_reason.as_deref().unwrap_or(call.state), all.join(", ")))
}

/// The Call-ID of a message, without parsing the rest of it.
pub fn call_id(bytes: &[u8]) -> Option<&str> {
    let head = bytes.split(|byte| *byte == b'\n').take_while(|line| !matches!(*line, [] | [b'\r']));
    head.filter_map(|line| std::str::from_utf8(line).ok()).find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let name = name.trim();
        (name.eq_ignore_ascii_case("call-id") || name.eq_ignore_ascii_case("i")).then(|| value.trim())
    })
}

/// The lines of a message, indented, masked and escaped: `\\` a backslash, `\xNN` a byte that is no printable ASCII, and `\n`
/// at the end of a line that ends without CR.
fn message(bytes: &[u8], text: &mut String) {
    let mut lines = bytes.split(|byte| *byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        let last = lines.peek().is_none();
        let (line, end) = match line.strip_suffix(b"\r") {
            Some(line) if !last => (line, ""),
            _ if last => (line, ""),
            _ => (line, "\\n"),
        };
        text.push_str("    ");
        for byte in mask(line) {
            match byte {
                b'\\' => text.push_str("\\\\"),
                b' '..=b'~' => text.push(char::from(byte)),
                _ => drop(write!(text, "\\x{byte:02x}")),
            }
        }
        text.push_str(end);
        text.push('\n');
    }
}

/// Digest responses prove a password, `a=crypto` and `k=` lines hold media keys (RFC 4568, RFC 8866 §5.12). A body keeps its
/// length.
fn mask(line: &[u8]) -> Vec<u8> {
    const RESPONSE: &[u8] = b"response=\"";
    if line.starts_with(b"a=crypto") || line.starts_with(b"k=") {
        return line.iter().enumerate().map(|(n, byte)| if n < 2 { *byte } else { b'x' }).collect();
    }
    let Some(at) = line.windows(RESPONSE.len()).position(|window| window == RESPONSE) else { return line.to_vec() };
    let (head, tail) = line.split_at(at + RESPONSE.len());
    let rest = tail.iter().position(|byte| *byte == b'"').map_or(&b"\""[..], |end| &tail[end..]);
    [head, b"masked", rest].concat()
}

/// Writes a record into `folder`, and takes the oldest away when there are too many.
pub fn write(folder: &Path, call: &str, unix_ms: i64, text: &str) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let path = folder.join(format!("{unix_ms}-{call}.txt"));
    fs::write(&path, text)?;
    let mut files: Vec<PathBuf> = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    for old in files.iter().rev().skip(FILES) {
        fs::remove_file(old)?;
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_and_the_rest_is_not() {
        let line = b"Authorization: Digest username=\"p1\", response=\"0123\", uri=\"sip:x\"";
        assert_eq!(mask(line), b"Authorization: Digest username=\"p1\", response=\"masked\", uri=\"sip:x\"");
        assert_eq!(mask(b"a=crypto:1 inline:abc"), b"a=xxxxxxxxxxxxxxxxxxx");
        assert_eq!(mask(b"response=\"cut"), b"response=\"masked\"");
        assert_eq!(mask(b"a=rtpmap:0 PCMU/8000"), b"a=rtpmap:0 PCMU/8000");
    }

    #[test]
    fn every_byte_of_a_message_can_be_read_back() {
        let mut text = String::new();
        message(b"A: \\1\r\n\r\nv=0\nb\xff\r\n", &mut text);
        assert_eq!(text, "    A: \\\\1\n    \n    v=0\\n\n    b\\xff\n    \n");
    }

    #[test]
    fn a_call_id_is_found_in_the_head_only() {
        assert_eq!(call_id(b"INVITE sip:a SIP/2.0\r\nCall-ID: x1\r\n\r\n"), Some("x1"));
        assert_eq!(call_id(b"INVITE sip:a SIP/2.0\r\ni : x2\r\n\r\n"), Some("x2"));
        assert_eq!(call_id(b"INVITE sip:a SIP/2.0\r\n\r\nCall-ID: x1\r\n"), None);
        assert_eq!(call_id(b"\xff\xff"), None);
    }
}
