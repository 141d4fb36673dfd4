//! Three readers of the same bytes: ours, rsip 0.4 and ezk-sip-types 0.6, over every valid message we have. They agree, or the
//! table says who is right and why; a row that no longer disagrees fails the test as well.

mod peers;

use bytes::Bytes;
use peers::{Reading, address, uri};
use sip_core::message::{Message, Uri};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Valid by RFC 4475: §3.1.1, §3.2, §3.3 (as far as syntax goes) and §3.4.
const VALID_4475: &[&str] = &[
    "wsinv",
    "intmeth",
    "esc01",
    "escnull",
    "esc02",
    "lwsdisp",
    "longreq",
    "dblreq",
    "semiuri",
    "transports",
    "mpart01",
    "unreason",
    "noreason",
    "badbranch",
    "unkscm",
    "novelsc",
    "unksm2",
    "bext01",
    "invut",
    "regaut01",
    "bcast",
    "zeromf",
    "cparam01",
    "cparam02",
    "regescrt",
    "sdp01",
    "inv2543",
];

/// Reader, file, fields in which it differs from us (`all`: it does not read the message), and who is right.
type Row = (&'static str, &'static str, &'static [&'static str], &'static str);

const TABLE: &[Row] = &[
    ("rsip", "dblreq", &["from", "to", "contact"], "we: it loses a user part with a dot"),
    ("rsip", "dblreq", &["call_id"], "we: the compact form is i, in any case (RFC 3261 §7.3.1)"),
    ("rsip", "dblreq", &["body"], "we: the body ends where Content-Length says (§18.3)"),
    ("rsip", "esc01", &["all"], "we: %3A and %40 are in a user part (§25.1)"),
    ("rsip", "esc02", &["all"], "we: any token is a method (§25.1)"),
    ("rsip", "intmeth", &["all"], "we: any token is a method, and these are characters of a user part (§25.1)"),
    ("rsip", "invut", &["to"], "we: it loses a user part with a dot"),
    ("rsip", "ipv4-mapped-ipv6", &["via", "branch", "contact"], "we: it knows no IPv6 (RFC 5118)"),
    ("rsip", "ipv6-bug-abnf-3-colons", &["all"], "we: it knows no IPv6"),
    ("rsip", "ipv6-correct-abnf-2-colons", &["all"], "we: it knows no IPv6"),
    ("rsip", "ipv6-good", &["all"], "we: it knows no IPv6"),
    ("rsip", "ipv6-in-sdp", &["all"], "we: it knows no IPv6"),
    ("rsip", "longreq", &["all"], "we: lines may be folded and names stand before a blank (§7.3.1)"),
    ("rsip", "mult-ip-in-header", &["via", "branch"], "we: it knows no IPv6"),
    ("rsip", "mult-ip-in-sdp", &["all"], "we: it knows no IPv6"),
    ("rsip", "novelsc", &["request_uri"], "neither: it makes a host of an unknown scheme, we keep the text; it is refused (416)"),
    ("rsip", "port-ambiguous", &["all"], "we: it knows no IPv6"),
    ("rsip", "port-unambiguous", &["all"], "we: it knows no IPv6"),
    ("rsip", "regaut01", &["from", "to"], "we: it loses a user part with a dot"),
    ("rsip", "regescrt", &["contact"], "we: a compact m is a Contact"),
    ("rsip", "semiuri", &["all"], "we: a semicolon may stand in a user part (§25.1)"),
    ("rsip", "spec_01_register", &["contact"], "we: +sip.instance is a parameter (RFC 5626 §4.1)"),
    ("rsip", "spec_03_register", &["contact"], "we: +sip.instance is a parameter"),
    ("rsip", "spec_05_invite", &["contact"], "we: +sip.instance is a parameter"),
    ("rsip", "unkscm", &["all"], "we: an unknown scheme is well-formed (§25.1 absoluteURI)"),
    ("rsip", "unksm2", &["from", "to", "to_tag", "contact"], "we: as above"),
    ("rsip", "via-received-param-no-delim", &["all"], "we: it knows no IPv6"),
    ("rsip", "via-received-param-with-delim", &["all"], "we: it knows no IPv6"),
    ("rsip", "wsinv", &["all"], "we: lines may be folded"),
    (
        "ezk",
        "esc01",
        &["request_uri", "from", "to", "contact"],
        "both: it undoes the escapes as it reads, we when a user is compared",
    ),
    ("ezk", "escnull", &["from", "to", "contact"], "both: as above"),
    ("ezk", "intmeth", &["branch"], "we: a Via parameter is a token, %66 in it is three characters (§25.1)"),
    ("ezk", "ipv6-bug-abnf-3-colons", &["all"], "we: RFC 5118 §4.10 asks for tolerance"),
    ("ezk", "novelsc", &["all"], "we: an unknown scheme is well-formed (§25.1 absoluteURI)"),
    ("ezk", "semiuri", &["request_uri"], "both: it undoes the escapes as it reads"),
    ("ezk", "unkscm", &["all"], "we: an unknown scheme is well-formed"),
    ("ezk", "unksm2", &["from", "from_tag", "to", "to_tag", "contact"], "we: as above"),
    (
        "ezk",
        "wsinv",
        &["from", "from_tag", "contact"],
        "we: a quote may be escaped, and blanks and folds stand around every separator (§25.1)",
    ),
];

