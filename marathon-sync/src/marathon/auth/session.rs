//! Logging in and staying logged in.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{AUTHORIZATION, CONTENT_TYPE, SET_COOKIE};
use http::{HeaderValue, StatusCode};
use shared::lock::lock;
use shared::secret::Secret;
use shared::time_limit::timeout;
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Basic, Credentials, CredentialsError, ReadFrom, ServiceAccount, lifetime, token_of};
use crate::marathon::answer::{read_up_to, seen};

/// Bytes of a login's answer that are read. Tokens have some hundred.
const ANSWER_LIMIT: usize = 64 * 1024;

/// Credentials with the login made with them, shared by all requests.
#[derive(Debug)]
pub(in crate::marathon) struct Session {
    credentials: std::sync::Mutex<Credentials>,
    from: std::sync::Mutex<ReadFrom>,
    /// Held during a login, so that all who need one wait for the same. Only a login is ever waited
    /// for, and that has a limit.
    login: Mutex<Login>,
    /// For one login as a whole.
    limit: Duration,
}

#[derive(Debug, Default)]
struct Login {
    token: Option<Token>,
    /// How many logins there have been.
    number: u64,
}

#[derive(Debug)]
struct Token {
    header: HeaderValue,
    renew_at: Instant,
}

/// What one request carries.
#[derive(Clone, Debug)]
pub(in crate::marathon) enum Pass {
    Basic(Basic),
    None,
    /// The header, and the number of the login that it is from, if it is from one.
    Token(HeaderValue, Option<u64>),
}

impl Pass {
    pub(in crate::marathon) fn apply(
        &self,
        to: reqwest::RequestBuilder,
    ) -> reqwest::RequestBuilder {
        match self {
            Self::Basic(basic) => to.basic_auth(&basic.user, Some(basic.password.expose())),
            Self::None => to,
            Self::Token(header, _) => to.header(AUTHORIZATION, header),
        }
    }
}

