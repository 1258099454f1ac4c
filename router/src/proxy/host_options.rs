//! The third phase: what `options:<host>` requires of a request before a backend is chosen.

use std::sync::Arc;

use super::context::RequestContext;
use super::error::ProxyError;
use super::watch::while_client_waits;
use crate::client_io::ClientIo;
use crate::message::host_options::{credentials, redirect_location};
use crate::passwords::Verdict;
use crate::route::Route;
use crate::route::options::User;

/// Enforces the options. In this order: nobody is asked for a password in plain text, and a client that
/// `allow` excludes learns nothing else.
pub(super) async fn enforce(
    io: &mut ClientIo,
    cx: &mut RequestContext<'_>,
    route: &Route,
) -> Result<(), ProxyError> {
    let Some(options) = &route.options else { return Ok(()) };
    cx.options = Some(Arc::clone(options));
    let (head, buf) = (&cx.work.head, &cx.work.input[..]);
    let forwarding = cx.forwarding.as_ref();
    cx.is_https = forwarding.is_some_and(|forwarding| forwarding.came_by_https(head, buf));
    if let Some(status) = options.https_redirect
        && !cx.is_https
    {
        let location = redirect_location(&route.host, head, buf)
            .ok_or(ProxyError::BadRequest("invalid request target"))?;
        return Err(ProxyError::HttpsOnly { status, location });
    }
    let is_trusted = |address| cx.client.settings.is_trusted(address);
    let address = || forwarding.and_then(|it| it.client_address(head, buf, is_trusted));
    if options.allow.is_some() && !options.allows(address()) {
        return Err(ProxyError::NotAllowed);
    }
    if let Some(retry_after) = options.maintenance {
        return Err(ProxyError::Maintenance(retry_after));
    }
    match &options.basic_auth {
        Some(users) => Box::pin(authenticate(io, cx, users)).await,
        None => Ok(()),
    }
}

async fn authenticate(
    io: &mut ClientIo,
    cx: &mut RequestContext<'_>,
    users: &[User],
) -> Result<(), ProxyError> {
    let credentials = credentials(&cx.work.head, &cx.work.input);
    let Some((name, password)) = credentials else { return Err(ProxyError::Unauthorized) };
    cx.has_waited = true;
    let checking = cx.client.shared.passwords.check(users, &name, &password);
    match while_client_waits(io, cx.client, &mut cx.work.input, checking).await? {
        Verdict::Right => Ok(()),
        Verdict::Wrong => Err(ProxyError::Unauthorized),
        Verdict::Busy => Err(ProxyError::PasswordsBusy),
    }
}
