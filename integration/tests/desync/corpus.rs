//! The corpus: each class of doubtful framing and routing, then classes combined, then all of it damaged
//! in single bytes. The same seed gives the same corpus.

use std::fmt;

use fastrand::Rng;

/// What a client sends on one connection.
pub(crate) struct Variant {
    pub(crate) bytes: Vec<u8>,
}

impl fmt::Debug for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.bytes.escape_ascii())
    }
}

/// Header lines that say, or seem to say, where a body ends. `{n}` is the length of what follows.
const FRAMINGS: &[&str] = &[
    "",
    "Content-Length: {n}\r\n",
    "Content-Length: 0\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: +{n}\r\n",
    "Content-Length: -1\r\n",
    "Content-Length: 0x{n}\r\n",
    "Content-Length: {n}.0\r\n",
    "Content-Length: {n} {n}\r\n",
    "Content-Length: {n}, {n}\r\n",
    "Content-Length: {n},0\r\n",
    "Content-Length:\r\n",
    "Content-Length: 00{n}\r\n",
    "Content-Length: 18446744073709551616\r\n",
    "Content-Length: {n}\r\nContent-Length: {n}\r\n",
    "Content-Length: {n}\r\nContent-Length: 0\r\n",
    "Content-Length: 0\r\nContent-Length: {n}\r\n",
    "Content-Length : {n}\r\n",
    " Content-Length: {n}\r\n",
    "Content-Length\t: {n}\r\n",
    "Content_Length: {n}\r\n",
    "content-length:{n}\r\n",
    "Content-Length: \t{n}\t \r\n",
    "Content-Length:\x0b{n}\r\n",
    "Content-Length: {n}\n",
    "X: y\nContent-Length: {n}\r\n",
    "X: y\rContent-Length: {n}\r\n",
    "X: y\r\n Content-Length: {n}\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: CHUNKED\r\n",
    "transfer-encoding:chunked\r\n",
    "Transfer-Encoding: \tchunked \r\n",
    "Transfer-Encoding: xchunked\r\n",
    "Transfer-Encoding: chunked, identity\r\n",
    "Transfer-Encoding: identity, chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: deflate\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    "Transfer-Encoding: chunked, chunked\r\n",
    "Transfer-Encoding: ,chunked\r\n",
    "Transfer-Encoding: chunked,\r\n",
    "Transfer-Encoding: \"chunked\"\r\n",
    "Transfer-Encoding: chunked;q=1\r\n",
    "Transfer-Encoding:\x0bchunked\r\n",
    "Transfer-Encoding: chunked\x00\r\n",
    "Transfer-Encoding:\r\n chunked\r\n",
    "Transfer-Encoding\r\n: chunked\r\n",
    "Transfer-Encoding : chunked\r\n",
    " Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\n",
    "X: y\nTransfer-Encoding: chunked\r\n",
    "X: y\rTransfer-Encoding: chunked\r\n",
    "X: y\r\n\tTransfer-Encoding: chunked\r\n",
    "Transfer_Encoding: chunked\r\n",
    "Transfer-Encoding: chun\u{212a}ed\r\n",
    "Transfer-Encoding:\r\n",
    "Content-Length: {n}\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: {n}\r\n",
    "Content-Length: 3\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    "Content-Length: x\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: x\r\n",
    "Content-Length: {n}\r\nTransfer-Encoding: identity\r\n",
    "Content-Length: {n}\r\nTransfer-Encoding: xchunked\r\n",
    "Connection: content-length\r\nContent-Length: {n}\r\n",
    "Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n",
    "Connection: close\r\nContent-Length: {n}\r\n",
    "Expect: 100-continue\r\nContent-Length: {n}\r\n",
    "Connection: upgrade\r\nUpgrade: websocket\r\n",
    "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: {n}\r\n",
    "Connection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n",
    "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n",
];

