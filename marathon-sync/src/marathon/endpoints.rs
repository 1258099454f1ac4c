//! Where Marathon is: URLs, the order in which they are tried, and which hosts are trusted. Pure.

use std::fmt;

use percent_encoding::percent_decode_str;
use shared::secret::Secret;
use thiserror::Error;
use url::Url;

use super::auth::Basic;

/// Marathon's list of apps, below its base path.
const APPS: &str = "/v2/apps";

/// One Marathon, or what stands before it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Without user, password, query and fragment; the path does not end with a slash.
    base: Url,
    /// Path of the list of apps, where it is not [`APPS`] below `base`.
    apps_path: Option<String>,
    /// What stood before the `@`.
    login: Option<Basic>,
}

/// Why an address is not one of Marathon. Texts never contain passwords.
#[derive(Debug, Error)]
pub enum EndpointError {
    /// The path of the apps is not one.
    #[error("the apps path {0:?} does not begin with a slash; write for example /v2/apps")]
    AppsPath(String),
    /// No address at all.
    #[error("no Marathon given; name at least one, for example http://marathon.example.com:8080")]
    Missing,
    /// A query or fragment, which cannot be a part of a base.
    #[error("{0}: a Marathon's address ends with its path; take away what follows `?` or `#`")]
    Query(String),
    /// Not `http://` or `https://`.
    #[error("{0}: Marathon's address begins with http:// or https://")]
    Scheme(String),
    /// Not an URL.
    #[error("{text}: not an URL")]
    Url {
        /// What was written, without passwords.
        text: String,
        /// What is wrong with it.
        source: url::ParseError,
    },
}

impl Endpoint {
    /// Reads `http[s]://[user:password@]host[:port][/base/path]`.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        let shown = without_password(text);
        // Else `marathon:8080` would be an URL of the scheme "marathon".
        if !["http://", "https://"].iter().any(|scheme| {
            text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        }) {
            return Err(EndpointError::Scheme(shown));
        }
        let mut base = Url::parse(text)
            .map_err(|source| EndpointError::Url { text: shown.clone(), source })?;
        if base.query().is_some() || base.fragment().is_some() {
            return Err(EndpointError::Query(shown));
        }
        let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let login = (!base.username().is_empty() || base.password().is_some()).then(|| Basic {
            user: decoded(base.username()),
            password: Secret::new(decoded(base.password().unwrap_or_default())),
        });
        strip_user(&mut base);
        let path = base.path().trim_end_matches('/').to_owned();
        base.set_path(&path);
        Ok(Self { base, apps_path: None, login })
    }

    /// With the bridge's `-P`: an absolute path that takes the place of the URL's own. One that
    /// ends with `/v2/apps` says the base path of everything else too.
    pub fn with_apps_path(mut self, path: &str) -> Result<Self, EndpointError> {
        if !path.starts_with('/') || path.contains(['?', '#']) {
            return Err(EndpointError::AppsPath(path.to_owned()));
        }
        let path = path.trim_end_matches('/');
        match path.strip_suffix(APPS) {
            Some(base) => self.base.set_path(base),
            None => self.apps_path = Some(path.to_owned()),
        }
        Ok(self)
    }

    /// The URL of `path`, which begins with a slash, below the base path.
    pub fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url
    }

    /// The URL of the list of apps, without a query.
    pub fn apps_url(&self) -> Url {
        let Some(path) = &self.apps_path else {
            return self.url(APPS);
        };
        let mut url = self.base.clone();
        url.set_path(path);
        url
    }

    /// The URL of one app. `None`: `id` is nothing that Marathon calls an app.
    pub fn app_url(&self, id: &str) -> Option<Url> {
        let mut url = self.apps_url();
        let is_plain = |part: &str| !matches!(part, "" | "." | "..");
        let parts = || id.split('/').skip(1);
        if !id.starts_with('/') || !parts().all(is_plain) {
            return None;
        }
        // Whatever is in them, it stays within the path.
        let mut path = url.path_segments_mut().ok()?;
        let _path = path.pop_if_empty().extend(parts());
        drop(path);
        Some(url)
    }

    /// The URL of the definition of one app in an earlier version. `None`: that cannot be one.
    pub fn version_url(&self, id: &str, version: &str) -> Option<Url> {
        if matches!(version, "" | "." | "..") {
            return None;
        }
        let mut url = self.app_url(id)?;
        let mut path = url.path_segments_mut().ok()?;
        let _path = path.extend(["versions", version]);
        drop(path);
        Some(url)
    }

    /// User and password of the URL.
    pub fn login(&self) -> Option<&Basic> {
        self.login.as_ref()
    }

    /// Whether the connection is protected by TLS.
    pub fn is_https(&self) -> bool {
        self.base.scheme() == "https"
    }

    fn authority(&self) -> Option<Authority> {
        Authority::of(&self.base)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.base.as_str().trim_end_matches('/'))
    }
}

/// Every configured Marathon, at least one.
#[derive(Clone, Debug)]
pub struct Endpoints(Vec<Endpoint>);

