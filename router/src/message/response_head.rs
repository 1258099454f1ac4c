//! The head of a backend's response for the client.

use super::logins;
use crate::http1::connection::{HopByHop, Options};
use crate::http1::encode::{Announce, Edit, HeadWriter};
use crate::http1::fields::Field;
use crate::http1::head::ResponseHead;
use crate::http1::known::{FieldSet, KnownField};
use crate::http1::server::ResponsePlan;

/// Trailers of every call of gRPC, and of one that failed with details.
const GRPC_TRAILERS: &[u8] = b"grpc-status, grpc-message, grpc-status-details-bin";

/// What the router changes in a response's head. Values that no field may have are left out.
#[derive(Clone, Copy, Debug)]
pub struct ResponseEdits<'a> {
    /// What the head says about body and connection.
    pub plan: &'a ResponsePlan,
    /// The protocol of an upgrade that begins with this response.
    pub upgrade: Option<&'a [u8]>,
    /// Added if the backend sent none.
    pub date: Option<&'a [u8]>,
    /// A `Set-Cookie` to add.
    pub cookie: Option<&'a [u8]>,
    /// `Strict-Transport-Security` in place of the backend's.
    pub hsts: Option<&'a [u8]>,
    /// `X-Request-Id` in place of the backend's.
    pub request_id: Option<&'a [u8]>,
    /// A call of gRPC announces its trailers. For clients that take any and backends that need not announce
    /// theirs.
    pub announces_grpc_trailers: bool,
    /// Lines in place of the backend's of the same names (`X-Debug-*`).
    pub extra: &'a [(&'a str, &'a [u8])],
}

/// Writes the head behind what is in `out`. `options` is what the backend says about its own connection;
/// hop-by-hop fields (RFC 9110 7.6.1) are left out.
pub fn write_response(
    out: &mut Vec<u8>,
    head: &ResponseHead,
    buf: &[u8],
    options: Options,
    edits: &ResponseEdits<'_>,
) {
    let mut lines = Lines::new(head, buf, options, edits);
    let announce = edits.plan.announce;
    let mut writer = HeadWriter::response(out, head.status, head.reason.of(buf), announce);
    writer.fields_among(lines.special, &head.fields, buf, |field| lines.edit(field));
    lines.add_missing(&mut writer);
    writer.end();
}

/// Writes an informational response other than `101` (RFC 9110 15.2), without what concerns the backend's
/// connection, or wrongly a body (RFC 9110 8.6).
pub fn write_informational(out: &mut Vec<u8>, head: &ResponseHead, buf: &[u8]) {
    let hop_by_hop = HopByHop::new(&head.fields, buf, Options::of(&head.fields, buf));
    let reason = head.reason.of(buf);
    let mut writer = HeadWriter::response(out, head.status, reason, Announce::Nothing);
    writer.fields(&head.fields, buf, |field| match hop_by_hop.contains(field) {
        true => Edit::Drop,
        false => Edit::Keep,
    });
    writer.end();
}

/// Whether the backend takes logins that are valid for the whole connection.
pub fn asks_for_login(head: &ResponseHead, buf: &[u8]) -> bool {
    let challenges = |known| head.fields.values(known, buf);
    challenges(KnownField::WwwAuthenticate)
        .chain(challenges(KnownField::ProxyAuthenticate))
        .any(logins::is_bound)
}

/// What becomes of the backend's fields.
struct Lines<'a> {
    head: &'a ResponseHead,
    buf: &'a [u8],
    edits: &'a ResponseEdits<'a>,
    hop_by_hop: HopByHop<'a>,
    hsts: Option<&'a [u8]>,
    /// Fields that may not stay as they came.
    special: FieldSet,
    /// Fields of which a line has come.
    seen: FieldSet,
}

impl<'a> Lines<'a> {
    fn new(
        head: &'a ResponseHead,
        buf: &'a [u8],
        options: Options,
        edits: &'a ResponseEdits<'a>,
    ) -> Self {
        let hop_by_hop = HopByHop::new(&head.fields, buf, options);
        let hsts = edits.hsts.filter(|value| is_valid(value));
        let mut special = hop_by_hop.candidates();
        if hsts.is_some() {
            special.insert(KnownField::StrictTransportSecurity);
        }
        if edits.request_id.is_some() {
            special.insert(KnownField::XRequestId);
        }
        if !edits.extra.is_empty() {
            special = FieldSet::ALL;
        }
        Self { head, buf, edits, hop_by_hop, hsts, special, seen: FieldSet::EMPTY }
    }

