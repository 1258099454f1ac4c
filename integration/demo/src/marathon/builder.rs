//! What is said about a Marathon before it starts.

use std::sync::Arc;

use super::Marathon;
use super::auth::Auth;
use super::dialect::Dialect;
use super::shared::Shared;
use super::tls::Tls;
use crate::ports::Reserved;

/// How a Marathon is to be started.
#[derive(Debug)]
pub struct Builder {
    dialect: Dialect,
    auth: Auth,
    base: String,
    tls: bool,
    port: Option<Reserved>,
    controlled: bool,
}

impl Builder {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            auth: Auth::Open,
            base: String::new(),
            tls: false,
            port: None,
            controlled: false,
        }
    }

    /// Asks every request for this.
    #[must_use]
    pub fn auth(mut self, auth: Auth) -> Self {
        self.auth = auth;
        self
    }

    /// Serves below a path, e.g. `/service/marathon`; the login of DC/OS, too.
    #[must_use]
    pub fn base_path(mut self, base: &str) -> Self {
        base.trim_end_matches('/').clone_into(&mut self.base);
        self
    }

    /// Serves HTTPS with a certificate for 127.0.0.1 and `localhost` by an
    /// [authority](Marathon::authority) of its own.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Listens there instead of on a free port of 127.0.0.1.
    #[must_use]
    pub fn port(mut self, port: Reserved) -> Self {
        self.port = Some(port);
        self
    }

    /// Serves the control API below `/_fake/`, too.
    #[must_use]
    pub fn controlled(mut self) -> Self {
        self.controlled = true;
        self
    }

    /// Starts the first process of a cluster, which leads it.
    pub fn start(self) -> Marathon {
        let shared = Arc::new(Shared::new(self.dialect, self.auth));
        let tls = self.tls.then(Tls::new);
        Marathon::launch(shared, self.port.unwrap_or_default(), &self.base, tls, self.controlled)
    }
}
