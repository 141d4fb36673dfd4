//! Foreign packets over the whole port range during calls: nothing leaks to their senders, nothing of them reaches anybody,
//! no call is lost. Fifty thousand of each kind; `SPRAY=1000000` for the long run.

mod yard;

use media::engine::{Channel, Tail};
use std::net::SocketAddr;
use yard::{Yard, at, audio, rtp};

/// Calls; each has a pair for its door and one for its phone, and as many pairs are free.
const CALLS: u32 = 20;

fn count() -> u32 {
    std::env::var("SPRAY").ok().and_then(|text| text.parse().ok()).unwrap_or(50_000)
}

/// xorshift: the same spray each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// Who sprays: somebody on the Internet, and a neighbour behind the NAT of the calls' phones who guesses ports.
fn sprayer(random: &mut Random) -> SocketAddr {
    let port = 20_000 + random.below(40_000) as u16;
    if random.below(2) == 0 {
        SocketAddr::from(([198, 51, 100, random.below(256) as u8], port))
    } else {
        SocketAddr::from(([203, 0, 113, 5], port))
    }
}

fn any_bytes(random: &mut Random) -> Vec<u8> {
    (0..random.below(300)).map(|_| random.next() as u8).collect()
}

/// What a stranger who knows how calls look sends: RTP with the agreed payload type, RTCP that asks for pictures, STUN.
fn valid_looking(random: &mut Random) -> Vec<u8> {
    match random.below(8) {
        0 => yard::pli(random.next() as u32, random.next() as u32),
        1 => [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &random.next().to_be_bytes(), &[1; 4]].concat(),
        _ => rtp(0, random.next() as u16, random.next() as u32),
    }
}

struct Calls {
    yard: Yard,
    seq: u16,
}

impl Calls {
    /// Doors in the house; phones behind one NAT that gives each another port than its SDP says.
    fn new() -> Calls {
        let mut yard = Yard::new();
        for n in 0..CALLS {
            yard.talk(
                u64::from(n),
                audio(2 * n, &door(n), "10.0.0.9"),
                audio(2 * n + 1, &format!("192.168.1.{}:4000", n + 1), "203.0.113.5"),
            );
        }
        Calls { yard, seq: 0 }
    }

    /// Everybody talks, and everybody is heard by who should and by nobody else.
    fn talk(&mut self) {
        for _ in 0..2 {
            self.seq += 1;
            for n in 0..CALLS {
                assert_eq!(self.yard.say(2 * n + 1, &phone(n), self.seq, n), [at(&door(n))], "phone {n} is heard");
                let to = self.yard.say(2 * n, &door(n), self.seq, 1000 + n);
                assert!(self.seq == 1 || to == [at(&phone(n))], "door {n} is heard at {to:?}");
            }
            self.yard.wait(20);
        }
    }

    fn spray(&mut self, random: &mut Random, make: fn(&mut Random) -> Vec<u8>) {
        for n in 0..count() {
            let (pair, from, bytes) = (random.below(u64::from(4 * CALLS)) as u32, sprayer(random), make(random));
            let channel = if random.below(4) == 0 { Channel::Rtcp } else { Channel::Rtp };
            for sent in self.yard.give(pair, channel, from, &bytes) {
                // A neighbour's STUN request is answered: that is all that ever goes back.
                let answer = matches!(&sent.tail, Tail::Owned(_)) && sent.head[..2] == [1, 1];
                assert!(answer && sent.to == from && from.ip() == yard::ip("203.0.113.5"), "{sent:?} because of {from}");
            }
            if n % 1000 == 0 {
                self.talk();
                self.yard.events.clear();
                let strangers: Vec<SocketAddr> = self.yard.sent.drain(..).filter(|to| to.port() >= 20_000).collect();
                assert!(strangers.is_empty(), "reports for {strangers:?}");
            }
        }
    }
}

fn door(n: u32) -> String {
    format!("10.0.0.9:{}", 4000 + 2 * n)
}

fn phone(n: u32) -> String {
    format!("203.0.113.5:{}", 10_000 + 2 * n)
}

#[test]
fn a_spray_leaks_nothing_injects_nothing_and_ends_no_call() {
    let (mut calls, mut random) = (Calls::new(), Random(0x5eed));
    calls.talk();
    calls.spray(&mut random, any_bytes);
    calls.spray(&mut random, valid_looking);
    calls.talk();
    assert_eq!(calls.yard.engine.sizes().0, CALLS as usize);
}

#[test]
fn a_spray_in_the_learning_window_gets_no_picture() {
    // The phones have not sent yet: whatever a neighbour guesses, the door's stream goes where their SDPs mean.
    let mut random = Random(0xfeed);
    let mut calls = Calls::new();
    for _ in 0..count() / 10 {
        let (n, from) = (random.below(u64::from(CALLS)) as u32, sprayer(&mut random));
        calls.yard.give(2 * n + 1, Channel::Rtp, from, &rtp(0, random.next() as u16, random.next() as u32));
        calls.seq = calls.seq.wrapping_add(1);
        let to = calls.yard.say(2 * n, &door(n), calls.seq, 1000 + n);
        assert_eq!(to, [at("203.0.113.5:4000")]);
    }
    // And their second packet makes them heard.
    for n in 0..CALLS {
        calls.yard.say(2 * n + 1, &phone(n), 1, n);
        assert_eq!(calls.yard.say(2 * n + 1, &phone(n), 2, n), [at(&door(n))]);
        assert_eq!(calls.yard.say(2 * n, &door(n), calls.seq.wrapping_add(1), 1000 + n), [at(&phone(n))]);
    }
}

#[test]
fn a_phone_that_is_silent_for_long_keeps_its_address() {
    let mut yard = Yard::new();
    yard.talk(1, audio(0, &door(0), "10.0.0.9"), audio(1, "203.0.113.5:4000", "203.0.113.5"));
    yard.say(1, "203.0.113.5:4000", 1, 7);
    yard.wait(60_000);
    let mut random = Random(0xbeef);
    for seq in 0..10_000u16 {
        assert!(yard.say(1, &sprayer(&mut random).to_string(), seq, random.next() as u32).is_empty());
    }
    assert_eq!(yard.say(0, &door(0), 1, 5), [at("203.0.113.5:4000")]);
    assert_eq!(yard.report(yard::PHONE).drops, [("foreign_source", 10_000)]);
}
