//! Drives the state machines of `router::http1` over bytes in memory, which are read in pieces that end at
//! given places. Shared by the fuzz targets and by the tests that compare it with other readers.

use router::http1::body::{Decoder, End, Output};
use router::http1::client::{self, Asked};
use router::http1::connection::HopByHop;
use router::http1::connection::Options;
use router::http1::encode::{Edit, HeadWriter, LAST_CHUNK, chunk_size, trailers};
use router::http1::error::{RequestError, ResponseError};
use router::http1::fields::Fields;
use router::http1::framing::{self, BodyKind};
use router::http1::head::{HeadLimits, Method, RequestHead, ResponseHead, Version};
use router::http1::known::KnownField;
use router::http1::server::{self, Accepted, Next, Phase};
use router::http1::target::Form;

/// The router's defaults.
pub(crate) const LIMITS: HeadLimits =
    HeadLimits { max_bytes: 80 * 1024, max_fields: 100, max_target: 65_534 };

/// Names as they came, and values.
pub(crate) type Lines = Vec<(String, Vec<u8>)>;

/// A whole request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// As it is sent to a backend.
    pub(crate) target: String,
    /// The authority of a URL, or else the value of `Host`.
    pub(crate) host: Vec<u8>,
    pub(crate) version: Version,
    pub(crate) fields: Lines,
    /// The content.
    pub(crate) body: Vec<u8>,
    /// As it is sent to a backend of HTTP/1.1.
    pub(crate) forwarded: Vec<u8>,
    /// The connection carries no other request.
    pub(crate) is_last: bool,
}

/// What came of a connection's bytes.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Reading {
    pub(crate) requests: Vec<Request>,
    /// The one behind them was refused.
    pub(crate) refused: Option<RequestError>,
    /// Bytes at the end that are no part of a body, and no whole request.
    pub(crate) rest: usize,
}

fn lines(fields: &Fields, buf: &[u8]) -> Lines {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("names are ASCII");
    fields
        .iter()
        .map(|field| (text(field.name().of(buf)), field.value().of(buf).to_vec()))
        .collect()
}

/// Writes the head of a request for a backend, as the proxy does with most of them.
fn forward(head: &RequestHead, buf: &[u8], accepted: &Accepted, out: &mut Vec<u8>) {
    let hops = HopByHop::new(&head.fields, buf, accepted.options);
    let method = head.method_text.of(buf);
    let authority = head.target.authority().of(buf);
    let mut writer = HeadWriter::request(out, method, &head.target, buf, accepted.body);
    writer.fields(&head.fields, buf, |field| match field.known {
        KnownField::Host if head.target.form == Form::Absolute => Edit::Replace(authority),
        _ if hops.contains(field) => Edit::Drop,
        _ => Edit::Keep,
    });
    writer.end();
}

/// Reads every request, each of which is answered at once with an empty response.
pub(crate) fn read_requests(bytes: &[u8], cuts: &[usize]) -> Reading {
    let mut reading = Reading::default();
    let mut connection = server::Connection::default();
    let mut head = RequestHead::default();
    let mut current: Option<Request> = None;
    let mut start = 0;
    for end in cuts.iter().copied().filter(|cut| *cut <= bytes.len()).chain([bytes.len()]) {
        loop {
            let buf = bytes.get(start..end).unwrap_or_default();
            if let Some(mut request) = current.take() {
                match read_body(&mut connection, buf, &mut request) {
                    Ok((consumed, is_whole)) => {
                        start += consumed;
                        if !is_whole {
                            current = Some(request);
                            break;
                        }
                    }
                    Err(error) => {
                        reading.refused = Some(error);
                        return reading;
                    }
                }
                let plan = connection.begin_response(200, BodyKind::Length(0));
                let next = connection.end_response();
                assert_eq!(next == Next::Close, plan.connection == Some("close"));
                request.is_last = next != Next::Request;
                let is_last = request.is_last;
                reading.requests.push(request);
                if is_last {
                    return reading;
                }
                assert_eq!(connection.phase(), Phase::Idle);
                continue;
            }
            match connection.read_head(buf, &mut head, &LIMITS) {
                Ok(server::HeadStep::Incomplete(blank)) => {
                    assert!(blank <= buf.len());
                    start += blank;
                    break;
                }
                Ok(server::HeadStep::Complete(accepted)) => {
                    assert!(accepted.consumed <= buf.len());
                    current = Some(begin(&head, buf, &accepted));
                    start += accepted.consumed;
                }
                Err(error) => {
                    let plan = connection.begin_response(error.status(), BodyKind::Length(0));
                    assert_eq!(plan.connection, Some("close"));
                    assert_eq!(connection.end_response(), Next::Discard);
                    reading.refused = Some(error);
                    return reading;
                }
            }
        }
    }
    reading.rest = bytes.len() - start;
    reading
}

