//! The head of a request for a backend.

use super::forwarding::Forwarding;
use super::request_ids::RequestIds;
use super::text::InlineText;
use crate::http1::connection::{HopByHop, Options, takes_trailers};
use crate::http1::encode::{Edit, HeadWriter};
use crate::http1::fields::Field;
use crate::http1::framing::BodyKind;
use crate::http1::head::RequestHead;
use crate::http1::known::{FieldSet, KnownField};

/// A request as it is sent to one backend.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The client's head.
    pub head: &'a RequestHead,
    /// What it was read into.
    pub buf: &'a [u8],
    /// What it says about the client's connection.
    pub options: Options,
    /// The body that follows.
    pub body: BodyKind,
    /// Replaces the `Host`: the authority of a target that has one (RFC 9112 3.2.2).
    pub host: Option<&'a [u8]>,
    /// The forwarded fields.
    pub forwarding: &'a Forwarding,
    /// `X-Request-Id` and `traceparent`, where the router gives ids.
    pub ids: Option<&'a RequestIds>,
    /// `X-Router-Hops` ([`hops::next`](super::hops::next)).
    pub hops: Option<u8>,
    /// The protocol to upgrade to.
    pub upgrade: Option<&'a [u8]>,
    /// No other request is to follow on the backend's connection. Not of an upgrade.
    pub close: bool,
}

/// Writes the head behind what is in `out`. Lines that are passed on stay as they came; hop-by-hop fields
/// (RFC 9110 7.6.1) are left out, but for `TE: trailers`, since the router passes trailers on.
pub fn write_request(out: &mut Vec<u8>, outgoing: &Outgoing<'_>) {
    let Outgoing { head, buf, .. } = *outgoing;
    let number = outgoing.hops.map(|hops| InlineText::of_number(hops.into())).unwrap_or_default();
    let mut edits = Edits::new(outgoing, &number);
    let method = head.method_text.of(buf);
    let mut writer = HeadWriter::request(out, method, &head.target, buf, outgoing.body);
    writer.fields_among(edits.special, &head.fields, buf, |field| edits.edit(field));
    edits.add_missing(&mut writer);
    writer.end();
}

/// What becomes of the client's fields.
struct Edits<'a> {
    outgoing: &'a Outgoing<'a>,
    hop_by_hop: HopByHop<'a>,
    /// The number of routers as text.
    hops: &'a InlineText<3>,
    /// Fields that may not stay as they came.
    special: FieldSet,
    /// What the forwarded fields want changed.
    forwarded: FieldSet,
    /// What the ids want left out.
    dropped: FieldSet,
    /// Fields of which a line has come.
    seen: FieldSet,
}

impl<'a> Edits<'a> {
    fn new(outgoing: &'a Outgoing<'a>, hops: &'a InlineText<3>) -> Self {
        let hop_by_hop = HopByHop::new(&outgoing.head.fields, outgoing.buf, outgoing.options);
        let forwarded = outgoing.forwarding.changed();
        let mut special = hop_by_hop.candidates().union(forwarded);
        let mut dropped = FieldSet::EMPTY;
        if let Some(ids) = outgoing.ids {
            dropped = ids.dropped();
            special = special.union(dropped).union(RequestIds::SET);
        }
        if outgoing.hops.is_some() {
            special.insert(KnownField::XRouterHops);
        }
        if outgoing.host.is_some() {
            special.insert(KnownField::Host);
        }
        Self { outgoing, hop_by_hop, hops, special, forwarded, dropped, seen: FieldSet::EMPTY }
    }