    /// What becomes of a line of a [special](Self::special) field.
    fn edit(&mut self, field: Field) -> Edit<'a> {
        let ours = match field.known {
            KnownField::StrictTransportSecurity => self.hsts,
            KnownField::XRequestId => self.edits.request_id,
            _ => None,
        };
        if let Some(ours) = ours {
            let is_first = !self.seen.contains(field.known);
            self.seen.insert(field.known);
            return if is_first { Edit::Replace(ours) } else { Edit::Drop };
        }
        if self.hop_by_hop.contains(field) || self.is_replaced(field) {
            Edit::Drop
        } else {
            Edit::Keep
        }
    }

    /// Whether a line of ours has the same name.
    fn is_replaced(&self, field: Field) -> bool {
        let name = field.name().of(self.buf);
        let is_ours = |(ours, value): &(&str, &[u8])| {
            ours.as_bytes().eq_ignore_ascii_case(name) && is_valid(value)
        };
        self.edits.extra.iter().any(is_ours)
    }

    /// Adds what the backend has not sent, or what is not its to say.
    fn add_missing(&self, writer: &mut HeadWriter<'_>) {
        let present = self.head.fields.present();
        let edits = self.edits;
        if edits.announces_grpc_trailers && self.is_grpc() && !present.contains(KnownField::Trailer)
        {
            writer.add(KnownField::Trailer, GRPC_TRAILERS);
        }
        if let Some(date) = edits.date.filter(|_| !present.contains(KnownField::Date)) {
            writer.add(KnownField::Date, date);
        }
        for (name, value) in edits.extra.iter().filter(|(_, value)| is_valid(value)) {
            writer.add_named(name, value);
        }
        if let Some(cookie) = edits.cookie.filter(|value| is_valid(value)) {
            writer.add(KnownField::SetCookie, cookie);
        }
        for (known, value) in [
            (KnownField::StrictTransportSecurity, self.hsts),
            (KnownField::XRequestId, edits.request_id),
        ] {
            if let Some(value) = value.filter(|_| !self.seen.contains(known)) {
                writer.add(known, value);
            }
        }
        if let Some(connection) = edits.plan.connection {
            writer.add(KnownField::Connection, connection.as_bytes());
        }
        if let Some(protocol) = edits.upgrade {
            writer.add(KnownField::Upgrade, protocol);
        }
    }

    fn is_grpc(&self) -> bool {
        let kind = self.head.fields.value(KnownField::ContentType, self.buf);
        kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
    }
}

