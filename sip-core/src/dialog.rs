//! Dialogs (RFC 3261 §12): who talks to whom, in which order, and how a request inside is written.

use crate::flow::Flow;
use crate::message::{Message, Method, Name, NameAddr, Uri, Writer, split_list, without_tag};

/// One side of a dialog: the header value without its tag, and the tag.
#[derive(Clone, Debug)]
pub(crate) struct Party {
    pub header: String,
    pub tag: String,
}

/// Everything a request inside the dialog is made of.
#[derive(Clone, Debug)]
pub(crate) struct Dialog {
    pub flow: Flow,
    /// Our side of `Via` and `Contact`: `host:port`.
    pub sent_by: String,
    pub call_id: String,
    pub local: Party,
    /// Empty tag until the peer has one.
    pub remote: Party,
    pub local_cseq: u32,
    pub remote_cseq: Option<u32>,
    /// Remote target: the peer's Contact (§12.1.1); before it is known, what the request went to.
    pub target: String,
    pub routes: Vec<String>,
}

impl Dialog {
    /// Our URI for the peer's requests: a minted user, so that nobody can guess it (D-13).
    pub fn contact(&self) -> String {
        format!("<sip:{}@{}{}>", self.local.tag, self.sent_by, self.flow.transport.uri_parameter())
    }

    /// UAS side, from the INVITE (§12.1.1). `None` when From, To, Call-ID or CSeq are unreadable.
    pub fn from_request(request: &Message, flow: Flow, sent_by: String, local_tag: String) -> Option<Dialog> {
        let from = request.header(Name::From)?;
        Some(Dialog {
            flow,
            sent_by,
            call_id: request.call_id()?.to_owned(),
            local: Party { header: request.header(Name::To)?.to_owned(), tag: local_tag },
            remote: Party { header: without_tag(from), tag: request.from()?.tag().unwrap_or_default().to_owned() },
            local_cseq: 0,
            remote_cseq: Some(request.cseq()?.number),
            target: request.contact().map_or_else(|| request.from().map(|f| f.uri.to_owned()), |c| Some(c.uri.to_owned()))?,
            routes: record_route(request),
        })
    }

    /// UAC side: what a response with a To-tag teaches (§12.1.2). A response without Contact leaves the target as it is.
    pub fn learn(&mut self, response: &Message) {
        if let Some(tag) = response.to().and_then(|to| to.tag()) {
            tag.clone_into(&mut self.remote.tag);
        }
        if let Some(contact) = response.contact() {
            contact.uri.clone_into(&mut self.target);
        }
        self.routes = record_route(response);
        self.routes.reverse();
    }

    /// Target refresh by a request inside the dialog (§12.2.2).
    pub fn refresh_target(&mut self, request: &Message) {
        if let Some(contact) = request.contact() {
            contact.uri.clone_into(&mut self.target);
        }
    }

    /// Requests of the peer come in rising order (§12.2.2).
    pub fn accept_cseq(&mut self, number: u32) -> bool {
        if self.remote_cseq.is_some_and(|last| number <= last) {
            return false;
        }
        self.remote_cseq = Some(number);
        true
    }

    /// Begins the next request.
    pub fn request(&mut self, method: &Method, branch: &str) -> Writer {
        self.local_cseq += 1;
        self.request_as(method, self.local_cseq, branch)
    }

    /// Begins a request with a given CSeq number: ACK and CANCEL repeat the INVITE's (§13.2.2.4, §9.1).
    pub fn request_as(&self, method: &Method, cseq: u32, branch: &str) -> Writer {
        let to_tag = if self.remote.tag.is_empty() { String::new() } else { format!(";tag={}", self.remote.tag) };
        let (uri, routes) = route(&self.target, &self.routes);
        let mut writer = Writer::request(method, uri)
            .header("Via", format_args!("SIP/2.0/{} {};branch={branch};rport", self.flow.transport.via_name(), self.sent_by))
            .header("Max-Forwards", 70);
        for route in routes {
            writer = writer.header("Route", route);
        }
        writer
            .header("From", format_args!("{};tag={}", self.local.header, self.local.tag))
            .header("To", format_args!("{}{to_tag}", self.remote.header))
            .header("Call-ID", &self.call_id)
            .header("CSeq", format_args!("{cseq} {method}"))
    }
}

/// Request-URI and Route lines (§12.2.1.1). A strict router takes the Request-URI's place.
pub(crate) fn route<'a>(target: &'a str, routes: &'a [String]) -> (&'a str, Vec<String>) {
    let Some(first) = routes.first() else { return (target, Vec::new()) };
    let first_uri = NameAddr::parse(first).map_or(target, |route| route.uri);
    if Uri::parse(first_uri).is_some_and(|uri| uri.param("lr").is_some()) {
        return (target, routes.to_vec());
    }
    let mut rest = routes[1..].to_vec();
    rest.push(format!("<{target}>"));
    (first_uri, rest)
}

/// The proxies that want to stay on the way (§12.1); what is no address leads nowhere.
fn record_route(message: &Message) -> Vec<String> {
    let routes = message.headers(Name::RecordRoute).flat_map(split_list);
    routes.filter(|route| NameAddr::parse(route).is_some()).map(str::to_owned).collect()
}