    /// What becomes of a line of a [special](Self::special) field.
    fn edit(&mut self, field: Field) -> Edit<'a> {
        let known = field.known;
        let is_first = !self.seen.contains(known);
        self.seen.insert(known);
        let outgoing = self.outgoing;
        match (known, outgoing.ids) {
            _ if self.forwarded.contains(known) => outgoing.forwarding.edit(known, is_first),
            _ if self.dropped.contains(known) => Edit::Drop,
            (_, Some(ids)) if RequestIds::SET.contains(known) => match ids.keeps(known) {
                true => Edit::Keep,
                false => once(is_first, ids.value(known, outgoing.buf)),
            },
            (KnownField::XRouterHops, _) if outgoing.hops.is_some() => {
                once(is_first, self.hops.as_bytes())
            }
            (KnownField::Host, _) => outgoing.host.map_or(Edit::Keep, Edit::Replace),
            (KnownField::Te, _) if takes_trailers(&outgoing.head.fields, outgoing.buf) => {
                once(is_first, b"trailers")
            }
            _ if self.hop_by_hop.contains(field) => Edit::Drop,
            _ => Edit::Keep,
        }
    }

    /// Adds what no line of the client's has become.
    fn add_missing(&self, writer: &mut HeadWriter<'_>) {
        let outgoing = self.outgoing;
        outgoing.forwarding.add(writer, self.seen);
        if let Some(ids) = outgoing.ids {
            for known in [KnownField::XRequestId, KnownField::Traceparent] {
                if !self.seen.contains(known) {
                    writer.add(known, ids.value(known, outgoing.buf));
                }
            }
        }
        if outgoing.hops.is_some() && !self.seen.contains(KnownField::XRouterHops) {
            writer.add(KnownField::XRouterHops, self.hops.as_bytes());
        }
        if let Some(protocol) = outgoing.upgrade {
            writer.add(KnownField::Connection, b"upgrade");
            writer.add(KnownField::Upgrade, protocol);
        } else if outgoing.close {
            writer.add(KnownField::Connection, b"close");
        }
    }
}

/// The value in place of the first line of a field.
fn once(is_first: bool, value: &[u8]) -> Edit<'_> {
    if is_first { Edit::Replace(value) } else { Edit::Drop }
}

#[cfg(test)]
mod tests {
    use super::super::client_info::{ClientInfo, Style, Trust};
    use super::super::request::RequestFacts;
    use super::super::testing::Request;
    use super::{Outgoing, write_request};

    /// What a backend gets of a request, without the forwarded fields, which stand behind all others but
    /// those of `change`.
    fn sent(request: &Request, change: impl FnOnce(&mut Outgoing<'_>)) -> String {
        let (peer, local) = ("1.2.3.4:5".parse().unwrap(), "127.0.0.1:80".parse().unwrap());
        let info = ClientInfo::new(peer, local, false, Style::default(), Trust::Keep);
        let forwarding = info.resolve(&request.head, &request.buf, b"a", |_| false);
        let facts = RequestFacts::of(&request.head, &request.buf, &request.accepted);
        let mut outgoing = Outgoing {
            head: &request.head,
            buf: &request.buf,
            options: request.accepted.options,
            body: request.accepted.body,
            host: None,
            forwarding: &forwarding,
            ids: None,
            hops: None,
            upgrade: facts.upgrade.map(|protocol| protocol.of(&request.buf)),
            close: false,
        };
        change(&mut outgoing);
        let mut out = b"before".to_vec();
        write_request(&mut out, &outgoing);
        let added = "X-Forwarded-For: ::ffff:1.2.3.4\r\nX-Real-IP: ::ffff:1.2.3.4\r\n\
                     X-Forwarded-Protocol: http\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Port: 80\r\n";
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches(added).count(), 1, "{text}");
        text.replace(added, "").strip_prefix("before").unwrap().to_owned()
    }

    fn sent_get(lines: &str) -> String {
        let text = sent(&Request::get(lines), |_| {});
        text.strip_prefix("GET / HTTP/1.1\r\nHost: a\r\n").unwrap().to_owned()
    }

    #[test]
    fn ordinary_request_is_passed_on_as_it_came() {
        let lines = "user-AGENT: x\r\nAccept:*/*\r\nX-A: 1\r\nCookie: a=b\r\nx-a: 2\r\n";
        assert_eq!(
            sent_get(lines),
            "user-AGENT: x\r\nAccept: */*\r\nX-A: 1\r\nCookie: a=b\r\nx-a: 2\r\n\r\n"
        );
        let request = Request::read(
            "POST http://u@b.test:81?q#f HTTP/1.0\r\nX: y\r\nhost: a\r\nContent-Length: 5\r\n\r\n",
        );
        assert_eq!(
            sent(&request, |outgoing| outgoing.host = Some(b"b.test:81")),
            "POST /?q HTTP/1.1\r\nX: y\r\nhost: b.test:81\r\nContent-Length: 5\r\n\r\n"
        );
    }

