//! `kill -9` during a thousand writes: every one that was acknowledged is there, and of the others all or nothing.

#![allow(clippy::disallowed_methods)] // it drives a real program in real time

use fixtures::http;
use fixtures::process::Folder;
use fixtures::server::{BEARER, Server};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

const WRITERS: usize = 4;
/// Calls of each, and accounts of a call.
const CALLS: usize = 250;
const ACCOUNTS: usize = 3;
/// Acknowledged calls after which the power goes.
const ENOUGH: usize = 600;

fn start(data: &Path) -> Server {
    Server::start_in(Path::new(env!("CARGO_BIN_EXE_doorline")), "127.0.99.1", "10000-10099", &[], Some(data))
}

/// Number and password.
fn account(writer: usize, call: usize, index: usize) -> (String, String) {
    (format!("w{writer}-{call}-{index}"), format!("pass-{}", writer * 31 + call * 7 + index))
}

/// Writes until it is cut off: which calls were acknowledged, and whether one was on its way.
fn write(api: SocketAddr, writer: usize, done: &AtomicUsize) -> (usize, bool) {
    for call in 0..CALLS {
        let accounts: Value = (0..ACCOUNTS)
            .map(|index| account(writer, call, index))
            .map(|(number, password)| json!({"number": number, "password": password, "type": 0}))
            .collect();
        match http::request(api, BEARER, "POST", "/v1/accounts", Some(&accounts)) {
            Ok((201, _)) => drop(done.fetch_add(1, Ordering::SeqCst)),
            Ok((status, body)) => panic!("{status} {body}"),
            Err(_) => return (call, true),
        }
    }
    (CALLS, false)
}

#[test]
fn kill_9_during_a_thousand_writes_loses_none_that_was_acknowledged() {
    let folder = Folder::new("api-power-cut");
    let data = folder.path().join("data");
    let server = start(&data);
    let (api, pid, done) = (server.api, server.pid(), AtomicUsize::new(0));
    let acknowledged: Vec<(usize, bool)> = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn({
                    let done = &done;
                    move || write(api, writer, done)
                })
            })
            .collect();
        while done.load(Ordering::SeqCst) < ENOUGH {
            assert!(writers.iter().any(|writer| !writer.is_finished()), "the writers stopped early");
            thread::yield_now();
        }
        // At once, without a program for it.
        kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    server.kill();
    let cut_off = acknowledged.iter().filter(|(_, on_its_way)| *on_its_way).count();
    assert!(cut_off > 0, "the power went too late");

    let server = start(&data);
    let detail = |number: &str| {
        let params = json!({"sipNumber": number});
        server.try_api("POST", "/entrance/paas/sipservice/sip/detail/get", Some(&params)).unwrap()
    };
    let mut kept = BTreeMap::new();
    for (writer, &(calls, _)) in acknowledged.iter().enumerate() {
        for call in 0..CALLS {
            let there = (0..ACCOUNTS).filter(|index| {
                let (number, password) = account(writer, call, *index);
                let (status, reply) = detail(&number);
                assert!(status == 404 || reply["data"]["sipPassword"] == password.as_str(), "{number}: {reply}");
                status == 200
            });
            let there = there.count();
            match call {
                call if call < calls => assert_eq!(there, ACCOUNTS, "writer {writer}: call {call} was acknowledged"),
                call if call == calls => assert!(there == 0 || there == ACCOUNTS, "writer {writer}: {there} of call {call}"),
                _ => assert_eq!(there, 0),
            }
            *kept.entry(there).or_insert(0) += 1;
        }
    }
    println!("{} acknowledged, {cut_off} cut off; accounts per call: {kept:?}", done.load(Ordering::SeqCst));
    assert!(server.stop());
}