impl Endpoints {
    /// In the order in which they were written.
    pub fn new(list: Vec<Endpoint>) -> Result<Self, EndpointError> {
        if list.is_empty() { Err(EndpointError::Missing) } else { Ok(Self(list)) }
    }

    /// Reads them all. `apps_path` is the bridge's `-P`.
    pub fn parse<T: AsRef<str>>(
        texts: &[T],
        apps_path: Option<&str>,
    ) -> Result<Self, EndpointError> {
        let parse = |text: &T| {
            let endpoint = Endpoint::parse(text.as_ref())?;
            match apps_path {
                Some(path) => endpoint.with_apps_path(path),
                None => Ok(endpoint),
            }
        };
        Self::new(texts.iter().map(parse).collect::<Result<_, _>>()?)
    }

    /// Each one once with its index, beginning with number `first`, which may be any number.
    pub fn order_from(&self, first: usize) -> impl Iterator<Item = (usize, &Endpoint)> {
        let length = self.0.len();
        self.0.iter().enumerate().cycle().skip(first % length).take(length)
    }

    /// How many there are, at least one.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Each one once, as written.
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.0.iter()
    }

    /// Where an answer of `from` that asked for `url` may send us, and with whose credentials.
    ///
    /// Credentials go to the host and port of a configured Marathon, or to the ones of the leader that
    /// a configured one named, and never from TLS to plain text.
    pub fn follow<'a>(
        &'a self,
        from: &'a Endpoint,
        url: &Url,
        location: &str,
        leader: Option<&Authority>,
    ) -> Result<(Url, &'a Endpoint), Refused> {
        let mut to = match url.join(location) {
            // No Marathon writes one that long, and refused ones are shown.
            Ok(to) if matches!(to.scheme(), "http" | "https") && location.len() <= 2048 => to,
            _ => return Err(Refused::Strange(location.chars().take(200).collect())),
        };
        strip_user(&mut to);
        if url.scheme() == "https" && to.scheme() != "https" {
            return Err(Refused::PlainText(to));
        }
        let authority = Authority::of(&to);
        if authority == Authority::of(url) {
            return Ok((to, from));
        }
        if let Some(known) = self.0.iter().find(|known| known.authority() == authority) {
            // Its credentials were given for TLS, whoever asks for them.
            if known.is_https() && to.scheme() != "https" {
                return Err(Refused::PlainText(to));
            }
            return Ok((to, known));
        }
        if leader.is_some() && authority.as_ref() == leader {
            return Ok((to, from));
        }
        Err(Refused::Stranger(to))
    }
}

/// Why a redirect is not followed.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum Refused {
    /// To `http`, from `https` or to a Marathon that is configured with `https`.
    #[error("redirects to {0}, which would show credentials for https to everybody")]
    PlainText(Url),
    /// Not a place on the web, or absurdly long.
    #[error("redirects to {0:?}, which is no usable URL")]
    Strange(String),
    /// Neither configured nor named as the leader.
    #[error(
        "redirects to {0}, which is neither configured nor Marathon's leader; if that is a \
             Marathon, add it to the configured ones"
    )]
    Stranger(Url),
}

/// Host and port, in the form in which an URL has them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Authority {
    host: String,
    port: u16,
}

impl Authority {
    /// Those of `url`.
    pub fn of(url: &Url) -> Option<Self> {
        Some(Self { host: url.host_str()?.to_owned(), port: url.port_or_known_default()? })
    }

