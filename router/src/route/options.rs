//! `options:<host>`: what an operator asks for a host beyond its list. Pure.
//!
//! Each field is read for itself: what is unknown or wrong is a [`Problem`] to be logged and harms no
//! other field. Those that keep people out (`allow`, `basic-auth`) keep out everybody when nothing of
//! their value can be read, and those about certificates of backends (`backend-…`) then trust none.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use shared::store::RawOptions;

use super::trust::{Draft, Trust};
use crate::suggest::did_you_mean;

/// Name of the sticky cookie when the option names none.
const STICKY_COOKIE: &str = "router_sticky";
/// `max-age` of `hsts = on`: a year, which browsers' preload lists ask for.
const HSTS_SECONDS: u64 = 31_536_000;
/// `Retry-After` of `maintenance = on`, in seconds.
const MAINTENANCE_SECONDS: u32 = 300;
/// Entries of `allow` and of `basic-auth` that are read.
const MAX_ENTRIES: usize = 1000;
/// A bcrypt hash of more would keep a processor for seconds for each password that is tried.
const MAX_BCRYPT_COST: u32 = 14;

/// The options of a host.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// Requests that came by plain HTTP are sent to HTTPS with this status: 301 or 308.
    pub https_redirect: Option<u16>,
    /// `Strict-Transport-Security` of answers over HTTPS.
    pub hsts: Option<Box<str>>,
    /// Name of the cookie that keeps a client with its backend.
    pub sticky: Option<Box<str>>,
    /// Instead of `server.connectTimeout`.
    pub connect_timeout: Option<Duration>,
    read_timeout: Option<Duration>,
    tunnel_timeout: Option<Duration>,
    keep_alive: Option<KeepAlive>,
    /// Every request gets 503 with this `Retry-After`, in seconds.
    pub maintenance: Option<u32>,
    /// Clients elsewhere get 403.
    pub allow: Option<Box<[IpNet]>>,
    /// Whoever is none of these gets 401.
    pub basic_auth: Option<Box<[User]>>,
    /// Longest request body, in bytes.
    pub max_body: Option<u64>,
    /// By what `https://` backends are verified, where it is not by what the configuration says.
    pub trust: Option<Trust>,
    /// What could not be used.
    pub problems: Box<[Problem]>,
    raw: Option<Box<RawOptions>>,
}

/// Which requests may use a connection to a backend that has carried another one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum KeepAlive {
    /// None: each has a new connection, which is closed behind its response.
    Off,
    /// Those that can be sent again when the backend closes the connection at that moment: idempotent ones
    /// without a body (RFC 9110 9.2.2, RFC 9112 9.3.1).
    Safe,
    /// All of them.
    #[default]
    On,
}

/// A user and the bcrypt hash of the password.
#[derive(Clone, Eq, PartialEq)]
pub struct User {
    /// Name.
    pub name: Box<str>,
    /// `$2y$10$…`.
    pub hash: Box<str>,
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A field that is not, or not wholly, used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// Its name.
    pub field: Box<str>,
    /// What is wrong, and what was expected. Never holds a value that may be a secret.
    pub problem: Box<str>,
}

/// Characters of a value that are shown.
const SHOWN: usize = 64;

/// The names of all fields.
const FIELDS: &[&str] = &[
    "allow",
    "backend-ca",
    "backend-name",
    "backend-verify",
    "basic-auth",
    "hsts",
    "https-redirect",
    "keep-alive",
    "maintenance",
    "max-body",
    "sticky",
    "timeout-connect",
    "timeout-read",
    "timeout-tunnel",
];

impl Options {
    /// Reads every field.
    pub fn parse(raw: RawOptions) -> Self {
        let mut options = Self::default();
        let mut problems = Vec::new();
        let mut trust = Draft::default();
        for (field, value) in &raw.fields {
            let field = String::from_utf8_lossy(field);
            // Some fields have a meaning when nothing of them can be read.
            let text = std::str::from_utf8(value).map_or("\u{fffd}", str::trim);
            let read = trust.set(&field, text).unwrap_or_else(|| options.set(&field, text));
            if let Err(problem) = read {
                let problem = with_value(&field, text, problem);
                let field = field.chars().take(64).flat_map(char::escape_default).collect();
                problems.push(Problem { field, problem: problem.into() });
            }
        }
        options.trust = trust.finish();
        Self { problems: problems.into(), raw: Some(Box::new(raw)), ..options }
    }

