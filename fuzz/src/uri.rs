//! Text → URI, Via, address, parameters: views never leave the text, and a URI stays itself inside an address.

use sip_core::message::{CSeq, NameAddr, Uri, Via, params, split_list};

pub fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let parts: usize = split_list(&text).map(str::len).sum();
    assert!(parts <= text.len());
    let _ = (params(&text).count(), CSeq::parse(&text));
    if let Some(via) = Via::parse(&text) {
        let _ = (via.branch(), via.wants_rport(), via.protocol_is_sip());
        assert!(!via.host.is_empty() && via.sent_by.starts_with(via.host));
    }
    if let Some(addr) = NameAddr::parse(&text) {
        assert!(text.contains(addr.uri) && text.contains(addr.params));
        let _ = addr.tag();
    }
    if let Some(uri) = Uri::parse(&text) {
        let _ = (uri.user_decoded(), uri.param("transport"), uri.port_or_default());
        assert!(text.contains(uri.host) && !uri.host.is_empty());
        if text.is_ascii() {
            let boxed = format!("\"x\" <{text}>;tag=1");
            let addr = NameAddr::parse(&boxed).expect("a URI in brackets is an address");
            assert_eq!((addr.uri, addr.tag()), (&*text, Some("1")));
        }
    }
}
