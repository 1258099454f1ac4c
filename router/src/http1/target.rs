//! Request targets (RFC 9112 3.2).

use super::error::RequestError;
use super::fields::Span;
use super::head::Method;

/// The forms of a request target.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Form {
    /// A URL; its authority takes the place of the `Host` (RFC 9112 3.2.2).
    Absolute,
    /// `*`, for OPTIONS only (RFC 9112 3.2.4).
    Asterisk,
    /// Host and port, for CONNECT only (RFC 9112 3.2.3). Not parsed: the router never dials what a client names.
    Authority,
    /// Path and query (RFC 9112 3.2.1).
    #[default]
    Origin,
}

/// A request target.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Target {
    /// Its form.
    pub form: Form,
    authority: Span,
    path: Span,
    /// What to write before the path: nothing, the slash of an empty one, or the asterisk that stands for
    /// none.
    prefix: Prefix,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Prefix {
    Asterisk,
    #[default]
    None,
    Slash,
}

impl Target {
    /// Reads the target at `text`. Any visible character of ASCII may be in it, also those that RFC 3986
    /// wants encoded: applications take them. A fragment is the client's own (RFC 9110 7.1) and cut off.
    pub(super) fn parse(buf: &[u8], text: Span, method: Method) -> Result<Self, RequestError> {
        let bytes = text.of(buf);
        // `httparse` has seen to blanks and control characters.
        if !bytes.is_ascii() {
            return Err(RequestError::Target);
        }
        if method == Method::Connect {
            let form = Form::Authority;
            return Ok(Self { form, authority: text, path: text, prefix: Prefix::None });
        }
        let end = match memchr::memchr(b'#', bytes) {
            Some(at) => text.start() + at,
            None => text.end(),
        };
        match bytes {
            [b'/', ..] => Ok(Self { path: Span::new(text.start(), end), ..Self::default() }),
            b"*" if method == Method::Options => {
                Ok(Self { form: Form::Asterisk, path: text, ..Self::default() })
            }
            _ => {
                let scheme = scheme_len(bytes).ok_or(RequestError::Target)?;
                Self::absolute(buf, Span::new(text.start() + scheme, end), method)
            }
        }
    }

    /// Reads what follows the scheme of a URL.
    fn absolute(buf: &[u8], text: Span, method: Method) -> Result<Self, RequestError> {
        let bytes = text.of(buf);
        let length = memchr::memchr2(b'/', b'?', bytes).unwrap_or(bytes.len());
        let authority = bytes.get(..length).unwrap_or_default();
        // User and password are the client's own, too (RFC 9110 4.2.4).
        let address = memchr::memrchr(b'@', authority).map_or(0, |at| at + 1);
        if address == length {
            return Err(RequestError::Target);
        }
        let path = Span::new(text.start() + length, text.end());
        let prefix = match bytes.get(length) {
            Some(b'/') => Prefix::None,
            // RFC 9112 3.2.4: a URL without path and query stands for the server as a whole.
            None if method == Method::Options => Prefix::Asterisk,
            _ => Prefix::Slash,
        };
        let authority = Span::new(text.start() + address, text.start() + length);
        Ok(Self { form: Form::Absolute, authority, path, prefix })
    }

    /// Host and port of a URL, or what a CONNECT names; else empty.
    pub fn authority(&self) -> Span {
        self.authority
    }

    /// Path and query as they came, or what a CONNECT names. [`write`](Self::write) writes what is sent on.
    pub fn path(&self) -> Span {
        self.path
    }

    /// Writes the target in the form for an origin server: path and query, or `*`.
    pub fn write(&self, buf: &[u8], out: &mut Vec<u8>) {
        match self.prefix {
            Prefix::None => {}
            Prefix::Slash => out.push(b'/'),
            Prefix::Asterisk => out.push(b'*'),
        }
        out.extend_from_slice(self.path.of(buf));
    }
}

/// The length of `http://` or `https://`, in any case.
fn scheme_len(bytes: &[u8]) -> Option<usize> {
    let begins = |scheme: &[u8]| {
        bytes.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    [&b"http://"[..], b"https://"].into_iter().find(|scheme| begins(scheme)).map(<[u8]>::len)
}

#[cfg(test)]
mod tests {
    use super::{Form, Target};
    use crate::http1::error::RequestError;
    use crate::http1::fields::Span;
    use crate::http1::head::Method;

    fn read(method: Method, text: &str) -> Result<(Form, String, String), RequestError> {
        let buf = format!("before{text}");
        let target = Target::parse(buf.as_bytes(), Span::new(6, buf.len()), method)?;
        let mut written = Vec::new();
        target.write(buf.as_bytes(), &mut written);
        let authority = String::from_utf8(target.authority().of(buf.as_bytes()).to_vec()).unwrap();
        Ok((target.form, authority, String::from_utf8(written).unwrap()))
    }

    /// RFC 9112 3.2.1 to 3.2.4.
    #[test]
    fn targets_are_written_in_the_form_for_an_origin_server() {
        use Form::{Absolute, Asterisk, Origin};
        use Method::{Get, Options};
        for (method, text, form, authority, written) in [
            (Get, "/", Origin, "", "/"),
            (Get, "/a?b=c", Origin, "", "/a?b=c"),
            (Get, "/a?filter={\"a\":1}|<>^`\\", Origin, "", "/a?filter={\"a\":1}|<>^`\\"),
            (Get, "/a#b?c", Origin, "", "/a"),
            (Get, "//a.test/b", Origin, "", "//a.test/b"),
            (Options, "*", Asterisk, "", "*"),
            (Options, "/", Origin, "", "/"),
            (Options, "http://a.test", Absolute, "a.test", "*"),
            (Options, "http://a.test#f", Absolute, "a.test", "*"),
            (Options, "http://a.test/", Absolute, "a.test", "/"),
            (Options, "http://a.test?q", Absolute, "a.test", "/?q"),
            (Get, "http://a.test", Absolute, "a.test", "/"),
            (Get, "HTTPS://A.test:81/p?q#f", Absolute, "A.test:81", "/p?q"),
            (Get, "http://a.test#f", Absolute, "a.test", "/"),
            (Get, "http://a.test?q", Absolute, "a.test", "/?q"),
            (Get, "http://u:p@a.test/", Absolute, "a.test", "/"),
            (Get, "http://u@v@a.test/x@y", Absolute, "a.test", "/x@y"),
        ] {
            let expected = (form, authority.to_owned(), written.to_owned());
            assert_eq!(read(method, text), Ok(expected), "{text}");
        }
        let authority = "a.test:443".to_owned();
        let expected = (Form::Authority, authority.clone(), authority.clone());
        assert_eq!(read(Method::Connect, &authority), Ok(expected));
    }

    #[test]
    fn what_is_in_no_form_is_refused() {
        for (method, text) in [
            (Method::Get, "*"),
            (Method::Get, "a.test:80"),
            (Method::Get, "a.test/"),
            (Method::Get, "?q"),
            (Method::Get, "#f"),
            (Method::Get, "ftp://a.test/"),
            (Method::Get, "http:/a.test/"),
            (Method::Get, "http://"),
            (Method::Get, "http:///a"),
            (Method::Get, "http://u@/a"),
            (Method::Get, "/\u{e4}"),
            (Method::Options, "*#"),
            (Method::Options, "**"),
        ] {
            assert_eq!(read(method, text), Err(RequestError::Target), "{text}");
        }
    }
}
