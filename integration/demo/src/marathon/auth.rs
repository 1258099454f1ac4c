//! Who may ask: basic authentication, a static token, or the login of a DC/OS service account.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::Deserialize;
use serde_json::{Value, json};

use super::http::{Answer, Request};

/// Where DC/OS logs service accounts in.
pub const LOGIN_PATH: &str = "/acs/api/v1/auth/login";

/// Seconds by which the clocks of the two sides may differ.
const LEEWAY: u64 = 5;

/// What requests have to show.
#[derive(Clone, Debug, Default)]
pub enum Auth {
    /// Nothing.
    #[default]
    Open,
    /// `Authorization: Basic …` of this user and password.
    Basic(String, String),
    /// `Authorization: token=…` with this token.
    Token(String),
    /// `Authorization: token=…` with a token from the login.
    Dcos(Dcos),
}

/// The side of DC/OS that gives tokens to one service account.
#[derive(Clone)]
pub struct Dcos {
    uid: String,
    public_key: String,
    lifetime: Duration,
    tokens: BTreeMap<String, u64>,
    given: u64,
}

impl fmt::Debug for Dcos {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Dcos").field("uid", &self.uid).finish_non_exhaustive()
    }
}

/// What a service account keeps in its file of credentials.
#[derive(Clone, Debug)]
pub struct ServiceAccount {
    /// Its name.
    pub uid: String,
    /// RSA key, PKCS #8 in PEM.
    pub private_key: String,
}

impl ServiceAccount {
    /// An account with a new key; takes a moment.
    pub fn new(uid: &str) -> (Self, Dcos) {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("an RSA key");
        let account = Self { uid: uid.to_owned(), private_key: key.serialize_pem() };
        let dcos = Dcos {
            uid: uid.to_owned(),
            public_key: key.public_key_pem(),
            lifetime: Duration::from_secs(3600),
            tokens: BTreeMap::new(),
            given: 0,
        };
        (account, dcos)
    }

    /// The credentials as their file holds them.
    pub fn credentials(&self, login_endpoint: &str) -> Value {
        json!({
            "uid": self.uid,
            "private_key": self.private_key,
            "login_endpoint": login_endpoint,
            "scheme": "RS256",
        })
    }
}

#[derive(Deserialize)]
struct Login {
    uid: String,
    token: String,
    #[serde(default)]
    exp: Option<u64>,
}

#[derive(Deserialize)]
struct Claims {
    uid: String,
}

impl Dcos {
    /// Tokens from now on hold that long, but no longer than the login asks for.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Makes every token that was given worthless.
    pub(super) fn revoke(&mut self) {
        self.tokens.clear();
    }

    fn login(&mut self, request: &Request) -> Answer {
        match self.token_for(&request.body) {
            Ok(token) => {
                let cookie = format!("dcos-acs-auth-cookie={token}; Path=/; HttpOnly");
                Answer::new(200, "application/json", json!({ "token": token }).to_string())
                    .with("Set-Cookie", &cookie)
            }
            Err(reason) => {
                let body = json!({
                    "title": "Unauthorized",
                    "description": reason,
                    "code": "ERR_INVALID_CREDENTIALS",
                });
                Answer::new(401, "application/json", body.to_string())
            }
        }
    }

    fn token_for(&mut self, body: &[u8]) -> Result<String, String> {
        let login: Login = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let key = DecodingKey::from_rsa_pem(self.public_key.as_bytes())
            .map_err(|error| error.to_string())?;
        let mut rules = Validation::new(Algorithm::RS256);
        rules.leeway = LEEWAY;
        let claims = jsonwebtoken::decode::<Claims>(&login.token, &key, &rules)
            .map_err(|error| error.to_string())?
            .claims;
        if claims.uid != self.uid || login.uid != self.uid {
            return Err(format!("{} and {} are not {}", claims.uid, login.uid, self.uid));
        }
        let longest = now() + self.lifetime.as_secs();
        let expires = login.exp.unwrap_or(longest).min(longest);
        self.given += 1;
        let token = token(&self.uid, expires, self.given);
        self.tokens.insert(token.clone(), expires);
        Ok(token)
    }

    fn knows(&self, token: &str) -> bool {
        self.tokens.get(token).is_some_and(|expires| *expires > now())
    }
}

impl Auth {
    /// The answer to a request of the login; `None` for any other.
    pub(super) fn login(&mut self, request: &Request) -> Option<Answer> {
        match self {
            Self::Dcos(dcos) if request.path == LOGIN_PATH => Some(dcos.login(request)),
            Self::Open | Self::Basic(..) | Self::Token(_) | Self::Dcos(_) => None,
        }
    }

    /// The refusal of a request that does not show what it has to.
    pub(super) fn refuse(&self, request: &Request) -> Option<Answer> {
        let shown = request.head.header("authorization").unwrap_or_default();
        let token = || shown.strip_prefix("token=");
        let passes = match self {
            Self::Open => true,
            Self::Basic(user, password) => {
                shown.strip_prefix("Basic ")
                    == Some(&*STANDARD.encode(format!("{user}:{password}")))
            }
            Self::Token(known) => token() == Some(known),
            Self::Dcos(dcos) => token().is_some_and(|token| dcos.knows(token)),
        };
        match self {
            _ if passes => None,
            Self::Open | Self::Basic(..) => Some(unauthorized()),
            Self::Token(_) | Self::Dcos(_) => {
                let challenge = r#"acsjwt realm="local", authorization_uri="/acs/api/v1/auth""#;
                Some(Answer::html(401, "Unauthorized").with("WWW-Authenticate", challenge))
            }
        }
    }
}

/// 401 that asks for basic authentication.
pub(super) fn unauthorized() -> Answer {
    Answer::html(401, "Unauthorized").with("WWW-Authenticate", r#"Basic realm="Mesosphere""#)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A token in the form of a JWT, in which clients look for the expiry.
fn token(uid: &str, expires: u64, number: u64) -> String {
    let claims = json!({"uid": uid, "exp": expires, "jti": number.to_string()});
    jsonwebtoken::encode(
        &Header::default(),
        &claims,
        &EncodingKey::from_secret(b"the server's own"),
    )
    .expect("claims that are JSON")
}