/// Bodies, of which some are chunked, well or badly. `{smuggled}` is a whole request.
const BODIES: &[&str] = &[
    "",
    "abc",
    "{smuggled}",
    "0\r\n\r\n",
    "3\r\nabc\r\n0\r\n\r\n",
    "3\r\nabc\r\n0\r\n\r\n{smuggled}",
    "3;x=y\r\nabc\r\n0;z\r\n\r\n",
    "3 \r\nabc\r\n0\r\n\r\n",
    "3 ;x\r\nabc\r\n0\r\n\r\n",
    "03\r\nabc\r\n00\r\n\r\n",
    "3\r\nabc\r\n0\r\nT: 1\r\n\r\n",
    "3\r\nabc\r\n0\r\nContent-Length: 9\r\nHost: evil\r\n\r\n",
    "3\r\nabc\r\n0\r\nno colon\r\n\r\n",
    "3\r\nabc\r\n0\r\n folded: 1\r\n\r\n",
    "3\r\nabc\r\n0\r\nT: 1\n\r\n",
    "3\r\nabc\r\n0\r\nT: 1\n\n{smuggled}",
    "3\nabc\n0\n\n",
    "3\r\nabc\n0\r\n\r\n",
    "3\r\nabc\r\n0\n\n",
    "3\r\nabc\r\n0\r\n\n",
    "3\r\nabcd\r\n0\r\n\r\n",
    "3\r\nab\r\n0\r\n\r\n",
    "3;a\nb\r\nabc\r\n0\r\n\r\n",
    "3;a\rb\r\nabc\r\n0\r\n\r\n",
    "3\r\r\nabc\r\n0\r\n\r\n",
    "0x3\r\nabc\r\n0\r\n\r\n",
    "+3\r\nabc\r\n0\r\n\r\n",
    "-3\r\nabc\r\n0\r\n\r\n",
    " 3\r\nabc\r\n0\r\n\r\n",
    "3_0\r\nabc\r\n0\r\n\r\n",
    "\r\n3\r\nabc\r\n0\r\n\r\n",
    ";x\r\nabc\r\n0\r\n\r\n",
    "g\r\nabc\r\n0\r\n\r\n",
    "10000000000000003\r\nabc\r\n0\r\n\r\n",
    "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "ffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "3\r\nabc\r\n",
    "3\r\nabc\r\n0\r\n",
    "5\r\nabc",
    "0\r\n{smuggled}",
    "{\"json\":\n1}\n",
];

/// Request lines. `{t}` is the target.
const LINES: &[&str] = &[
    "POST {t} HTTP/1.1",
    "GET {t} HTTP/1.1",
    "PUT {t} HTTP/1.1",
    "DELETE {t} HTTP/1.1",
    "OPTIONS {t} HTTP/1.1",
    "BREW {t} HTTP/1.1",
    "POST {t} HTTP/1.0",
    "GET http://a.test{t} HTTP/1.1",
    "GET {t}#x HTTP/1.1",
    "CONNECT a.test:80 HTTP/1.1",
    "TRACE {t} HTTP/1.1",
    "PRI * HTTP/2.0",
    "GET {t} HTTP/1.2",
    "GET {t} HTTP/0.9",
    "GET {t} HTTP/2.0",
    "GET {t} http/1.1",
    "GET {t}",
    "GET  {t} HTTP/1.1",
    "GET {t}  HTTP/1.1",
    "GET {t} HTTP/1.1 ",
    " GET {t} HTTP/1.1",
    "GET\t{t} HTTP/1.1",
    "GET {t} x HTTP/1.1",
    "G\u{e4}T {t} HTTP/1.1",
    "GET {t}\u{e4} HTTP/1.1",
    "GET {t}\0 HTTP/1.1",
    "GET a.test{t} HTTP/1.1",
    "GET //a.test{t} HTTP/1.1",
    "GET ftp://a.test{t} HTTP/1.1",
    "GET {t} HTTP/1.1\r\nX: y\r\n\r\nGET {t} HTTP/1.1",
];

/// Hosts and header lines of other kinds.
const HEADERS: &[&str] = &[
    "Host: a.test\r\n",
    "host:a.test\r\n",
    "Host: A.Test:80\r\n",
    "Host: a.test\r\nHost: b.test\r\n",
    "Host: a.test\r\nHost: a.test\r\n",
    "Host: a.test, b.test\r\n",
    "Host: a.test/b\r\n",
    "Host: x@a.test\r\n",
    "Host: a.test:99999\r\n",
    "Host: a test\r\n",
    "Host : a.test\r\n",
    "Host:\r\n",
    "X: y\r\n",
    " Host: a.test\r\n",
    "X: y\r\nHost: a.test\r\n",
    "X: y\r\n Host: b.test\r\nHost: a.test\r\n",
    "X: a\0b\r\nHost: a.test\r\n",
    "X: a\rb\r\nHost: a.test\r\n",
    "X: a\nHost: a.test\r\n",
    "X\u{e9}: y\r\nHost: a.test\r\n",
    ": y\r\nHost: a.test\r\n",
    "no colon\r\nHost: a.test\r\n",
    "X Y: z\r\nHost: a.test\r\n",
    "Connection: close\r\nHost: a.test\r\n",
    "Connection: host, content-length, transfer-encoding\r\nHost: a.test\r\n",
    "Connection: keep-alive\r\nHost: a.test\r\n",
    "TE: trailers\r\nConnection: TE\r\nHost: a.test\r\n",
    "\r\nHost: a.test\r\n",
];