    /// What Marathon calls its leader: `host:port` in `/v2/leader`, an URL in `X-Marathon-Leader`.
    pub fn parse(text: &str) -> Option<Self> {
        let url = if text.contains("://") {
            Url::parse(text).ok()?
        } else {
            Url::parse(&format!("http://{text}")).ok()?
        };
        Self::of(&url)
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

fn strip_user(url: &mut Url) {
    // Fails only for URLs that cannot have a user, which then have none.
    let _is_stripped = url.set_username("").and_then(|()| url.set_password(None));
}

/// `text` with everything before its last `@` hidden.
fn without_password(text: &str) -> String {
    let Some((before, after)) = text.rsplit_once('@') else {
        return text.to_owned();
    };
    match before.split_once("://") {
        Some((scheme, _)) => format!("{scheme}://***@{after}"),
        None => format!("***@{after}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn base_paths_are_kept_and_the_apps_path_takes_their_place() {
        for (url, apps_path, apps, events) in [
            ("http://m:8080", None, "http://m:8080/v2/apps", "http://m:8080/v2/events"),
            ("http://m:8080//", None, "http://m:8080/v2/apps", "http://m:8080/v2/events"),
            ("HTTPS://m/a/b/", None, "https://m/a/b/v2/apps", "https://m/a/b/v2/events"),
            ("http://m/a", Some("/v2/apps"), "http://m/v2/apps", "http://m/v2/events"),
            ("http://m/a", Some("/x/v2/apps/"), "http://m/x/v2/apps", "http://m/x/v2/events"),
            ("http://m/a", Some("/list"), "http://m/list", "http://m/a/v2/events"),
            (
                "http://[::1]:8080/a",
                None,
                "http://[::1]:8080/a/v2/apps",
                "http://[::1]:8080/a/v2/events",
            ),
        ] {
            let endpoints = Endpoints::parse(&[url], apps_path).unwrap();
            let endpoint = endpoints.iter().next().unwrap();
            assert_eq!(endpoint.apps_url().as_str(), apps);
            assert_eq!(endpoint.url("/v2/events").as_str(), events);
        }
    }

    #[test]
    fn user_and_password_leave_the_url() {
        for (url, user, password) in [
            ("http://joe:a%3Ab:c@m", "joe", "a:b:c"),
            ("http://joe@m", "joe", ""),
            ("http://j%40e:p%40ss@m", "j@e", "p@ss"),
        ] {
            let endpoint = Endpoint::parse(url).unwrap();
            let login = endpoint.login().unwrap();
            assert_eq!((login.user.as_str(), login.password.expose()), (user, password));
            assert_eq!(endpoint.to_string(), "http://m");
            assert!(!format!("{endpoint:?}").contains("p@ss"));
        }
    }

    #[test]
    fn a_wrong_address_says_what_is_wrong_and_hides_the_password() {
        for (url, message) in [
            ("m:8080", "m:8080: Marathon's address begins with http:// or https://"),
            ("joe:secret@m:8080", "***@m:8080: Marathon's address begins with"),
            ("http://joe:sec@ret@m:99999", "http://***@m:99999: not an URL"),
            ("http://m/?x=1", "http://m/?x=1: a Marathon's address ends with its path"),
            ("", ": Marathon's address begins with"),
        ] {
            let error = Endpoint::parse(url).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
        for path in ["v2/apps", "/v2/apps?x"] {
            let endpoint = Endpoint::parse("http://m").unwrap();
            assert!(matches!(endpoint.with_apps_path(path), Err(EndpointError::AppsPath(_))));
        }
        assert!(matches!(Endpoints::new(vec![]), Err(EndpointError::Missing)));
    }

    #[test]
    fn redirects_lead_to_configured_hosts_and_to_the_leader_only() {
        let list = ["http://a:8080", "http://user:pw@b:8080/base", "https://c"];
        let endpoints = Endpoints::parse(&list, None).unwrap();
        let all: Vec<_> = endpoints.iter().collect();
        let leader = Authority::parse("10.0.0.1:8080");
        for (from, location, with) in [
            (0, "/elsewhere", Some(0)),
            (0, "http://a:8080/v2/events", Some(0)),
            (0, "http://b:8080/v2/events", Some(1)),
            (0, "http://x:y@10.0.0.1:8080/v2/events", Some(0)),
            (0, "//10.0.0.1:8080/v2/events", Some(0)),
            (0, "http://10.0.0.1:8081/v2/events", None),
            (0, "http://a:9090/", None),
            (0, "http://evil/", None),
            (0, "http://a:8080@evil/", None),
            (0, "file:///etc/passwd", None),
            (0, "http://", None),
            (0, "https://c/v2/events", Some(2)),
            // Its credentials are for TLS, whoever leads there.
            (0, "http://c:443/v2/events", None),
            (2, "http://a:8080/v2/events", None),
            (2, "https://10.0.0.1:8080/v2/events", Some(2)),
        ] {
            let url = all[from].url("/v2/events");
            let followed = endpoints.follow(all[from], &url, location, leader.as_ref());
            assert_eq!(followed.is_ok(), with.is_some(), "{location}: {followed:?}");
            if let (Ok((to, endpoint)), Some(with)) = (followed, with) {
                assert!(std::ptr::eq(endpoint, all[with]), "{location}");
                assert!(to.username().is_empty() && to.password().is_none());
            }
        }
        let unknown = endpoints.follow(all[0], &all[0].url("/"), "http://10.0.0.1:8080/", None);
        assert!(matches!(unknown, Err(Refused::Stranger(_))));
    }

    #[test]
    fn leaders_are_named_in_two_ways() {
        for text in ["10.0.0.1:8080", "http://10.0.0.1:8080", "https://10.0.0.1:8080/"] {
            assert_eq!(Authority::parse(text).unwrap().to_string(), "10.0.0.1:8080");
        }
        for text in ["", "http://", "a b"] {
            assert_eq!(Authority::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_endpoint_comes_once_whichever_is_first(count in 1_usize..6, first: usize) {
            let urls: Vec<String> = (0..count).map(|number| format!("http://m{number}")).collect();
            let endpoints = Endpoints::parse(&urls, None).unwrap();
            let order: Vec<usize> = endpoints.order_from(first).map(|(index, _)| index).collect();
            let expected: Vec<usize> = (0..count).map(|step| (first % count + step) % count).collect();
            prop_assert_eq!(order, expected);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".*", location in ".*") {
            let endpoint = Endpoint::parse(&format!("http://{text}"));
            let endpoints = Endpoints::parse(&["http://m"], Some(&format!("/{text}")));
            if let (Ok(endpoint), Ok(endpoints)) = (endpoint, endpoints) {
                drop(endpoints.follow(&endpoint, &endpoint.apps_url(), &location, None));
            }
        }
    }
}