fn begin(head: &RequestHead, buf: &[u8], accepted: &Accepted) -> Request {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("checked to be ASCII");
    let mut target = Vec::new();
    head.target.write(buf, &mut target);
    let authority = head.target.authority().of(buf);
    let host = head.fields.value(KnownField::Host, buf).expect("there is one host");
    let mut forwarded = Vec::new();
    forward(head, buf, accepted, &mut forwarded);
    Request {
        method: text(head.method_text.of(buf)),
        target: text(&target),
        host: if authority.is_empty() { host } else { authority }.to_vec(),
        version: head.version,
        fields: lines(&head.fields, buf),
        body: Vec::new(),
        forwarded,
        is_last: false,
    }
}

/// Returns the bytes that were consumed, and whether the body is over.
fn read_body(
    connection: &mut server::Connection,
    buf: &[u8],
    request: &mut Request,
) -> Result<(usize, bool), RequestError> {
    let mut consumed = 0;
    while connection.awaits_body() {
        let input = buf.get(consumed..).unwrap_or_default();
        if input.is_empty() {
            return Ok((consumed, false));
        }
        let decoded = connection.read_body(input, Output::Chunks)?;
        assert!(decoded.consumed() > 0, "no progress");
        consumed += decoded.consumed();
        request.forwarded.extend_from_slice(decoded.data(input));
        if decoded.end == End::Trailers {
            trailers(&mut request.forwarded, connection.body().trailers());
        }
    }
    request.body = content(&request.forwarded);
    Ok((consumed, true))
}

/// The content of a request that was written for a backend.
fn content(forwarded: &[u8]) -> Vec<u8> {
    let mut connection = server::Connection::default();
    let mut head = RequestHead::default();
    let step = connection.read_head(forwarded, &mut head, &LIMITS).expect("what is sent is valid");
    let server::HeadStep::Complete(accepted) = step else { panic!("what is sent is complete") };
    let mut rest = forwarded.get(accepted.consumed..).unwrap_or_default();
    let mut content = Vec::new();
    while connection.awaits_body() {
        let decoded = connection.read_body(rest, Output::Content).expect("what is sent is valid");
        assert!(decoded.consumed() > 0, "what is sent is complete");
        content.extend_from_slice(decoded.data(rest));
        rest = rest.get(decoded.consumed()..).unwrap_or_default();
    }
    assert!(rest.is_empty(), "nothing is behind it");
    content
}

/// A whole response.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) fields: Lines,
    /// The content.
    pub(crate) body: Vec<u8>,
    /// How the connection ended.
    pub(crate) reuse: client::Reuse,
}

