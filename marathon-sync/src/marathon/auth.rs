//! Who we are to Marathon: nobody, a user, the holder of a token, or a DC/OS service account.
//!
//! This file reads credentials and knows the documents of the login, pure but for [`read_secret`]. `auth/session.rs` logs in.
//!
//! Sources: Marathon's `--http_credentials`; the login of DC/OS (IAM API, `/acs/api/v1/auth/login`).

mod session;

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Serialize};
use shared::secret::Secret;
use thiserror::Error;
use url::Url;

pub use session::LoginError;
pub(super) use session::{Pass, Session};

/// What every request carries.
#[derive(Clone, Debug, Default)]
pub enum Credentials {
    /// `Authorization: Basic …`.
    Basic(Basic),
    /// Nothing.
    #[default]
    None,
    /// A token that is exchanged for a login: DC/OS.
    ServiceAccount(ServiceAccount),
    /// `Authorization: token=…`.
    Token(Secret),
}

/// Why credentials cannot be used. Texts never contain them.
#[derive(Debug, Error)]
pub enum CredentialsError {
    /// The service account's document is not JSON or lacks something. The source is left out
    /// because it may quote the document.
    #[error(
        "the service account is not a JSON document with `uid` and `private_key` or `password` \
             (line {line}, column {column})"
    )]
    Account {
        /// Where reading ended, from 1.
        line: usize,
        /// The same within the line.
        column: usize,
    },
    /// No `:`.
    #[error("credentials are written user:password")]
    Basic,
    /// A file without a password.
    #[error("the file is empty: expected the password in it")]
    Empty,
    /// A file that cannot be read.
    #[error("{path}: cannot be read")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file whose text is not what it should be.
    #[error("{path}: {problem}")]
    In {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: Box<Self>,
    },
    /// The private key is not one.
    #[error("the service account's private key is not an RSA key in PEM")]
    Key(#[source] jsonwebtoken::errors::Error),
    /// Where to log in is not known, or not an address on the web.
    #[error(
        "the service account's login endpoint is missing or not an http(s) URL; it is usually \
             https://master.mesos/acs/api/v1/auth/login"
    )]
    LoginEndpoint,
    /// Neither of the two.
    #[error("the service account has neither `private_key` nor `password`")]
    Proof,
    /// Another way of signing than the one that DC/OS has.
    #[error("the service account's scheme {0:?} is not known; only RS256 is")]
    Scheme(String),
    /// An empty token, or one with characters that no header can have.
    #[error("the token is empty or has characters that a header cannot carry")]
    Token,
}

impl Credentials {
    /// Reads `user:password`; the password may have colons. Line ends at the end are not part of it,
    /// because it usually comes from a file.
    pub fn basic(text: &str) -> Result<Self, CredentialsError> {
        let text = text.trim_end_matches(['\r', '\n']);
        let (user, password) = text.split_once(':').ok_or(CredentialsError::Basic)?;
        Ok(Self::Basic(Basic { user: user.to_owned(), password: Secret::new(password) }))
    }

    /// Takes a user and the text of the file with the password.
    fn password(user: &str, text: &str) -> Result<Self, CredentialsError> {
        let password = text.trim_end_matches(['\r', '\n']);
        if password.is_empty() {
            return Err(CredentialsError::Empty);
        }
        Ok(Self::Basic(Basic { user: user.to_owned(), password: Secret::new(password) }))
    }

    /// Takes a token, with or without the `token=` of its header.
    pub fn token(text: &str) -> Result<Self, CredentialsError> {
        let text = text.trim();
        let token = text.strip_prefix("token=").unwrap_or(text);
        if !is_token(token) {
            return Err(CredentialsError::Token);
        }
        Ok(Self::Token(Secret::new(token)))
    }

    /// Reads the JSON document of a service account. `login` replaces its `login_endpoint`.
    pub fn service_account(json: &str, login: Option<&str>) -> Result<Self, CredentialsError> {
        ServiceAccount::parse(json, login).map(Self::ServiceAccount)
    }