    /// The hash as it stood there.
    pub fn raw(&self) -> Option<&RawOptions> {
        self.raw.as_deref()
    }

    /// Silence after which a peer is given up, where the server's limit is `default`.
    pub fn read_timeout(&self, default: Option<Duration>) -> Option<Duration> {
        or_never(self.read_timeout, default)
    }

    /// Silence after which a tunnel ends, where the server's limit is `default`.
    pub fn tunnel_timeout(&self, default: Option<Duration>) -> Option<Duration> {
        or_never(self.tunnel_timeout, default)
    }

    /// Which requests use connections to backends again, where the server's setting is `default`.
    pub fn keep_alive(&self, default: KeepAlive) -> KeepAlive {
        self.keep_alive.unwrap_or(default)
    }

    /// Whether a client with this address may come in; one whose address is not known may only if
    /// everybody may.
    pub fn allows(&self, client: Option<IpAddr>) -> bool {
        let Some(networks) = &self.allow else { return true };
        client.is_some_and(|client| networks.iter().any(|network| network.contains(&client)))
    }

    /// About how much memory they take.
    pub fn bytes(&self) -> usize {
        let fields = self.raw().into_iter().flat_map(|raw| &raw.fields);
        // The text as it came, and about the same again for what it means.
        fields.map(|(field, value)| 2 * (field.len() + value.len()) + 64).sum::<usize>()
            + size_of::<Self>()
    }

    fn set(&mut self, field: &str, value: &str) -> Result<(), String> {
        match field {
            "https-redirect" => {
                self.https_redirect = match value {
                    "301" => Some(301),
                    "308" => Some(308),
                    _ => switch(value).ok_or("expected on, off, 301 or 308")?.then_some(308),
                }
            }
            "hsts" => self.hsts = hsts(value)?,
            "sticky" => {
                self.sticky = match switch(value) {
                    Some(is_on) => is_on.then(|| STICKY_COOKIE.into()),
                    None if is_token(value) => Some(value.into()),
                    None => return Err("expected on, off or the name of a cookie".to_owned()),
                }
            }
            "timeout-connect" => {
                let limit = seconds(value)?;
                if limit.is_zero() {
                    return Err("expected more than 0 seconds".to_owned());
                }
                self.connect_timeout = Some(limit);
            }
            "timeout-read" => self.read_timeout = Some(seconds(value)?),
            "timeout-tunnel" => self.tunnel_timeout = Some(seconds(value)?),
            "keep-alive" => {
                self.keep_alive = Some(match (switch(value), value) {
                    (Some(true), _) => KeepAlive::On,
                    (Some(false), _) => KeepAlive::Off,
                    (None, "safe") => KeepAlive::Safe,
                    (None, _) => return Err("expected on, safe or off".to_owned()),
                });
            }
            "maintenance" => {
                self.maintenance = match (switch(value), value.parse()) {
                    (Some(false), _) => None,
                    (_, Ok(seconds)) => Some(seconds),
                    (Some(true), _) => Some(MAINTENANCE_SECONDS),
                    _ => return Err("expected on, off or seconds for Retry-After".to_owned()),
                }
            }
            "allow" if switch(value) == Some(false) => self.allow = None,
            "allow" => {
                let (networks, result) = entries(value, "a network such as 10.0.0.0/8", network);
                self.allow = Some(networks);
                return result;
            }
            "basic-auth" if switch(value) == Some(false) => self.basic_auth = None,
            "basic-auth" => {
                let expected = "user:hash with a bcrypt hash of a cost up to 14 (htpasswd -nbB)";
                let (users, result) = entries(value, expected, user);
                self.basic_auth = Some(users);
                return result;
            }
            "max-body" if switch(value) == Some(false) && value != "0" => self.max_body = None,
            "max-body" => {
                let size = size(value).ok_or("expected a number of bytes such as 10m, or off")?;
                self.max_body = Some(size);
            }
            _ => {
                return Err(match did_you_mean(field, FIELDS) {
                    Some(known) => format!("it is not known; did you mean `{known}`?"),
                    None => format!("it is not known; there are {}", FIELDS.join(", ")),
                });
            }
        }
        Ok(())
    }
}

