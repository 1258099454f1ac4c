//! The forwarded fields of one request: `X-Forwarded-*`, `X-Real-IP` and `Forwarded` (hipache-contract 2).

use std::net::IpAddr;

use super::client_info::{AddressText, ClientInfo, Trust};
use super::forwarded::{self, Element, Own, address};
use super::text::InlineText;
use crate::http1::encode::{Edit, HeadWriter};
use crate::http1::fields::Span;
use crate::http1::head::RequestHead;
use crate::http1::known::{FieldSet, KnownField};

/// What every request has when it reaches a backend.
const REQUIRED: FieldSet = FieldSet::of(&[
    KnownField::XForwardedFor,
    KnownField::XForwardedPort,
    KnownField::XForwardedProto,
    KnownField::XForwardedProtocol,
    KnownField::XRealIp,
]);

/// Names that many programs cannot tell from a forwarded field: `X_Forwarded_For` and `X-Forwarded-For` are
/// the same variable in CGI and its heirs.
const LOOKALIKES: FieldSet = FieldSet::of(&[KnownField::ForwardedLookalike]);

/// What a peer that is not believed says in fields that the router does not write: `X-Forwarded-Host` is the
/// host in links and cookies for many frameworks.
const UNBELIEVED: FieldSet =
    FieldSet::of(&[KnownField::Forwarded, KnownField::ForwardedOther]).union(LOOKALIKES);

/// In the order in which they are added.
const ADDED: [KnownField; 6] = [
    KnownField::XForwardedFor,
    KnownField::XRealIp,
    KnownField::XForwardedProtocol,
    KnownField::XForwardedProto,
    KnownField::XForwardedPort,
    KnownField::Forwarded,
];

/// What the forwarded fields of one request are for its backend.
#[derive(Clone, Debug)]
pub struct Forwarding {
    info: ClientInfo,
    /// `X-Real-IP` where it is [set](Self::set).
    real_ip: AddressText,
    /// `X-Real-IP` where it stays as it came.
    kept_real_ip: Option<Span>,
    port: InlineText<5>,
    /// Fields that are one line with our value.
    set: FieldSet,
    /// Fields that are left out.
    dropped: FieldSet,
    /// The peer is appended to the one line of `X-Forwarded-For`.
    appends: bool,
    rare: Option<Box<Rare>>,
}

/// Values of which most requests have none.
#[derive(Clone, Debug, Default)]
struct Rare {
    /// `X-Forwarded-For`, our peer included.
    chain: Option<Vec<u8>>,
    forwarded: Option<Vec<u8>>,
    /// The scheme that a trusted proxy names in `Forwarded`.
    scheme: Option<&'static str>,
}

impl ClientInfo {
    /// What the forwarded fields of a request become: `head` as it came in `buf`, for `host`, which is the
    /// `Host` that the backend gets. `is_trusted` tells the trusted proxies by their canonical addresses.
    pub fn resolve(
        &self,
        head: &RequestHead,
        buf: &[u8],
        host: &[u8],
        is_trusted: impl Fn(IpAddr) -> bool,
    ) -> Forwarding {
        let fields = &head.fields;
        let missing = REQUIRED.without(fields.present());
        let (set, dropped) = match self.trust() {
            Trust::Keep => (missing, FieldSet::EMPTY),
            Trust::Append => (missing, LOOKALIKES),
            Trust::Overwrite => (REQUIRED, UNBELIEVED),
        };
        let mut forwarding = Forwarding {
            info: *self,
            real_ip: self.text(),
            kept_real_ip: None,
            port: InlineText::default(),
            set,
            dropped,
            appends: false,
            rare: None,
        };
        if set.contains(KnownField::XForwardedPort) {
            forwarding.port = InlineText::of_number(self.local_port());
        }
        if !set.contains(KnownField::XRealIp) {
            let kept = fields.value(KnownField::XRealIp, buf);
            forwarding.kept_real_ip = kept.map(|value| Span::locate(buf, value));
        }
        if self.style().rfc_7239 {
            forwarding.set_forwarded(head, buf, host, &is_trusted);
        }
        if self.trust() == Trust::Append {
            forwarding.append_peer(head, buf, &is_trusted);
        }
        forwarding
    }
}