/// Why a login failed.
#[derive(Debug, Error)]
pub enum LoginError {
    /// No answer.
    #[error("cannot reach the login endpoint")]
    Exchange(#[source] reqwest::Error),
    /// An answer without a token.
    #[error("the login endpoint answered without a token")]
    NoToken,
    /// The private key does not sign.
    #[error("cannot sign with the service account's private key")]
    Sign(#[source] jsonwebtoken::errors::Error),
    /// An answer that says no.
    #[error("the login endpoint answered {status}: {seen}; check the service account")]
    Status {
        /// Its status.
        status: StatusCode,
        /// The beginning of its body.
        seen: String,
    },
    /// It took too long.
    #[error("the login took longer than {0:?}")]
    TimedOut(Duration),
}

impl Session {
    pub(in crate::marathon) fn new(credentials: Credentials, limit: Duration) -> Self {
        let credentials = std::sync::Mutex::new(credentials);
        Self { credentials, from: std::sync::Mutex::default(), login: Mutex::default(), limit }
    }

    /// Says where the credentials come from: they are read there again when Marathon refuses them.
    pub(in crate::marathon) fn read_from(&self, from: ReadFrom) {
        *lock(&self.from) = from;
    }

    /// What a request carries that is sent now; logs in if that has to be.
    pub(in crate::marathon) async fn pass(
        &self,
        http: &reqwest::Client,
    ) -> Result<Pass, LoginError> {
        let credentials = lock(&self.credentials).clone();
        match credentials {
            Credentials::Basic(basic) => Ok(Pass::Basic(basic)),
            Credentials::None => Ok(Pass::None),
            Credentials::Token(token) => Ok(Pass::Token(header(&token)?, None)),
            Credentials::ServiceAccount(account) => match self.log_in(http, &account).await {
                Err(error @ LoginError::Status { .. }) => {
                    if !self.read_again().await.unwrap_or(false) {
                        return Err(error);
                    }
                    let renewed = lock(&self.credentials).clone();
                    let Credentials::ServiceAccount(account) = renewed else { return Err(error) };
                    self.log_in(http, &account).await
                }
                result => result,
            },
        }
    }

    async fn log_in(
        &self,
        http: &reqwest::Client,
        account: &ServiceAccount,
    ) -> Result<Pass, LoginError> {
        let mut login = self.login.lock().await;
        if let Some(token) = login.token.as_ref().filter(|t| t.renew_at > Instant::now()) {
            return Ok(Pass::Token(token.header.clone(), Some(login.number)));
        }
        let token = timeout(self.limit, log_in(http, account))
            .await
            .map_err(|_elapsed| LoginError::TimedOut(self.limit))??;
        let header = token.header.clone();
        login.number += 1;
        login.token = Some(token);
        Ok(Pass::Token(header, Some(login.number)))
    }

    /// Notes that Marathon refused `pass`. Says whether another one may do better: a login may have
    /// ended early, a file may hold another password or token by now.
    pub(in crate::marathon) async fn refused(&self, pass: &Pass) -> bool {
        // A file that cannot be read now leaves what there is.
        let _has_changed = self.read_again().await;
        if let Pass::Token(_, Some(number)) = pass {
            let mut login = self.login.lock().await;
            if login.number == *number {
                login.token = None;
            }
            return true;
        }
        match (pass, &*lock(&self.credentials)) {
            (Pass::Basic(used), Credentials::Basic(now)) => used != now,
            (Pass::Token(used, None), Credentials::Token(now)) => {
                header(now).is_ok_and(|now| *used != now)
            }
            _ => false,
        }
    }

    /// Reads the credentials where they come from. Returns whether they have changed; a login that was
    /// made with others is used no more.
    ///
    /// # Errors
    ///
    /// When the file cannot be used. The credentials stay as they are.
    pub(in crate::marathon) async fn read_again(&self) -> Result<bool, CredentialsError> {
        let source = lock(&self.from).source.clone();
        let Some(path) = source.path().map(Path::to_owned) else { return Ok(false) };
        let read = tokio::task::spawn_blocking(move || source.read()).await;
        let (text, credentials) = read.unwrap_or_else(|panic| {
            Err(CredentialsError::File { path, source: std::io::Error::other(panic) })
        })?;
        let before = std::mem::replace(&mut lock(&self.from).text, text.clone());
        if before == text {
            return Ok(false);
        }
        *lock(&self.credentials) = credentials;
        self.login.lock().await.token = None;
        Ok(true)
    }
}

async fn log_in(http: &reqwest::Client, account: &ServiceAccount) -> Result<Token, LoginError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let body = account.login_body(now).map_err(LoginError::Sign)?;
    let mut response = http
        .post(account.login.clone())
        .header(CONTENT_TYPE, "application/json")
        .body(body)
        .send()
        .await
        .map_err(LoginError::Exchange)?;
    let status = response.status();
    let cookies: Vec<HeaderValue> =
        response.headers().get_all(SET_COOKIE).iter().cloned().collect();
    let body = read_up_to(&mut response, ANSWER_LIMIT).await.map_err(LoginError::Exchange)?;
    if status != StatusCode::OK {
        return Err(LoginError::Status { status, seen: seen(&body) });
    }
    let cookies = cookies.iter().filter_map(|cookie| cookie.to_str().ok());
    let token = token_of(&body, cookies).ok_or(LoginError::NoToken)?;
    Ok(Token { header: header(&token)?, renew_at: Instant::now() + lifetime(&token, now) })
}

fn header(token: &Secret) -> Result<HeaderValue, LoginError> {
    // Cannot fail: both places where tokens come from let only printable ASCII pass.
    let mut value = HeaderValue::try_from(format!("token={}", token.expose()))
        .map_err(|_invalid| LoginError::NoToken)?;
    value.set_sensitive(true);
    Ok(value)
}