    /// Whether a login of its own is made over TLS; `None` where there is none.
    pub(super) fn is_login_https(&self) -> Option<bool> {
        match self {
            Self::ServiceAccount(account) => Some(account.login.scheme() == "https"),
            Self::Basic(_) | Self::None | Self::Token(_) => None,
        }
    }
}

/// Where credentials come from: files, which may change while the process runs.
#[derive(Clone, Debug, Default)]
pub enum Source {
    /// User and file of the password.
    Basic {
        /// Without colons.
        user: String,
        /// The file.
        password: PathBuf,
    },
    /// No file.
    #[default]
    Nothing,
    /// File with the document of a service account.
    ServiceAccount(PathBuf),
    /// File with a token.
    Token(PathBuf),
}

impl Source {
    /// The file, if there is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Nothing => None,
            Self::Basic { password: path, .. } | Self::ServiceAccount(path) | Self::Token(path) => {
                Some(path)
            }
        }
    }

    /// Reads the file. Its text is there to be compared with what it was; without a file it is empty.
    pub fn read(&self) -> Result<(Secret, Credentials), CredentialsError> {
        let Some(path) = self.path() else {
            return Ok((Secret::new(""), Credentials::None));
        };
        let text = read_secret(path)?;
        let parsed = match self {
            Self::Nothing => Ok(Credentials::None),
            Self::Basic { user, .. } => Credentials::password(user, text.expose()),
            Self::ServiceAccount(_) => Credentials::service_account(text.expose(), None),
            Self::Token(_) => Credentials::token(text.expose()),
        };
        match parsed {
            Ok(credentials) => Ok((text, credentials)),
            Err(problem) => {
                Err(CredentialsError::In { path: path.to_owned(), problem: Box::new(problem) })
            }
        }
    }
}

/// Where credentials come from, and the text that they were last made of.
#[derive(Clone, Debug)]
pub struct ReadFrom {
    /// The file.
    pub source: Source,
    /// Its text; empty without a file.
    pub text: Secret,
}

impl Default for ReadFrom {
    fn default() -> Self {
        Self { source: Source::Nothing, text: Secret::new("") }
    }
}

/// The text of a file with credentials, as it is; at most 1 MiB.
pub fn read_secret(path: &Path) -> Result<Secret, CredentialsError> {
    let read = || {
        let mut text = String::new();
        File::open(path)?.take(1 << 20).read_to_string(&mut text)?;
        Ok(Secret::new(text))
    };
    read().map_err(|source| CredentialsError::File { path: path.to_owned(), source })
}

/// User and password.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Basic {
    /// Without colons.
    pub user: String,
    /// Anything.
    pub password: Secret,
}

/// An account of DC/OS that proves who it is by a key or a password, and gets a token for it.
#[derive(Clone)]
pub struct ServiceAccount {
    uid: String,
    proof: Proof,
    pub(super) login: Url,
}

#[derive(Clone)]
enum Proof {
    Key(EncodingKey),
    Password(Secret),
}

impl fmt::Debug for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceAccount")
            .field("uid", &self.uid)
            .field("login", &self.login.as_str())
            .finish_non_exhaustive()
    }
}

impl ServiceAccount {
    /// How long the proof that goes over the wire is valid: enough for clocks that are a little
    /// apart.
    const PROOF_LIFETIME: Duration = Duration::from_secs(60);
    /// How long a login is asked for.
    const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

    fn parse(json: &str, login: Option<&str>) -> Result<Self, CredentialsError> {
        #[derive(Deserialize)]
        struct Document {
            uid: String,
            private_key: Option<String>,
            password: Option<String>,
            login_endpoint: Option<String>,
            scheme: Option<String>,
        }
        let document: Document = serde_json::from_str(json).map_err(|error| {
            CredentialsError::Account { line: error.line(), column: error.column() }
        })?;
        if let Some(scheme) = document.scheme.filter(|scheme| scheme != "RS256") {
            return Err(CredentialsError::Scheme(scheme));
        }
        let proof = match (document.private_key, document.password) {
            (Some(pem), _) => {
                let key = EncodingKey::from_rsa_pem(pem.as_bytes());
                Proof::Key(key.map_err(CredentialsError::Key)?)
            }
            (None, Some(password)) => Proof::Password(Secret::new(password)),
            (None, None) => return Err(CredentialsError::Proof),
        };
        let login = login
            .or(document.login_endpoint.as_deref())
            .and_then(|text| Url::parse(text).ok())
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or(CredentialsError::LoginEndpoint)?;
        Ok(Self { uid: document.uid, proof, login })
    }