impl Forwarding {
    /// `Forwarded`, with our part behind what trusted proxies say. What they say there alone is taken over
    /// into `X-Forwarded-*`, and the other way round, so that both tell one story (RFC 7239 7.4).
    fn set_forwarded(
        &mut self,
        head: &RequestHead,
        buf: &[u8],
        host: &[u8],
        is_trusted: &impl Fn(IpAddr) -> bool,
    ) {
        let own = Own { peer: self.info.peer(), scheme: self.info.scheme(), host };
        let is_there = head.fields.present().contains(KnownField::Forwarded);
        let values = || head.fields.values(KnownField::Forwarded, buf);
        let (none, no_chain) = (std::iter::empty(), std::iter::empty());
        let value = match self.info.trust() {
            Trust::Keep if is_there => return,
            Trust::Keep | Trust::Overwrite => forwarded::extended(none, no_chain, own),
            Trust::Append => match forwarded::parse(values()).filter(|_| is_there) {
                Some(elements) => {
                    self.adopt(&elements, is_trusted);
                    forwarded::extended(values(), no_chain, own)
                }
                // Also in place of what cannot be read: where our part begins would be uncertain.
                None => {
                    let chain = head.fields.values(KnownField::XForwardedFor, buf);
                    let chain = chain.flat_map(|value| value.split(|byte| *byte == b','));
                    forwarded::extended(none, chain.map(address), own)
                }
            },
        };
        if let Some(value) = value {
            self.rare().forwarded = Some(value);
            self.set.insert(KnownField::Forwarded);
            self.dropped = self.dropped.without(FieldSet::of(&[KnownField::Forwarded]));
        }
    }

    /// Takes what `Forwarded` says over into the fields that are missing.
    fn adopt(&mut self, elements: &[Element], is_trusted: &impl Fn(IpAddr) -> bool) {
        if self.set.contains(KnownField::XForwardedFor) {
            let mut chain = Vec::new();
            for element in elements {
                match element.client.map(|client| self.info.style().write(client)) {
                    Some(client) => chain.extend_from_slice(client.as_bytes()),
                    None => chain.extend_from_slice(b"unknown"),
                }
                chain.extend_from_slice(b", ");
            }
            chain.extend_from_slice(self.info.address());
            self.rare().chain = Some(chain);
        }
        let of_client = forwarded::of_client(elements, is_trusted);
        self.rare().scheme = match of_client.and_then(|element| element.proto.as_deref()) {
            Some("http") => Some("http"),
            Some("https") => Some("https"),
            _ => None,
        };
    }

