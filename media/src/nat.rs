//! Is the address of an SDP one that we can reach? A phone behind a NAT writes the address it has at home (D-16).

use std::net::IpAddr;

/// How far an address reaches: this host, a site (RFC 1918, RFC 4193, link-local), a carrier's NAT (RFC 6598), the Internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Host,
    Site,
    Carrier,
    World,
}

fn reach(ip: IpAddr) -> Reach {
    match ip {
        _ if ip.is_loopback() || ip.is_unspecified() => Reach::Host,
        IpAddr::V4(v4) if v4.is_private() || v4.is_link_local() => Reach::Site,
        IpAddr::V4(v4) if v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64 => Reach::Carrier,
        IpAddr::V6(v6) if v6.is_unique_local() || v6.is_unicast_link_local() => Reach::Site,
        IpAddr::V4(_) | IpAddr::V6(_) => Reach::World,
    }
}

/// Does the address have a meaning inside some network only?
pub fn is_private(ip: IpAddr) -> bool {
    matches!(reach(ip), Reach::Site | Reach::Carrier)
}

/// Is `inner`, which an SDP names, hidden behind a NAT that its SIP comes through? Only when the SIP comes from a wider
/// network: two private addresses may well be two interfaces of one device, and then the SDP knows better.
pub fn hides(inner: IpAddr, sip_source: IpAddr) -> bool {
    inner.is_ipv4() == sip_source.is_ipv4() && is_private(inner) && reach(inner) < reach(sip_source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_addresses_behind_a_nat() {
        for (sdp, sip, hidden) in [
            ("192.168.1.5", "203.0.113.9", true),
            ("10.0.0.5", "203.0.113.9", true),
            ("172.31.0.5", "203.0.113.9", true),
            ("169.254.7.7", "203.0.113.9", true),
            ("192.168.1.5", "100.64.0.9", true),
            ("100.64.0.9", "203.0.113.9", true),
            ("fd00::5", "2001:db8::9", true),
            ("fe80::5", "2001:db8::9", true),
            ("192.168.1.5", "192.168.1.5", false),
            ("192.168.1.5", "10.0.0.1", false),
            ("100.64.0.9", "192.168.1.5", false),
            ("203.0.113.9", "192.168.1.5", false),
            ("203.0.113.9", "198.51.100.7", false),
            ("172.32.0.5", "203.0.113.9", false),
            ("100.128.0.9", "203.0.113.9", false),
            ("192.168.1.5", "2001:db8::9", false),
            ("127.0.0.21", "203.0.113.9", false),
            ("127.0.0.21", "127.0.0.1", false),
        ] {
            assert_eq!(hides(sdp.parse().unwrap(), sip.parse().unwrap()), hidden, "{sdp} by SIP from {sip}");
        }
    }
}