/// The problem with the value, where that cannot be a secret and is not as long as a certificate.
fn with_value(field: &str, value: &str, problem: String) -> String {
    let is_shown = FIELDS.contains(&field) && !matches!(field, "basic-auth" | "backend-ca");
    if !is_shown {
        return problem;
    }
    let mut shown: String = value.chars().take(SHOWN).flat_map(char::escape_default).collect();
    if value.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    if problem.starts_with("expected") && !problem.contains(';') {
        format!("{problem}, not `{shown}`")
    } else {
        format!("{problem} (it is `{shown}`)")
    }
}

fn or_never(own: Option<Duration>, default: Option<Duration>) -> Option<Duration> {
    match own {
        Some(limit) => Some(limit).filter(|limit| !limit.is_zero()),
        None => default,
    }
}

pub(super) fn switch(value: &str) -> Option<bool> {
    match value {
        "on" | "true" | "yes" | "1" => Some(true),
        "off" | "false" | "no" | "0" | "" => Some(false),
        _ => None,
    }
}

fn seconds(value: &str) -> Result<Duration, String> {
    let number = value.parse().ok().and_then(|number| Duration::try_from_secs_f64(number).ok());
    number.ok_or_else(|| "expected a number of seconds such as 30 or 0.5".to_owned())
}

/// Bytes, with `k`, `m` or `g` for powers of 1024.
fn size(value: &str) -> Option<u64> {
    let value = value.to_ascii_lowercase();
    let units = [('k', 1 << 10), ('m', 1 << 20), ('g', 1 << 30)];
    let unit = units.iter().find_map(|(unit, size)| Some((value.strip_suffix(*unit)?, *size)));
    let (digits, unit) = unit.unwrap_or((&value, 1));
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { digits.parse::<u64>().ok()?.checked_mul(unit) } else { None }
}

/// `Strict-Transport-Security` (RFC 6797 6.1): `on`, seconds, or its directives.
fn hsts(value: &str) -> Result<Option<Box<str>>, String> {
    let expected = || {
        "expected on, off, seconds, or directives such as `max-age=31536000; includeSubDomains`"
            .to_owned()
    };
    let is_number = |text: &str| {
        !text.is_empty() && text.len() < 12 && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    if is_number(value) && value != "1" {
        return Ok(Some(format!("max-age={value}").into()));
    }
    match switch(value) {
        Some(true) => return Ok(Some(format!("max-age={HSTS_SECONDS}").into())),
        Some(false) => return Ok(None),
        None => {}
    }
    let mut ages = 0;
    let mut directives = Vec::new();
    for directive in value.split(';').map(str::trim) {
        let lower = directive.to_ascii_lowercase();
        directives.push(match lower.as_str() {
            "includesubdomains" => "includeSubDomains".to_owned(),
            "preload" => lower,
            _ if lower.strip_prefix("max-age=").is_some_and(is_number) => {
                ages += 1;
                lower
            }
            _ => return Err(expected()),
        });
    }
    if ages == 1 { Ok(Some(directives.join("; ").into())) } else { Err(expected()) }
}

/// Reads a list whose items stand between commas and white space. Gives what can be read.
fn entries<T>(
    value: &str,
    expected: &str,
    read: impl Fn(&str) -> Option<T>,
) -> (Box<[T]>, Result<(), String>) {
    let items = value.split(|c: char| c == ',' || c.is_whitespace());
    let mut items = items.filter(|item| !item.is_empty()).enumerate();
    let mut wrong = Vec::new();
    let mut good = Vec::new();
    for (index, item) in items.by_ref().take(MAX_ENTRIES) {
        match read(item) {
            Some(item) => good.push(item),
            None => wrong.push((index + 1).to_string()),
        }
    }
    let has_more = items.next().is_some();
    let mut problem = String::new();
    if good.is_empty() && wrong.is_empty() {
        problem = format!("it is empty, so nobody gets in: expected {expected}, or off");
    } else if !wrong.is_empty() {
        wrong.truncate(10);
        problem = format!("entry {} is not {expected}", wrong.join(", "));
    }
    if has_more {
        problem.push_str(&format!("; only the first {MAX_ENTRIES} entries count"));
    }
    (good.into(), if problem.is_empty() { Ok(()) } else { Err(problem) })
}

fn network(text: &str) -> Option<IpNet> {
    IpNet::from_str(text).ok().or_else(|| Some(IpNet::from(text.parse::<IpAddr>().ok()?)))
}

fn user(text: &str) -> Option<User> {
    let (name, hash) = text.split_once(':')?;
    let mut parts = hash.split('$');
    let (before, version, cost, rest) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_bcrypt = before.is_empty()
        && matches!(version, "2a" | "2b" | "2x" | "2y")
        && cost.len() == 2
        && cost.parse::<u32>().is_ok_and(|cost| (4..=MAX_BCRYPT_COST).contains(&cost))
        && rest.len() == 53
        && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"./".contains(&byte))
        && parts.next().is_none();
    (is_bcrypt && !name.is_empty()).then(|| User { name: name.into(), hash: hash.into() })
}