    /// Appends the peer, a trusted proxy, to `X-Forwarded-For`, and says who the client is where no proxy did.
    fn append_peer(
        &mut self,
        head: &RequestHead,
        buf: &[u8],
        is_trusted: &impl Fn(IpAddr) -> bool,
    ) {
        let mut values = head.fields.values(KnownField::XForwardedFor, buf);
        match (values.next(), values.next()) {
            (None, _) => {}
            (Some(_), None) => self.appends = true,
            (Some(first), Some(second)) => {
                let mut chain = Vec::new();
                for value in [first, second].into_iter().chain(values) {
                    chain.extend_from_slice(value);
                    chain.extend_from_slice(b", ");
                }
                chain.extend_from_slice(self.info.address());
                self.rare().chain = Some(chain);
                self.set.insert(KnownField::XForwardedFor);
            }
        }
        if self.set.contains(KnownField::XRealIp)
            && let Some(client) = self.client_address(head, buf, is_trusted)
        {
            self.real_ip = self.info.style().write(client);
        }
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// The `X-Real-IP` that the backend gets, for the access log. `buf` holds the request's head.
    pub fn real_ip<'a>(&'a self, buf: &'a [u8]) -> &'a [u8] {
        match self.kept_real_ip {
            Some(kept) => kept.of(buf),
            None => self.real_ip.as_bytes(),
        }
    }

    /// Whether the request came by HTTPS, by the `X-Forwarded-Proto` that the backend gets. Of a list, in one
    /// line or in several, the first item is valid: some proxies append to what they got, so that it is the
    /// client's side of the first of them.
    pub fn is_https(&self, head: &RequestHead, buf: &[u8]) -> bool {
        let value = match self.set.contains(KnownField::XForwardedProto) {
            true => Some(self.scheme().as_bytes()),
            false => head.fields.value(KnownField::XForwardedProto, buf),
        };
        value.is_some_and(|value| {
            let mut protos = value.split(|byte| *byte == b',');
            let proto = protos.next().unwrap_or_default().trim_ascii();
            proto.eq_ignore_ascii_case(b"https") || proto.eq_ignore_ascii_case(b"wss")
        })
    }

    /// Whether the request came by HTTPS: over our own connection, or over that to a proxy before us. Only a
    /// trusted proxy may say that an encrypted connection carries what came without encryption: else a client
    /// could be redirected for ever.
    pub fn came_by_https(&self, head: &RequestHead, buf: &[u8]) -> bool {
        let is_own = self.info.over_tls() && self.info.trust() != Trust::Append;
        is_own || self.is_https(head, buf)
    }

    /// The client's own address, for `allow`: of a peer that is a trusted proxy, the last address in
    /// `X-Forwarded-For` that is not one, since whatever stands before it is hearsay. The first when all are
    /// trusted; none when something else stands there.
    pub fn client_address(
        &self,
        head: &RequestHead,
        buf: &[u8],
        is_trusted: impl Fn(IpAddr) -> bool,
    ) -> Option<IpAddr> {
        let peer = self.info.peer();
        if self.info.trust() != Trust::Append || !is_trusted(peer) {
            return Some(peer);
        }
        match self.rare.as_ref().and_then(|rare| rare.chain.as_deref()) {
            Some(chain) => nearest_client([chain].into_iter(), peer, is_trusted),
            None => {
                let values = head.fields.values(KnownField::XForwardedFor, buf);
                nearest_client(values.rev(), peer, is_trusted)
            }
        }
    }

    /// The fields that the backend gets otherwise than they came.
    pub(super) fn changed(&self) -> FieldSet {
        let appended = match self.appends {
            true => FieldSet::of(&[KnownField::XForwardedFor]),
            false => FieldSet::EMPTY,
        };
        self.set.union(self.dropped).union(appended)
    }

    /// What becomes of a line of a [changed](Self::changed) field.
    pub(super) fn edit(&self, known: KnownField, is_first: bool) -> Edit<'_> {
        if self.set.contains(known) {
            if is_first { Edit::Replace(self.value(known)) } else { Edit::Drop }
        } else if self.dropped.contains(known) {
            Edit::Drop
        } else {
            Edit::Append(self.info.address())
        }
    }

    /// Adds the fields that have no line yet. `written` are those that have.
    pub(super) fn add(&self, writer: &mut HeadWriter<'_>, written: FieldSet) {
        let missing = self.set.without(written);
        for known in ADDED {
            if missing.contains(known) {
                writer.add(known, self.value(known));
            }
        }
    }

    /// The value of a field that is [set](Self::set).
    fn value(&self, known: KnownField) -> &[u8] {
        let rare = self.rare.as_deref();
        match known {
            KnownField::XForwardedFor => {
                rare.and_then(|rare| rare.chain.as_deref()).unwrap_or_else(|| self.info.address())
            }
            KnownField::XRealIp => self.real_ip.as_bytes(),
            KnownField::XForwardedProto | KnownField::XForwardedProtocol => {
                self.scheme().as_bytes()
            }
            KnownField::XForwardedPort => self.port.as_bytes(),
            KnownField::Forwarded => {
                rare.and_then(|rare| rare.forwarded.as_deref()).unwrap_or_default()
            }
            _ => &[],
        }
    }

    fn scheme(&self) -> &'static str {
        let adopted = self.rare.as_ref().and_then(|rare| rare.scheme);
        adopted.unwrap_or_else(|| self.info.scheme())
    }
}

/// Goes back in a chain of addresses, whose lines come last one first, from `client` on.
fn nearest_client<'a>(
    lines: impl Iterator<Item = &'a [u8]>,
    mut client: IpAddr,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    for item in lines.flat_map(|line| line.rsplit(|byte| *byte == b',')) {
        client = address(item)?;
        if !is_trusted(client) {
            break;
        }
    }
    Some(client)
}

#[cfg(test)]
mod tests;
