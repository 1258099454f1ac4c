//! What `options:<host>` asks of a request before a backend is chosen, and adds to its answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderValue, STRICT_TRANSPORT_SECURITY};
use http::{HeaderMap, Request, Response, StatusCode};

use super::body::ResponseBody;
use super::error::ProxyError;
use super::headers::Trust;
use super::{Client, Debugging, headers};
use crate::passwords::Verdict;
use crate::request_body::RequestBody;
use crate::route::Route;
use crate::route::options::{Options, User};

/// Longest `Authorization` that is looked at: user and password of a few hundred characters.
const MAX_CREDENTIALS: usize = 1024;

impl Client {
    /// Applies the options of a host to a request. In this order: nobody is asked for a password in
    /// plain text, and nobody whom `allow` keeps out learns anything else.
    pub(super) async fn obey(
        &self,
        options: &Options,
        route: &Route,
        request: &mut Request<RequestBody>,
        is_https: bool,
    ) -> Result<(), ProxyError> {
        if let Some(status) = options.https_redirect
            && !is_https
        {
            return Err(redirect(status, route, request));
        }
        if options.allow.is_some() && !options.allows(self.address(request.headers())) {
            return Err(ProxyError::NotAllowed);
        }
        if let Some(retry_after) = options.maintenance {
            return Err(ProxyError::Maintenance(retry_after));
        }
        if let Some(users) = &options.basic_auth {
            self.authenticate(users, request.headers()).await?;
        }
        let silence = options.read_timeout(self.settings.tcp_timeout);
        request.body_mut().restrict(silence, options.max_body);
        Ok(())
    }

    /// Whether the request came by HTTPS: over our own connection, or over that to a proxy before us.
    /// Only a proxy that is trusted may say that an encrypted connection carries what came without:
    /// else a client could be redirected for ever.
    pub(super) fn is_https(&self, headers: &HeaderMap) -> bool {
        let is_own = self.tls.is_some() && self.forwarded.trust() != Trust::Append;
        is_own || headers::is_https(headers)
    }

    /// The client's own address: behind trusted proxies, what the last of them says.
    fn address(&self, headers: &HeaderMap) -> Option<std::net::IpAddr> {
        let peer = headers::canonical(self.connection.peer.ip());
        let is_trusted = |address| self.settings.is_trusted(address);
        if is_trusted(peer) { headers::client_address(headers, is_trusted) } else { Some(peer) }
    }

    async fn authenticate(&self, users: &[User], headers: &HeaderMap) -> Result<(), ProxyError> {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (value, second) = (values.next(), values.next());
        let credentials = value.filter(|_| second.is_none()).and_then(basic_credentials);
        let Some((name, password)) = credentials else { return Err(ProxyError::Unauthorized) };
        match self.shared.passwords.check(users, &name, &password).await {
            Verdict::Right => Ok(()),
            Verdict::Wrong => Err(ProxyError::Unauthorized),
            Verdict::Busy => Err(ProxyError::PasswordsBusy),
        }
    }
}

fn redirect(status: u16, route: &Route, request: &Request<RequestBody>) -> ProxyError {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    // `OPTIONS *` is about no resource.
    let target = if target.starts_with('/') { target } else { "/" };
    let location = HeaderValue::try_from(format!("https://{}{target}", route.host));
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::PERMANENT_REDIRECT);
    match location {
        Ok(location) => ProxyError::HttpsOnly { status, location },
        Err(_invalid) => ProxyError::BadRequest("invalid request target"),
    }
}

/// User and password of `Authorization: Basic` (RFC 7617).
fn basic_credentials(value: &HeaderValue) -> Option<(Vec<u8>, Vec<u8>)> {
    let value = Some(value.as_bytes()).filter(|value| value.len() <= MAX_CREDENTIALS)?;
    let (scheme, encoded) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = STANDARD.decode(encoded.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (name, password) = decoded.split_at_checked(colon)?;
    Some((name.to_vec(), password.get(1..)?.to_vec()))
}

/// Adds what the options say of every answer of the host, ours included.
pub(super) fn add_headers(response: &mut Response<ResponseBody>, debugging: &Debugging) {
    let Some(options) = &debugging.options else { return };
    // RFC 6797 7.2: never over plain HTTP.
    if let Some(hsts) = options.hsts.as_deref().filter(|_| debugging.is_https)
        && let Ok(value) = HeaderValue::from_str(hsts)
    {
        response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, value);
    }
}

/// The cookie that brings a client back to the backend of `token`.
pub(super) fn sticky_cookie(name: &str, token: &str, is_https: bool) -> Option<HeaderValue> {
    let secure = if is_https { "; Secure" } else { "" };
    let cookie = format!("{name}={token}; Path=/; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::try_from(cookie).ok()
}

#[cfg(test)]
mod tests {
    use http::header::HeaderValue;
    use proptest::prelude::*;

    use super::basic_credentials;

    #[test]
    fn credentials_are_read_as_rfc_7617_writes_them() {
        for (value, expected) in [
            ("Basic bWU6c2VjcmV0", Some(("me", "secret"))),
            ("bAsIc  bWU6c2VjcmV0 ", Some(("me", "secret"))),
            ("Basic bWU6YTpi", Some(("me", "a:b"))),
            ("Basic Og==", Some(("", ""))),
            ("Basic bWU=", None),
            ("Basic !!", None),
            ("Basic", None),
            ("Bearer bWU6c2VjcmV0", None),
        ] {
            let read = basic_credentials(&HeaderValue::from_static(value));
            let expected = expected.map(|(name, password)| (name.into(), password.into()));
            assert_eq!(read, expected, "{value}");
        }
        let long = format!("Basic {}", "YTph".repeat(1000));
        assert_eq!(basic_credentials(&HeaderValue::try_from(long).unwrap()), None);
    }

    proptest! {
        #[test]
        fn no_value_panics(value in "(Basic )?[ -~]{0,40}") {
            let _credentials = basic_credentials(&HeaderValue::from_str(&value).unwrap());
        }
    }
}