    #[test]
    fn hop_by_hop_fields_go_and_the_rest_keeps_its_order() {
        assert_eq!(
            sent_get(
                "Connection: close, X-Foo, host, cookie, content-length\r\nX-Foo: 1\r\n\
                 Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nAccept: a\r\n\
                 TE: trailers, deflate\r\nte: gzip\r\nUpgrade: h2c\r\n\
                 HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nProxy: http://evil/\r\nAccept: b\r\n\
                 Cookie: s=1\r\nContent-Length: 5\r\n"
            ),
            "Accept: a\r\nTE: trailers\r\nAccept: b\r\nCookie: s=1\r\nContent-Length: 5\r\n\r\n"
        );
        assert_eq!(sent_get("TE: gzip\r\nConnection: keep-alive\r\n"), "\r\n");
        assert_eq!(
            sent_get("Connection: keep-alive\r\nConnection: x-foo\r\nX-Foo: 1\r\nx: 1\r\n"),
            "x: 1\r\n\r\n"
        );
    }

    /// RFC 9110 7.8.
    #[test]
    fn only_a_real_upgrade_is_passed_on() {
        for (connection, upgrade, passed) in [
            ("Upgrade", "websocket", true),
            ("keep-alive, upgrade", "WebSocket", true),
            ("upgrade", "my-protocol/1", true),
            ("keep-alive", "websocket", false),
            ("upgrade, http2-settings", "h2c", false),
            ("upgrade", "websocket, h2c", false),
        ] {
            let lines = format!("Connection: {connection}\r\nX: 1\r\nUpgrade: {upgrade}\r\n");
            let expected = match passed {
                true => format!("X: 1\r\nConnection: upgrade\r\nUpgrade: {upgrade}\r\n\r\n"),
                false => "X: 1\r\n\r\n".to_owned(),
            };
            assert_eq!(sent_get(&lines), expected, "{connection} {upgrade}");
            // One that a backend cannot be asked for leaves nothing behind.
            let ignored = sent(&Request::get(&lines), |outgoing| outgoing.upgrade = None);
            assert_eq!(ignored, "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n\r\n");
        }
        let twice = "Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: x\r\n";
        assert_eq!(sent_get(twice), "\r\n");
    }

    #[test]
    fn connection_is_closed_unless_it_is_to_be_another_protocols() {
        let start = "GET / HTTP/1.1\r\nHost: a\r\n";
        let closing = |lines: &str| sent(&Request::get(lines), |outgoing| outgoing.close = true);
        let expected = format!("{start}Connection: close\r\n\r\n");
        assert_eq!(closing(""), expected);
        assert_eq!(closing("Connection: keep-alive\r\n"), expected);
        assert_eq!(
            closing("Connection: upgrade\r\nUpgrade: x\r\n"),
            format!("{start}Connection: upgrade\r\nUpgrade: x\r\n\r\n")
        );
    }

    #[test]
    fn hops_are_one_number() {
        for (lines, kept) in [
            ("", ""),
            ("x-router-HOPS: 1\r\nX: y\r\nX-Router-Hops: 2, 3\r\n", "x-router-HOPS: 4\r\nX: y\r\n"),
        ] {
            let text = sent(&Request::get(lines), |outgoing| outgoing.hops = Some(4));
            let added = if kept.is_empty() { "X-Router-Hops: 4\r\n" } else { "" };
            assert_eq!(text, format!("GET / HTTP/1.1\r\nHost: a\r\n{kept}{added}\r\n"));
        }
        // The client's connection cannot take it away.
        let named = "Connection: x-router-hops\r\nX-Router-Hops: 3\r\n";
        let text = sent(&Request::get(named), |outgoing| outgoing.hops = Some(4));
        assert_eq!(text, "GET / HTTP/1.1\r\nHost: a\r\nX-Router-Hops: 4\r\n\r\n");
    }
}