    /// The document that logs in, at `now` in seconds since 1970.
    fn login_body(&self, now: u64) -> Result<String, jsonwebtoken::errors::Error> {
        #[derive(Serialize)]
        struct Claims<'a> {
            uid: &'a str,
            exp: u64,
        }
        let body = match &self.proof {
            Proof::Key(key) => {
                let claims = Claims { uid: &self.uid, exp: now + Self::PROOF_LIFETIME.as_secs() };
                let token = jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, key)?;
                let exp = now + Self::TOKEN_LIFETIME.as_secs();
                serde_json::json!({ "uid": self.uid, "token": token, "exp": exp })
            }
            Proof::Password(password) => {
                serde_json::json!({ "uid": self.uid, "password": password.expose() })
            }
        };
        Ok(body.to_string())
    }
}

/// The token of a login's answer: in its body, or in a cookie, which is where the older agents look.
fn token_of<'a>(body: &[u8], mut cookies: impl Iterator<Item = &'a str>) -> Option<Secret> {
    #[derive(Deserialize)]
    struct Answer {
        token: String,
    }
    let from_body = serde_json::from_slice(body).ok().map(|answer: Answer| answer.token);
    let token = from_body.or_else(|| {
        let value = cookies.find_map(|cookie| cookie.strip_prefix("dcos-acs-auth-cookie="))?;
        Some(value.split(';').next().unwrap_or_default().trim_matches('"').to_owned())
    })?;
    is_token(&token).then(|| Secret::new(token))
}

