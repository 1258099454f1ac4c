//! Which `Host` a request to an admin listener may carry. Pure.
//!
//! A page of the web can make a browser ask any address that a name of the page's own owner leads to, also one
//! that only this machine or network reaches, and read the answer (DNS rebinding). The browser then sends that
//! name as `Host`. What no stranger's DNS answers for is taken: addresses, names without a dot, this machine's
//! own name; and names that the operator lists.

use std::net::IpAddr;

use http::header::HOST;
use http::{HeaderMap, Uri};

use crate::host;

/// The names of one admin listener.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Hosts {
    names: Vec<String>,
    setting: &'static str,
}

/// A name that no request can carry.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("expected a host name such as router1.example.com, without scheme and path, not `{0}`")]
pub struct NameError(String);

impl Hosts {
    /// Those that go without saying and `names`, in the form that [`Self::parse`] gives them. Refusals say that
    /// `setting` names further ones.
    pub fn new(mut names: Vec<String>, setting: &'static str) -> Self {
        names.extend(machine_name());
        Self { names, setting }
    }

    /// A name as it is compared: in lower case, without port and trailing dot.
    ///
    /// # Errors
    ///
    /// [`NameError`] when it is none.
    pub fn parse(text: &str) -> Result<String, NameError> {
        let name = host::normalize(text.trim().as_bytes());
        name.map(Into::into).map_err(|_invalid| NameError(text.to_owned()))
    }

    /// Whether a request may be answered. One without any host, as old checks of balancers send it, is no
    /// browser's.
    pub(super) fn allow(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let authority = uri.authority().map(|authority| authority.as_str().as_bytes());
        let mut hosts = headers.get_all(HOST).iter().map(http::HeaderValue::as_bytes);
        hosts.all(|host| self.allows(host)) && authority.is_none_or(|host| self.allows(host))
    }

    fn allows(&self, value: &[u8]) -> bool {
        let Ok(name) = host::normalize(value) else { return false };
        let is_address = name.starts_with('[') || name.parse::<IpAddr>().is_ok();
        is_address || !name.contains('.') || self.names.iter().any(|known| *known == *name)
    }

    /// What a refused client is told.
    pub(super) fn refusal(&self) -> String {
        let setting = self.setting;
        format!(
            "this name is not one of the admin listener's (protection against DNS rebinding): ask for its \
             address, or list the name in {setting}\n"
        )
    }
}

/// The name of this machine, if the system tells it.
fn machine_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Hosts::parse(&name).ok()
}

#[cfg(test)]
mod tests {
    use http::header::{HOST, HeaderMap, HeaderValue};
    use proptest::prelude::*;

    use super::Hosts;

    fn hosts() -> Hosts {
        Hosts::new(vec![Hosts::parse("Metrics.Example.COM:9000").unwrap()], "server.adminHosts")
    }

    fn is_allowed(target: &str, values: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HOST, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        hosts().allow(&target.parse().unwrap(), &headers)
    }

    #[test]
    fn names_that_a_stranger_can_register_are_refused() {
        for (host, allowed) in [
            ("127.0.0.1", true),
            ("127.0.0.1:9000", true),
            ("192.0.2.7:9000", true),
            ("[::1]", true),
            ("[2001:db8::5]:9000", true),
            ("localhost", true),
            ("LocalHost:9000", true),
            ("localhost.", true),
            ("router1", true),
            ("router_1:80", true),
            ("metrics.example.com", true),
            ("metrics.example.com:80", true),
            ("METRICS.example.com.", true),
            ("evil.test", false),
            ("evil.test:9000", false),
            ("metrics.example.com.evil.test", false),
            ("x.metrics.example.com", false),
            ("example.com", false),
            ("localhost.evil.test", false),
            ("127.0.0.1.evil.test", false),
            ("127.0.0.1.", true),
            ("1.2.3.4.5", false),
            ("127.1", false),
            ("0x7f.1", false),
            ("", false),
            ("a b", false),
            ("evil.test\\@localhost", false),
            ("u@localhost", false),
            ("[::1", false),
            ("localhost:x", false),
        ] {
            assert_eq!(is_allowed("/metrics", &[host]), allowed, "{host:?}");
        }
    }

    #[test]
    fn every_host_of_a_request_is_looked_at() {
        for (target, hosts, allowed) in [
            ("/metrics", &[][..], true),
            ("/metrics", &["localhost", "evil.test"], false),
            ("/metrics", &["evil.test", "localhost"], false),
            ("http://evil.test/metrics", &["localhost"], false),
            ("http://localhost/metrics", &["evil.test"], false),
            ("http://localhost:9000/metrics", &["localhost:9000"], true),
        ] {
            assert_eq!(is_allowed(target, hosts), allowed, "{target} {hosts:?}");
        }
    }

    #[test]
    fn the_machine_has_its_own_name() {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert!(hosts().names.contains(&name.trim().to_ascii_lowercase()));
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_form_that_is_expected() {
        for text in ["http://a.test", "a.test/metrics", "", "*.a.test", "a b"] {
            let error = Hosts::parse(text).unwrap_err().to_string();
            assert!(error.contains("expected a host name") && error.contains(text), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_name_with_a_dot_is_taken_that_is_not_listed(name in "[a-z][a-z0-9-]{0,8}(\\.[a-z][a-z0-9]{0,8}){1,4}") {
            prop_assume!(name != "metrics.example.com" && !hosts().names.contains(&name));
            prop_assert!(!is_allowed("/metrics", &[&name]));
        }
    }
}
