//! STUN on media ports (RFC 8489): Binding requests are answered, because phones keep their NAT open with them (linphone even
//! with ICE off) and because they are the checks of ICE, whose lite side we are (RFC 8445 §2.5).
//!
//! Bounded: one answer per request, no state, at most 72 bytes more than was asked.

use crate::command::Ice;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use std::net::{IpAddr, SocketAddr};

const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const HEADER: usize = 20;
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
/// What the CRC is mixed with (RFC 8489 §14.7).
const FINGERPRINT_MASK: u32 = 0x5354_554e;

/// A well-formed Binding request. Attributes that say nothing to us are passed over.
#[derive(Debug)]
pub struct Request<'a> {
    bytes: &'a [u8],
    username: Option<&'a [u8]>,
    /// Where MESSAGE-INTEGRITY begins, and its value.
    integrity: Option<(usize, &'a [u8])>,
    /// The sender wants to send from here (RFC 8445 §7.1.2).
    pub use_candidate: bool,
    fingerprint: bool,
}

impl<'a> Request<'a> {
    /// `None`: another message, a broken one, or one with a wrong FINGERPRINT.
    pub fn parse(bytes: &'a [u8]) -> Option<Request<'a>> {
        let (head, mut rest) = bytes.split_at_checked(HEADER)?;
        if u16_at(head, 0)? != BINDING_REQUEST || head[4..8] != COOKIE || usize::from(u16_at(head, 2)?) != rest.len() {
            return None;
        }
        let mut request = Request { bytes, username: None, integrity: None, use_candidate: false, fingerprint: false };
        while !rest.is_empty() {
            let at = bytes.len() - rest.len();
            let (kind, length) = (u16_at(rest, 0)?, usize::from(u16_at(rest, 2)?));
            let value = rest.get(4..4 + length)?;
            rest = rest.get(4 + length.next_multiple_of(4)..)?;
            match kind {
                // Only its own seal may follow what is signed (RFC 8489 §14.5).
                FINGERPRINT => {
                    if !rest.is_empty() || value != fingerprint(bytes.get(..at)?).to_be_bytes() {
                        return None;
                    }
                    request.fingerprint = true;
                }
                _ if request.integrity.is_some() => {}
                USERNAME => request.username = Some(value),
                USE_CANDIDATE => request.use_candidate = true,
                MESSAGE_INTEGRITY => request.integrity = Some((at, value)),
                _ => {}
            }
        }
        Some(request)
    }

    /// Does its sender know the password of this leg (RFC 8445 §7.3)? USERNAME is `ours:theirs`.
    pub fn proves(&self, ice: &Ice) -> bool {
        let (Some(username), Some((at, value))) = (self.username, self.integrity) else { return false };
        let ours = username.strip_prefix(ice.ufrag.as_bytes()).is_some_and(|rest| rest.starts_with(b":"));
        let Some(mut mac) = integrity(ice) else { return false };
        // As if the message ended with MESSAGE-INTEGRITY (RFC 8489 §14.5).
        mac.update(&self.bytes[..2]);
        mac.update(&((at + 24 - HEADER) as u16).to_be_bytes());
        mac.update(&self.bytes[4..at]);
        ours && mac.verify_slice(value).is_ok()
    }

    /// What is answered: the address we see, signed as the request was.
    pub fn answer(&self, from: SocketAddr, ice: Option<&Ice>) -> Vec<u8> {
        // RFC 8489 §14.2: the port is hidden by the cookie, the address by cookie and transaction id, from NATs that rewrite
        // addresses.
        let (family, mut address) = match from.ip() {
            IpAddr::V4(ip) => (1, ip.octets().to_vec()),
            IpAddr::V6(ip) => (2, ip.octets().to_vec()),
        };
        address.iter_mut().zip(&self.bytes[4..HEADER]).for_each(|(byte, mask)| *byte ^= mask);
        let port = from.port().to_be_bytes();
        let mut value = vec![0, family, port[0] ^ COOKIE[0], port[1] ^ COOKIE[1]];
        value.append(&mut address);
        let mut out = Vec::with_capacity(96);
        out.extend_from_slice(&BINDING_SUCCESS.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&self.bytes[4..HEADER]);
        append(&mut out, XOR_MAPPED_ADDRESS, |_| value);
        if let Some(ice) = ice {
            append(&mut out, MESSAGE_INTEGRITY, |signed| {
                let mac = integrity(ice).map(|mac| mac.chain_update(signed).finalize().into_bytes());
                mac.map_or_else(|| vec![0; 20], |mac| mac.to_vec())
            });
        }
        if ice.is_some() || self.fingerprint {
            append(&mut out, FINGERPRINT, |sealed| fingerprint(sealed).to_be_bytes().to_vec());
        }
        out
    }
}

/// Appends an attribute whose value depends on what is before it, with the length in the header counting it already.
fn append(out: &mut Vec<u8>, kind: u16, value: impl FnOnce(&[u8]) -> Vec<u8>) {
    let size = match kind {
        MESSAGE_INTEGRITY => 20,
        FINGERPRINT => 4,
        _ => 0,
    };
    set_length(out, 4 + size);
    let value = value(out);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(&value);
    set_length(out, 0);
}

fn set_length(out: &mut [u8], more: usize) {
    let length = (out.len() - HEADER + more) as u16;
    out[2..4].copy_from_slice(&length.to_be_bytes());
}

fn integrity(ice: &Ice) -> Option<Hmac<Sha1>> {
    Hmac::<Sha1>::new_from_slice(ice.pwd.as_bytes()).ok()
}

/// CRC-32 of what is before it, whose header must count it already.
fn fingerprint(before: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in before {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc ^ FINGERPRINT_MASK
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5769 §2.1: a check with SOFTWARE, PRIORITY, ICE-CONTROLLED, USERNAME, MESSAGE-INTEGRITY, FINGERPRINT.
    const REQUEST: &[u8] = b"\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
        \x80\x22\x00\x10STUN test client\x00\x24\x00\x04\x6e\x00\x01\xff\x80\x29\x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36\
        \x00\x06\x00\x09\x65\x76\x74\x6a\x3a\x68\x36\x76\x59\x20\x20\x20\
        \x00\x08\x00\x14\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\x78\x1e\xf2\xb5\xb2\xd3\xf2\x49\xc1\xb5\x71\xa2\
        \x80\x28\x00\x04\xe5\x7a\x3b\xcf";

    fn ice() -> Ice {
        Ice { ufrag: "evtj".into(), pwd: "VOkJxbRl1RmTxUk/WvJxBt".into() }
    }

    #[test]
    fn the_check_of_the_test_vectors_is_believed_and_no_other() {
        let request = Request::parse(REQUEST).unwrap();
        assert!(request.proves(&ice()) && !request.use_candidate);
        assert!(!request.proves(&Ice { pwd: "VOkJxbRl1RmTxUk/WvJxBu".into(), ..ice() }), "another password");
        assert!(!request.proves(&Ice { ufrag: "evt".into(), ..ice() }), "another user");
        // The last attribute's own name is not sealed: without it the request is still signed.
        for at in (0..100).chain(102..REQUEST.len()) {
            let mut changed = REQUEST.to_vec();
            changed[at] ^= 1;
            assert!(Request::parse(&changed).is_none_or(|request| !request.proves(&ice())), "byte {at}");
            assert!(Request::parse(&REQUEST[..at]).is_none(), "cut at {at}");
        }
    }

    #[test]
    fn a_check_may_nominate() {
        let nominates = [&b"\x00\x01\x00\x04"[..], &REQUEST[4..20], b"\x00\x25\x00\x00"].concat();
        let request = Request::parse(&nominates).unwrap();
        assert!(request.use_candidate && !request.proves(&ice()));
    }

    #[test]
    fn the_mapped_addresses_are_those_of_the_test_vectors() {
        let bare = [&b"\x00\x01\x00\x00"[..], &REQUEST[4..20]].concat();
        let bare = Request::parse(&bare).unwrap();
        let v4 = bare.answer(([192, 0, 2, 1], 32853).into(), None);
        assert_eq!(v4[..4], *b"\x01\x01\x00\x0c");
        assert_eq!(v4[20..], *b"\x00\x20\x00\x08\x00\x01\xa1\x47\xe1\x12\xa6\x43");
        let v6 = bare.answer("[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap(), None);
        assert_eq!(v6[24..], *b"\x00\x02\xa1\x47\x01\x13\xa9\xfa\xa5\xd3\xf1\x79\xbc\x25\xf4\xb5\xbe\xd2\xb9\xd9");
    }

    #[test]
    fn an_answer_to_a_check_is_signed_and_sealed() {
        let answer = Request::parse(REQUEST).unwrap().answer(([192, 0, 2, 1], 32853).into(), Some(&ice()));
        assert_eq!(answer.len(), 20 + 12 + 24 + 8);
        assert_eq!(answer[60..], fingerprint(&answer[..56]).to_be_bytes());
        let mut signed = answer[..32].to_vec();
        set_length(&mut signed, 24);
        let mac = integrity(&ice()).unwrap().chain_update(&signed);
        assert!(mac.verify_slice(&answer[36..56]).is_ok());
    }

    #[test]
    fn no_bytes_panic() {
        use proptest::prelude::*;
        proptest!(|(at in 20usize..108, bytes in proptest::collection::vec(any::<u8>(), 0..8))| {
            let mut packet = REQUEST.to_vec();
            packet.splice(at..(at + bytes.len()).min(108), bytes);
            let length = (packet.len() - HEADER) as u16;
            packet[2..4].copy_from_slice(&length.to_be_bytes());
            if let Some(request) = Request::parse(&packet) {
                request.proves(&ice());
                request.answer(([192, 0, 2, 1], 1).into(), Some(&ice()));
            }
        });
    }
}