/// Bytes that programs disagree about.
const DAMAGE: &[u8] = b"\r\n\0 \t:;,0fx\x0b\x0c\x7f\xff";

struct Parts<'a> {
    line: &'a str,
    headers: &'a str,
    framing: &'a str,
    body: &'a str,
}

const PLAIN: Parts<'static> =
    Parts { line: LINES[0], headers: HEADERS[0], framing: FRAMINGS[1], body: BODIES[1] };

/// One request of variant `number`, and a second one behind it.
fn build(number: usize, parts: &Parts<'_>) -> Vec<u8> {
    let smuggled = format!("GET /v{number}/smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let body = parts.body.replace("{smuggled}", &smuggled);
    let framing = parts.framing.replace("{n}", &body.len().to_string());
    let line = parts.line.replace("{t}", &format!("/v{number}/first"));
    let Parts { headers, .. } = parts;
    let last = format!("GET /v{number}/last HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n");
    format!("{line}\r\n{headers}{framing}\r\n{body}{last}").into_bytes()
}

pub(crate) fn generate(seed: u64, count: u64) -> Vec<Variant> {
    let count = usize::try_from(count).expect("fits");
    let mut variants: Vec<Variant> = Vec::with_capacity(count);
    let add = |variants: &mut Vec<Variant>, parts: &Parts<'_>| {
        let bytes = build(variants.len(), parts);
        variants.push(Variant { bytes });
    };
    for line in LINES {
        add(&mut variants, &Parts { line, ..PLAIN });
    }
    for headers in HEADERS {
        add(&mut variants, &Parts { headers, ..PLAIN });
    }
    for framing in FRAMINGS {
        for body in BODIES {
            add(&mut variants, &Parts { framing, body, ..PLAIN });
        }
    }
    let mut rng = Rng::with_seed(seed);
    while variants.len() < count {
        // Two thirds of the parts are good ones, so that most variants have one or two flaws.
        let choose = |rng: &mut Rng, list: &[&'static str], good: usize| match rng.u8(..3) {
            0 => list[rng.usize(..list.len())],
            _ => list[rng.usize(..good)],
        };
        let mut parts = Parts {
            line: choose(&mut rng, LINES, 9),
            headers: choose(&mut rng, HEADERS, 3),
            framing: choose(&mut rng, FRAMINGS, 3),
            body: choose(&mut rng, BODIES, 3),
        };
        if rng.bool() {
            parts.framing = "Transfer-Encoding: chunked\r\n";
            parts.body = BODIES[rng.usize(3..BODIES.len())];
        }
        let mut bytes = build(variants.len(), &parts);
        for _ in 0..rng.usize(..3) {
            damage(&mut rng, variants.len(), &mut bytes);
        }
        variants.push(Variant { bytes });
    }
    variants
}

/// Changes, adds or removes a byte, or cuts the end off, but leaves the number of the variant alone.
fn damage(rng: &mut Rng, number: usize, bytes: &mut Vec<u8>) {
    let number = format!("/v{number}/");
    let is_number = |at: usize| {
        let around = at.saturating_sub(number.len() - 1)..(at + number.len()).min(bytes.len());
        bytes[around].windows(number.len()).any(|window| window == number.as_bytes())
    };
    let at = rng.usize(..bytes.len());
    if is_number(at) {
        return;
    }
    let byte = DAMAGE[rng.usize(..DAMAGE.len())];
    match rng.u8(..16) {
        0 => bytes.truncate(at.max(1)),
        1..6 => bytes[at] = byte,
        6..11 => bytes.insert(at, byte),
        _ => drop(bytes.remove(at)),
    }
    if bytes.is_empty() {
        bytes.push(byte);
    }
}