/// How long to use `token` at `now`, in seconds since 1970: until 10 s before its end, which it says
/// itself if it is a JWT.
fn lifetime(token: &Secret, now: u64) -> Duration {
    #[derive(Deserialize)]
    struct Claims {
        exp: u64,
    }
    // Not a decision about trust: Marathon checks its tokens itself.
    let claims = jsonwebtoken::dangerous::insecure_decode_claims(token.expose());
    let left = claims.map_or(ServiceAccount::TOKEN_LIFETIME, |claims: Claims| {
        Duration::from_secs(claims.exp.saturating_sub(now)).min(ServiceAccount::TOKEN_LIFETIME)
    });
    // Short-lived ones are used for half of their life, and clocks that differ must not lead to
    // a login with every request.
    left.saturating_sub(Duration::from_secs(10)).max(left / 2).max(Duration::from_secs(1))
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{KeyPair, PKCS_RSA_SHA256};

    use super::*;

    #[test]
    fn a_password_may_have_colons_and_is_never_shown() {
        let Credentials::Basic(basic) = Credentials::basic("joe:a:b: c\r\n").unwrap() else {
            panic!("not basic");
        };
        assert_eq!((basic.user.as_str(), basic.password.expose()), ("joe", "a:b: c"));
        assert_eq!(format!("{basic:?}"), r#"Basic { user: "joe", password: *** }"#);
        assert!(Credentials::basic("joe").is_err());
    }

    #[test]
    fn secrets_come_from_files() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        io::Write::write_all(&mut file, b"joe:pw\n").unwrap();
        assert_eq!(read_secret(file.path()).unwrap().expose(), "joe:pw\n");
        let error = read_secret(Path::new("/no/such")).unwrap_err().to_string();
        assert_eq!(error, "/no/such: cannot be read");
    }

    #[test]
    fn a_token_may_come_with_the_name_of_its_header() {
        for text in ["abc.d", "token=abc.d\n", "  abc.d "] {
            let Credentials::Token(token) = Credentials::token(text).unwrap() else {
                panic!("not a token");
            };
            assert_eq!(token.expose(), "abc.d");
        }
        for text in ["", "token=", "a b", "ä"] {
            assert!(Credentials::token(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_wrong_service_account_says_what_is_wrong_but_not_what_it_says() {
        let login = Some("https://dcos/login");
        for (json, login, message) in [
            ("{\"uid\":\"u\",\n\"password\":hunter2}", login, "(line 2, column 12)"),
            ("[]", login, "is not a JSON document"),
            (r#"{"uid":"u"}"#, login, "neither `private_key` nor `password`"),
            (r#"{"uid":"u","password":"hunter2"}"#, None, "login endpoint is missing"),
            (r#"{"uid":"u","password":"hunter2"}"#, Some("ftp://x"), "login endpoint is missing"),
            (r#"{"uid":"u","private_key":"hunter2"}"#, login, "not an RSA key in PEM"),
            (r#"{"uid":"u","password":"hunter2","scheme":"none"}"#, login, "only RS256"),
        ] {
            let error = Credentials::service_account(json, login).unwrap_err().to_string();
            assert!(error.contains(message) && !error.contains("hunter2"), "{error}");
        }
        let json = r#"{"uid":"u","password":"hunter2","login_endpoint":"https://dcos/a"}"#;
        for (login, url) in [(None, "https://dcos/a"), (login, "https://dcos/login")] {
            let account = ServiceAccount::parse(json, login).unwrap();
            assert_eq!(account.login.as_str(), url);
            assert!(!format!("{account:?}").contains("hunter2"));
            let body = account.login_body(1000).unwrap();
            assert_eq!(body, r#"{"password":"hunter2","uid":"u"}"#);
        }
    }

    #[test]
    fn a_key_signs_a_proof_of_a_minute_for_a_login_of_an_hour() {
        let pem = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap().serialize_pem();
        let json = serde_json::json!({ "uid": "svc", "private_key": pem }).to_string();
        let account = ServiceAccount::parse(&json, Some("https://dcos/login")).unwrap();
        let body: serde_json::Value =
            serde_json::from_str(&account.login_body(1000).unwrap()).unwrap();
        assert_eq!((&body["uid"], &body["exp"]), (&"svc".into(), &4600.into()));
        let claims: serde_json::Value =
            jsonwebtoken::dangerous::insecure_decode_claims(body["token"].as_str().unwrap())
                .unwrap();
        assert_eq!(claims, serde_json::json!({ "uid": "svc", "exp": 1060 }));
    }

    #[test]
    fn the_token_is_taken_from_the_body_or_the_cookie() {
        let cookie = "dcos-acs-auth-cookie=c1; Path=/; HttpOnly";
        let table: &[(&str, &[&str], Option<&str>)] = &[
            (r#"{"token":"b1"}"#, &[cookie], Some("b1")),
            ("", &["a=b", cookie], Some("c1")),
            ("<html>", &["dcos-acs-auth-cookie=\"c2\""], Some("c2")),
            ("{}", &["dcos-acs-auth-cookie=; Path=/"], None),
            (r#"{"token":"with space"}"#, &[], None),
            ("", &[], None),
        ];
        for (body, cookies, token) in table {
            let found = token_of(body.as_bytes(), cookies.iter().copied());
            assert_eq!(found.as_ref().map(Secret::expose), *token, "{body}");
        }
    }

    #[test]
    fn a_token_is_renewed_ten_seconds_before_its_end() {
        let token = |exp: u64| {
            let key = EncodingKey::from_secret(b"x");
            let claims = serde_json::json!({ "exp": exp });
            Secret::new(jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap())
        };
        for (token, seconds) in [
            (token(1000 + 600), 590),
            (token(1000 + 90_000), 3590),
            (token(1000 + 12), 6),
            (token(3), 1),
            (Secret::new("opaque"), 3590),
        ] {
            assert_eq!(lifetime(&token, 1000), Duration::from_secs(seconds));
        }
    }

    proptest! {
        #[test]
        fn no_answer_of_a_login_makes_it_panic(body: Vec<u8>, cookie in ".*", token in ".*") {
            drop(token_of(&body, [cookie.as_str()].into_iter()));
            let _used = lifetime(&Secret::new(token), 1000);
        }
    }
}
