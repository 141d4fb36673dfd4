//! The pool on real sockets: what a door sends arrives at a phone.

#![allow(clippy::disallowed_methods)] // real sockets need real time

use media::command::*;
use media::pool::{Pool, PoolConfig};
use media::ports::PortStock;
use std::net::UdpSocket;
use std::sync::mpsc;
use std::time::{Duration, Instant};

#[test]
fn a_packet_goes_through_a_worker_and_the_counters_come_back() {
    let (events, heard) = mpsc::channel();
    let config = PoolConfig { bind_ip: [127, 0, 0, 1].into(), ports: 41_000..=41_019, workers: 2 };
    let on_event = move |event| {
        let _ = events.send(event);
    };
    let (pool, bound) = Pool::start(&config, on_event).unwrap();
    assert!(bound.pairs.len() + bound.missing == 10 && bound.pairs.len() >= 4, "{bound:?}");
    let mut stock = PortStock::new(bound.pairs);
    let (door, phone) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    phone.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let worker = stock.choose_worker().unwrap();
    let mut leg = |id: u64, peer: &UdpSocket| {
        let (pair, port) = stock.take(Instant::now(), worker).unwrap();
        let stream = StreamPlan {
            pair,
            remote: peer.local_addr().ok(),
            remote_rtcp: None,
            sip_source: [127, 0, 0, 1].into(),
            payloads: vec![Payload { pt: 8, codec: Codec::Pcma }],
            ssrc: id as u32,
            first_seq: 7,
            first_timestamp: 0,
            send: true,
            receive: true,
            parameter_sets: vec![],
            rtcp_mux: false,
            ice: None,
        };
        (port, LegPlan { leg: LegId(id), audio: Some(stream), video: None })
    };
    let (port, anchor) = leg(1, &door);
    let (_, receiver) = leg(2, &phone);
    let session = SessionId(1);
    pool.send(worker, Command::Open { session, anchor, key_frame_by: None }).unwrap();
    pool.send(worker, Command::Put { session, leg: receiver }).unwrap();
    let mut packet = vec![0x80, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9];
    packet.extend([0x55; 160]);
    door.send_to(&packet, ("127.0.0.1", port)).unwrap();
    let mut got = [0; 300];
    let (length, _) = phone.recv_from(&mut got).unwrap();
    assert_eq!(got[..length], [&[0x80, 8, 0, 7, 0, 0, 0, 0, 0, 0, 0, 2], &packet[12..]].concat());
    pool.send(worker, Command::Close { session }).unwrap();
    let last = heard.iter().find(|event| matches!(event, Event::Report { last: true, .. }));
    assert!(matches!(last, Some(Event::Report { legs, .. }) if legs[1].audio.packets_out == 1));
    drop(pool);
}