/// A token of RFC 9110, which is what names a cookie.
fn is_token(text: &str) -> bool {
    let is_token_byte =
        |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(is_token_byte)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use shared::store::RawOptions;

    use super::{FIELDS, KeepAlive, Options};

    /// `htpasswd -nbBC 4 user secret`, in form.
    const HASH: &str = "$2y$04$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234";

    fn parse(field: &str, value: &[u8]) -> Options {
        let fields = [(field.as_bytes().to_vec(), value.to_vec())].into();
        Options::parse(RawOptions { name: "a.test".to_owned(), fields })
    }

    /// What is said of one field, and the problem if there is one.
    fn read(field: &str, value: &str) -> (String, Option<String>) {
        let options = parse(field, value.as_bytes());
        let shown = match field {
            "https-redirect" => format!("{:?}", options.https_redirect),
            "hsts" => format!("{:?}", options.hsts),
            "sticky" => format!("{:?}", options.sticky),
            "timeout-connect" => format!("{:?}", options.connect_timeout),
            "timeout-read" => format!("{:?}", options.read_timeout(Some(Duration::MAX))),
            "timeout-tunnel" => format!("{:?}", options.tunnel_timeout(Some(Duration::MAX))),
            "keep-alive" => format!("{:?}", options.keep_alive(KeepAlive::default())),
            "maintenance" => format!("{:?}", options.maintenance),
            "allow" => format!("{:?}", options.allow.map(|list| list.len())),
            "basic-auth" => format!("{:?}", options.basic_auth.map(|list| list.len())),
            "max-body" => format!("{:?}", options.max_body),
            "backend-ca" | "backend-name" | "backend-verify" => {
                format!("{:?}", options.trust.map(|trust| trust.signers))
            }
            _ => String::new(),
        };
        (shown, options.problems.first().map(|problem| problem.problem.to_string()))
    }

    #[test]
    fn values_mean_what_the_schema_says() {
        for (field, value, shown) in [
            ("https-redirect", "on", "Some(308)"),
            ("https-redirect", "301", "Some(301)"),
            ("https-redirect", " off\n", "None"),
            ("hsts", "on", "Some(\"max-age=31536000\")"),
            ("hsts", "off", "None"),
            ("hsts", "600", "Some(\"max-age=600\")"),
            ("hsts", "0", "Some(\"max-age=0\")"),
            (
                "hsts",
                "Max-Age=600;includesubdomains; preload",
                "Some(\"max-age=600; includeSubDomains; preload\")",
            ),
            ("sticky", "on", "Some(\"router_sticky\")"),
            ("sticky", "SRV", "Some(\"SRV\")"),
            ("sticky", "no", "None"),
            ("timeout-connect", "0.5", "Some(500ms)"),
            ("timeout-read", "120", "Some(120s)"),
            ("timeout-read", "0", "None"),
            ("timeout-tunnel", "0", "None"),
            ("keep-alive", "on", "On"),
            ("keep-alive", " safe\n", "Safe"),
            ("keep-alive", "off", "Off"),
            ("maintenance", "on", "Some(300)"),
            ("maintenance", "60", "Some(60)"),
            ("maintenance", "0", "None"),
            ("allow", "10.0.0.0/8, ::1\n192.0.2.1", "Some(3)"),
            ("allow", "off", "None"),
            ("basic-auth", "off", "None"),
            ("max-body", "0", "Some(0)"),
            ("max-body", "10m", "Some(10485760)"),
            ("max-body", "2K", "Some(2048)"),
            ("max-body", "off", "None"),
            ("backend-verify", "off\n", "Some(Anyone)"),
            ("backend-verify", " on", "None"),
            ("backend-name", "b.test", "Some(Configured)"),
        ] {
            assert_eq!(read(field, value), (shown.to_owned(), None), "{field} = {value}");
        }
        let two = format!("me:{HASH}\nyou:{HASH}");
        assert_eq!(read("basic-auth", &two), ("Some(2)".to_owned(), None));
    }

    #[test]
    fn wrong_values_are_named_and_not_used_and_locks_stay_shut() {
        let costly = format!("me:{}", HASH.replace("$04$", "$15$"));
        for (field, value, shown, problem) in [
            ("https-redirect", "302", "None", "expected on, off, 301 or 308"),
            ("hsts", "max-age=1; max-age=2", "None", "expected on"),
            ("hsts", "x\r\ny", "None", "expected on"),
            ("sticky", "a b", "None", "name of a cookie"),
            ("timeout-connect", "0", "None", "more than 0"),
            ("timeout-read", "-1", "Some(18446744073709551615.999999999s)", "number of seconds"),
            ("timeout-read", "soon", "Some(18446744073709551615.999999999s)", "number of seconds"),
            ("keep-alive", "unsafe", "On", "expected on, safe or off"),
            ("maintenance", "soon", "None", "Retry-After"),
            ("allow", "10.0.0.0/33", "Some(0)", "entry 1 is not a network"),
            ("allow", "10.0.0.0/8 x y", "Some(1)", "entry 2, 3 is not a network"),
            ("allow", " , ", "Some(0)", "nobody gets in"),
            ("basic-auth", "me:secret", "Some(0)", "entry 1 is not user:hash"),
            ("basic-auth", &costly, "Some(0)", "entry 1 is not user:hash"),
            ("max-body", "10x", "None", "number of bytes"),
            ("max-body", "+5", "None", "number of bytes"),
            ("max-body", "99999999999g", "None", "number of bytes"),
            ("max_body", "1", "", "it is not known; did you mean `max-body`?"),
            ("colour", "red", "", "it is not known; there are allow, backend-ca"),
            ("https-redirect", "onn", "None", "expected on, off, 301 or 308, not `onn`"),
            ("allow", "10.0.0.0/8 x", "Some(1)", "10.0.0.0/8 (it is `10.0.0.0/8 x`)"),
            ("backend-ca", "x", "Some(Nobody)", "PEM"),
            ("backend-verify", "none", "Some(Nobody)", "no requests until it is right"),
        ] {
            let (seen, said) = read(field, value);
            assert_eq!(seen, shown, "{field} = {value}");
            assert!(
                said.as_deref().is_some_and(|said| said.contains(problem)),
                "{value}: {said:?}"
            );
        }
        assert!(!format!("{:?}", parse("basic-auth", b"me:secret").problems).contains("secret"));
    }

    #[test]
    fn who_is_allowed() {
        let client = |text: &str| Some(text.parse().unwrap());
        let options = parse("allow", b"10.0.0.0/8 2001:db8::/32");
        assert!(options.allows(client("10.1.2.3")) && options.allows(client("2001:db8::1")));
        assert!(!options.allows(client("11.1.2.3")) && !options.allows(None));
        assert!(Options::default().allows(None));
        assert!(!parse("allow", b"\xff").allows(client("10.1.2.3")), "nothing of it can be read");
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_a_lock_is_never_opened_by_mistake(
            field in proptest::sample::select(FIELDS),
            value in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let options = parse(field, &value);
            prop_assert!(options.problems.len() <= 1);
            if !options.problems.is_empty() {
                prop_assert_eq!(options.allow.is_some(), field == "allow");
                prop_assert_eq!(options.basic_auth.is_some(), field == "basic-auth");
                prop_assert_eq!(options.trust.is_some(), field.starts_with("backend-"));
            }
        }

        #[test]
        fn sizes_of_any_number_are_exact(number in any::<u32>()) {
            prop_assert_eq!(super::size(&format!("{number}k")), Some(u64::from(number) * 1024));
        }
    }
}