/// Reads the response of a backend that closes behind `bytes`. `None` is an upgrade, or a response of which
/// a part is missing.
pub(crate) fn read_response(
    method: Method,
    bytes: &[u8],
    cuts: &[usize],
) -> Result<Option<Response>, ResponseError> {
    let mut connection = client::Connection::default();
    connection.begin(Asked { method, close: false, upgrade: true });
    connection.wrote(1, true);
    let mut head = ResponseHead::default();
    let mut response: Option<Response> = None;
    let mut start = 0;
    for end in cuts.iter().copied().filter(|cut| *cut <= bytes.len()).chain([bytes.len()]) {
        while start < end && !connection.is_over() {
            let buf = bytes.get(start..end).unwrap_or_default();
            if let Some(response) = &mut response {
                let decoded = connection.read_body(buf, Output::Content)?;
                assert!(decoded.consumed() > 0 || decoded.end != End::No, "no progress");
                response.body.extend_from_slice(decoded.data(buf));
                start += decoded.consumed();
                continue;
            }
            match connection.read_head(buf, &mut head, &LIMITS)? {
                client::HeadStep::Incomplete => break,
                client::HeadStep::Informational(length) => start += length,
                client::HeadStep::Switch(_) => return Ok(None),
                client::HeadStep::Response(received) => {
                    start += received.consumed;
                    let reuse = client::Reuse::No(client::NoReuse::NotOver);
                    let fields = lines(&head.fields, buf);
                    let status = head.status;
                    response = Some(Response { status, fields, body: Vec::new(), reuse });
                }
            }
        }
    }
    if !connection.is_over() {
        connection.end_of_input()?;
    }
    let reuse = connection.finish(start < bytes.len());
    Ok(response.map(|response| Response { reuse, ..response }))
}

/// What a client gets of a backend's response, whose connection ends behind `bytes`, and whether the client's
/// connection is reset then. The request is empty.
pub(crate) fn relay_response(
    request: &str,
    bytes: &[u8],
) -> Result<(Vec<u8>, Next), ResponseError> {
    let mut client = server::Connection::default();
    let mut request_head = RequestHead::default();
    let step = client.read_head(request.as_bytes(), &mut request_head, &LIMITS);
    assert!(matches!(step, Ok(server::HeadStep::Complete(_))), "{request:?}: {step:?}");
    let mut head = ResponseHead::default();
    let length = head.parse(bytes, &LIMITS)?.ok_or(ResponseError::HeadCut)?;
    if head.status < 200 {
        return Err(ResponseError::SwitchNotAsked);
    }
    let framing = framing::of_response(&head, bytes, request_head.method)?;
    let plan = client.begin_response(head.status, framing.body);
    let mut out = Vec::new();
    let reason = head.reason.of(bytes);
    let mut writer = HeadWriter::response(&mut out, head.status, reason, plan.announce);
    let hops = HopByHop::new(&head.fields, bytes, Options::of(&head.fields, bytes));
    writer.fields(&head.fields, bytes, |field| match hops.contains(field) {
        true => Edit::Drop,
        false => Edit::Keep,
    });
    if let Some(connection) = plan.connection {
        writer.add(KnownField::Connection, connection.as_bytes());
    }
    writer.end();
    let mut decoder = Decoder::new(framing.body);
    let mut rest = bytes.get(length..).unwrap_or_default();
    while !decoder.is_done() && !rest.is_empty() {
        let Ok(decoded) = decoder.decode(rest, plan.output) else { break };
        let data = decoded.data(rest);
        match chunk_size(data.len()).filter(|_| plan.makes_chunks) {
            None => out.extend_from_slice(data),
            Some(size) => {
                for part in [size.as_bytes(), data, b"\r\n"] {
                    out.extend_from_slice(part);
                }
            }
        }
        if decoded.end == End::Trailers && plan.output == Output::Chunks {
            trailers(&mut out, decoder.trailers());
        }
        rest = rest.get(decoded.consumed()..).unwrap_or_default();
    }
    if decoder.end_of_connection().is_err() {
        return Ok((out, client.cut_response()));
    }
    if plan.makes_chunks {
        out.extend_from_slice(LAST_CHUNK);
    }
    Ok((out, client.end_response()))
}