fn ours(bytes: &[u8]) -> Result<Reading, String> {
    let message = Message::parse(Bytes::copy_from_slice(bytes)).map_err(|fault| fault.to_string())?;
    message.validate().map_err(|fault| fault.to_string())?;
    let (via, from, to) = (message.via().ok_or("Via")?, message.from().ok_or("From")?, message.to().ok_or("To")?);
    let cseq = message.cseq().ok_or("CSeq")?;
    let of = |text: &str| match Uri::parse(text) {
        Some(parsed) => uri(parsed.user, parsed.host, parsed.port),
        None => format!("unreadable {text}"),
    };
    Ok(Reading::from([
        ("start", message.method().map_or_else(|| format!("{:?}", message.code()), |method| method.to_string())),
        ("request_uri", message.request_uri().map_or_else(String::new, of)),
        ("via", address(via.host, via.port)),
        ("branch", via.branch().unwrap_or_default().to_owned()),
        ("from", of(from.uri)),
        ("from_tag", from.tag().unwrap_or_default().to_owned()),
        ("to", of(to.uri)),
        ("to_tag", to.tag().unwrap_or_default().to_owned()),
        ("call_id", message.call_id().unwrap_or_default().to_owned()),
        ("cseq", format!("{} {}", cseq.number, cseq.method)),
        ("contact", message.contact().map_or_else(String::new, |contact| of(contact.uri))),
        ("body", message.body().escape_ascii().to_string()),
    ]))
}

fn messages() -> Vec<(String, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut paths: Vec<PathBuf> =
        VALID_4475.iter().map(|name| root.join("fixtures/torture/rfc4475").join(format!("{name}.dat"))).collect();
    for folder in ["fixtures/torture/rfc5118", "fuzz/corpus/message"] {
        paths.extend(std::fs::read_dir(root.join(folder)).expect("a folder").map(|entry| entry.expect("readable").path()));
    }
    let name = |path: &Path| path.file_stem().expect("a name").to_string_lossy().into_owned();
    let valid = paths.into_iter().filter(|path| !["ipv6-bad"].contains(&&*name(path)) && !name(path).starts_with("found_"));
    let mut all: Vec<_> = valid.map(|path| (name(&path), std::fs::read(&path).expect("readable"))).collect();
    all.sort();
    all
}

#[test]
fn the_readers_agree_or_the_table_says_why_not() {
    let mut found: BTreeSet<(String, String, String)> = BTreeSet::new();
    let mut details = Vec::new();
    for (name, bytes) in messages() {
        let ours = ours(&bytes).unwrap_or_else(|fault| panic!("{name} is valid, but: {fault}"));
        for (peer, read) in peers::ALL {
            match read(&bytes) {
                Err(error) => {
                    details.push(format!("{peer} {name} all: {error}"));
                    found.insert((peer.to_string(), name.clone(), "all".into()));
                }
                Ok(theirs) => {
                    for (field, value) in ours.iter().filter(|(field, value)| theirs.get(*field) != Some(value)) {
                        details.push(format!("{peer} {name} {field}: {:?} for our {value:?}", theirs.get(field)));
                        found.insert((peer.to_string(), name.clone(), field.to_string()));
                    }
                }
            }
        }
    }
    let explained: BTreeSet<(String, String, String)> = TABLE
        .iter()
        .flat_map(|(peer, name, fields, _)| {
            fields.iter().map(move |field| (peer.to_string(), name.to_string(), field.to_string()))
        })
        .collect();
    let unexplained: Vec<_> = found.difference(&explained).collect();
    let outdated: Vec<_> = explained.difference(&found).collect();
    assert!(
        unexplained.is_empty() && outdated.is_empty(),
        "unexplained: {unexplained:#?}\nno disagreement any more: {outdated:#?}\n{}",
        details.join("\n")
    );
}