/// Whether a field may have this value (RFC 9110 5.5): one with a line end would add lines of its own, or
/// split the response (RFC 9112 11.1).
pub fn is_valid(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{lines, response, text};
    use super::{ResponseEdits, asks_for_login, write_informational, write_response};
    use crate::http1::body::Output;
    use crate::http1::connection::Options;
    use crate::http1::encode::Announce;
    use crate::http1::framing::BodyKind;
    use crate::http1::server::{Connection, ResponsePlan};

    /// For a client whose connection goes on.
    fn plan(status: u16, body: BodyKind) -> ResponsePlan {
        let connection = if status == 101 { Some("upgrade") } else { None };
        ResponsePlan { connection, ..Connection::default().begin_response(status, body) }
    }

    const PLAN: ResponsePlan = ResponsePlan {
        announce: Announce::AsItCame,
        body: BodyKind::None,
        connection: None,
        output: Output::Content,
        makes_chunks: false,
    };

    const NONE: ResponseEdits<'_> = ResponseEdits {
        plan: &PLAN,
        upgrade: None,
        date: None,
        cookie: None,
        hsts: None,
        request_id: None,
        announces_grpc_trailers: false,
        extra: &[],
    };

    /// What a client gets of a backend's response.
    fn sent<'a>(
        head: &str,
        plan: ResponsePlan,
        edit: impl FnOnce(&mut ResponseEdits<'a>),
    ) -> String {
        let (buf, head) = response(&format!("{head}\r\n"));
        let mut edits = NONE;
        edit(&mut edits);
        let edits = ResponseEdits { plan: &plan, ..edits };
        let mut out = b"before".to_vec();
        write_response(&mut out, &head, &buf, Options::of(&head.fields, &buf), &edits);
        String::from_utf8(out).unwrap().strip_prefix("before").unwrap().to_owned()
    }

    /// The fields of a `200` without a body, with those behind `lines` that `edit` adds.
    fn fields<'a>(lines: &str, edit: impl FnOnce(&mut ResponseEdits<'a>)) -> String {
        let start = "HTTP/1.1 200 OK\r\n";
        let text = sent(&format!("{start}{lines}"), PLAN, edit);
        text.strip_prefix(start).and_then(|text| text.strip_suffix("\r\n")).unwrap().to_owned()
    }

    #[test]
    fn response_is_passed_on_as_it_came_without_hop_by_hop_fields() {
        assert_eq!(
            sent(
                "HTTP/1.0 200 Fine  so\r\nserver: x\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\
                 Keep-Alive: timeout=5\r\nSet-COOKIE: a\r\nProxy-Connection: keep-alive\r\n\
                 Upgrade: h2c\r\nset-cookie: b\r\ncontent-length: 5\r\nTE: x\r\n",
                plan(200, BodyKind::Length(5)),
                |_| {}
            ),
            "HTTP/1.1 200 Fine  so\r\nserver: x\r\nSet-COOKIE: a\r\nset-cookie: b\r\n\
             content-length: 5\r\n\r\n"
        );
        let close = ResponsePlan { connection: Some("close"), ..plan(200, BodyKind::Chunked) };
        assert_eq!(
            sent("HTTP/1.1 200\r\nConnection: keep-alive\r\nA: b\r\n", close, |_| {}),
            "HTTP/1.1 200 \r\nA: b\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
    }

    /// RFC 9110 8.6.
    #[test]
    fn response_without_content_announces_no_length() {
        let lines = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nA: b\r\n";
        let text = sent(&format!("HTTP/1.1 204 No\r\n{lines}"), plan(204, BodyKind::None), |_| {});
        assert_eq!(text, "HTTP/1.1 204 No\r\nA: b\r\n\r\n");
    }

    #[test]
    fn upgrade_begins_with_the_protocol_that_was_agreed_on() {
        let head = "HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: X\r\nA: b\r\n";
        let text = sent(head, plan(101, BodyKind::None), |edits| edits.upgrade = Some(b"x"));
        assert_eq!(
            text,
            "HTTP/1.1 101 Switching\r\nA: b\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
        );
    }

    #[test]
    fn fields_of_ours_are_added_or_replace_the_backends() {
        let date = |edits: &mut ResponseEdits<'_>| edits.date = Some(b"now");
        assert_eq!(fields("date: then\r\n", date), "date: then\r\n");
        assert_eq!(fields("A: b\r\n", date), "A: b\r\nDate: now\r\n");
        let cookie = |edits: &mut ResponseEdits<'_>| edits.cookie = Some(b"b");
        assert_eq!(fields("Set-Cookie: a\r\n", cookie), "Set-Cookie: a\r\nSet-Cookie: b\r\n");
        let hsts = |edits: &mut ResponseEdits<'_>| edits.hsts = Some(b"max-age=1");
        let name = "Strict-Transport-Security";
        assert_eq!(fields("", hsts), format!("{name}: max-age=1\r\n"));
        let lower = name.to_lowercase();
        let twice = format!("{lower}: x\r\nA: b\r\n{name}: y\r\n");
        assert_eq!(fields(&twice, hsts), format!("{lower}: max-age=1\r\nA: b\r\n"));
        assert_eq!(fields(&twice, |_| {}), twice);
        let id = |edits: &mut ResponseEdits<'_>| edits.request_id = Some(b"1");
        assert_eq!(fields("A: b\r\n", id), "A: b\r\nX-Request-Id: 1\r\n");
        assert_eq!(fields("x-request-ID: 2\r\nA: b\r\n", id), "x-request-ID: 1\r\nA: b\r\n");
        // The backend's connection cannot take it away.
        let named = "Connection: x-request-id\r\nX-Request-Id: 2\r\n";
        assert_eq!(fields(named, id), "X-Request-Id: 1\r\n");
        assert_eq!(fields(named, |_| {}), "");
    }

    /// An identifier in Redis may be any text.
    #[test]
    fn what_is_no_value_of_a_field_is_left_out() {
        for value in ["a\r\nb: c", "a\0", "\u{e4}", "a\nb", "a\u{7f}"] {
            let text = fields("X-Debug-A: a\r\nStrict-Transport-Security: b\r\n", |edits| {
                edits.extra = &[("x-debug-b", b"c"), ("x-debug-d", b"\tz ")];
                edits.hsts = Some(b"d\r\n");
                edits.cookie = Some(b"e\n");
            });
            let kept = "X-Debug-A: a\r\nStrict-Transport-Security: b\r\n";
            assert_eq!(text, format!("{kept}x-debug-b: c\r\nx-debug-d: \tz \r\n"));
            let (buf, head) = response("HTTP/1.1 200 OK\r\nX-Debug-B: a\r\n\r\n");
            let extra = [("x-debug-b", value.as_bytes()), ("x-debug-c", &b"d"[..])];
            let edits = ResponseEdits { extra: &extra, ..NONE };
            let mut out = Vec::new();
            write_response(&mut out, &head, &buf, Options::default(), &edits);
            let expected = "HTTP/1.1 200 OK\r\nX-Debug-B: a\r\nx-debug-c: d\r\n\r\n";
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{value:?}");
        }
    }

    #[test]
    fn debug_lines_replace_the_backends() {
        let text = fields("X-DEBUG-vhost: theirs\r\nX-Debug-Other: 1\r\n", |edits| {
            edits.extra = &[("x-debug-vhost", b"ours")];
        });
        assert_eq!(text, "X-Debug-Other: 1\r\nx-debug-vhost: ours\r\n");
    }

    #[test]
    fn only_calls_of_grpc_without_announcement_get_one() {
        let all = "Trailer: grpc-status, grpc-message, grpc-status-details-bin\r\n";
        for (lines, announces, added) in [
            ("Content-Type: application/grpc\r\n", true, all),
            ("Content-Type: application/grpc+proto\r\n", true, all),
            ("Content-Type: application/grpc\r\nTrailer: x-sum\r\n", true, ""),
            ("Content-Type: application/grpc\r\n", false, ""),
            ("Content-Type: text/plain\r\n", true, ""),
            ("", true, ""),
        ] {
            let text = fields(lines, |edits| edits.announces_grpc_trailers = announces);
            assert_eq!(text, format!("{lines}{added}"));
        }
    }

    #[test]
    fn what_concerns_the_backends_connection_is_left_out_of_informational_responses() {
        let (buf, head) = response(
            "HTTP/1.1 103 Early Hints\r\nX-Secret: 1\r\nConnection: close, X-Secret\r\nX-Third: 2\r\n\
             connection: ,x-third\r\nProxy-Connection: x\r\nKeep-Alive: 1\r\nTE: x\r\nLink: </a>\r\n\
             Content-Length: 5\r\nTransfer-Encoding: chunked\r\nUpgrade: x\r\n\r\n",
        );
        let mut out = Vec::new();
        write_informational(&mut out, &head, &buf);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    }

    #[test]
    fn challenges_for_a_whole_connection_are_found() {
        for (lines, expected) in [
            ("WWW-Authenticate: Basic\r\nWWW-Authenticate: NTLM\r\n", true),
            ("Proxy-Authenticate: Negotiate\r\n", true),
            ("WWW-Authenticate: Basic realm=x\r\n", false),
            ("Authorization: NTLM\r\n", false),
            ("", false),
        ] {
            let (buf, head) = response(&format!("HTTP/1.1 401 x\r\n{lines}\r\n"));
            assert_eq!(asks_for_login(&head, &buf), expected, "{lines:?}");
        }
    }

    proptest! {
        /// What is written is a whole head whose lines are the backend's but for ours.
        #[test]
        fn response_stays_one_head(
            names in proptest::collection::vec("[Xx]-[a-c]|Date|Set-Cookie|X-Request-Id|Keep-Alive", 0..10),
            values in proptest::collection::vec("[!-~]([ -~]{0,10}[!-~])?", 10),
            ours in proptest::collection::vec(any::<u8>(), 0..10),
        ) {
            let given: Vec<_> = names.iter().zip(&values).map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let head = format!("HTTP/1.1 200 OK\r\n{}", text(&given));
            let written = sent(&head, PLAN, |edits| {
                edits.cookie = Some(&ours);
                edits.hsts = Some(&ours);
            });
            let written = lines(written.as_bytes());
            let kept: Vec<_> = given.iter().filter(|(name, _)| *name != "Keep-Alive").collect();
            for (index, (name, value)) in kept.iter().enumerate() {
                prop_assert_eq!((&*written[index].0, &*written[index].1), (*name, *value));
            }
            let added = if super::is_valid(&ours) { 2 } else { 0 };
            prop_assert_eq!(written.len(), kept.len() + added);
        }
    }
}
