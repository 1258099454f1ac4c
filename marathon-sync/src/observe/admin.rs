//! The admin listener: `/livez`, `/readyz`, `/metrics`, `/status` and `/status?app=/id`. Read only;
//! listens on an address of its own, and only where it is told to.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode, Uri};
use http_body_util::Full;
use jiff::Timestamp;
use serde::Serialize;
use shared::admin::{Hosts, JSON, Limits, OPEN_METRICS, text, typed};

use super::metrics::Metrics;
use super::readiness::readiness;
use super::status::{AppDetail, Status};
use super::{Facts, Observed};

/// `/status` of a large cluster has a megabyte: fewer at a time than a router serves.
const LIMITS: Limits = Limits { connections: 16, time: Duration::from_secs(10) };

/// Why there is no admin listener.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for --admin; choose another address")]
pub struct BindError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

/// Takes the address; port 0 is any free one.
///
/// # Errors
///
/// When it cannot be had.
pub fn bind(address: SocketAddr) -> Result<std::net::TcpListener, BindError> {
    let failed = |source| BindError { address, source };
    let socket = std::net::TcpListener::bind(address).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    Ok(socket)
}

/// Serves what is to be seen of `observed` for ever; `hosts` are further names of the listener.
///
/// # Errors
///
/// When the socket cannot be used.
pub async fn serve(
    socket: std::net::TcpListener,
    observed: Arc<Observed>,
    hosts: Vec<String>,
) -> io::Result<()> {
    let metrics = Metrics::new(Arc::clone(&observed));
    let answer = move |uri: &Uri| match uri.path() {
        "/metrics" => typed(StatusCode::OK, OPEN_METRICS, metrics.text()),
        _ => answer(uri, &observed, &observed.facts(), Timestamp::now()),
    };
    let hosts = Hosts::new(hosts, "--admin-hosts");
    shared::admin::serve(socket, LIMITS, hosts, answer).await
}

fn answer(uri: &Uri, observed: &Observed, facts: &Facts, now: Timestamp) -> Response<Full<Bytes>> {
    let identity = &observed.identity;
    match uri.path() {
        "/livez" => text(StatusCode::OK, "ok\n"),
        "/readyz" => match readiness(facts, identity.stale_after, now) {
            Ok(role) => text(StatusCode::OK, format!("ok, {role}\n")),
            Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        },
        "/status" => match app(uri) {
            None => json(&Status::of(identity, facts, now)),
            Some(id) => detail(&id, facts),
        },
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /livez, /readyz, /metrics, /status and /status?app=/id\n",
        ),
    }
}

/// The app that is asked for, with or without its first slash.
fn app(uri: &Uri) -> Option<String> {
    let query = uri.query()?;
    let (_, id) = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "app")?;
    Some(super::app_id(&id))
}

fn detail(id: &str, facts: &Facts) -> Response<Full<Bytes>> {
    let Some(pass) = &facts.view.pass else {
        return text(StatusCode::SERVICE_UNAVAILABLE, "Marathon has not answered yet\n");
    };
    match pass.apps.get(id) {
        Some(app) => json(&AppDetail::of(id, app)),
        None => text(
            StatusCode::NOT_FOUND,
            format!("Marathon's last answer has no app {id}{}\n", super::similar(id, pass)),
        ),
    }
}

fn json(document: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec_pretty(document) {
        Ok(mut body) => {
            body.push(b'\n');
            typed(StatusCode::OK, JSON, body)
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use jiff::Timestamp;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::super::testing::{leader, observed, pass};
    use super::{bind, serve};

    async fn get(address: SocketAddr, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: admin\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.expect("a status"), body.to_owned())
    }

    #[tokio::test]
    async fn the_listener_tells_life_readiness_metrics_and_status() {
        let observed = Arc::new(observed());
        let socket = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap();
        drop(tokio::spawn(serve(socket, Arc::clone(&observed), Vec::new())));

        assert_eq!(get(address, "/livez").await, (200, "ok\n".to_owned()));
        let (status, reason) = get(address, "/readyz").await;
        assert!(status == 503 && reason.starts_with("it is not known which"), "{reason}");
        assert_eq!(get(address, "/status?app=/a").await.0, 503);
        observed.state.update(|view| {
            view.standing = leader();
            view.succeeded = Some(Timestamp::now());
            view.pass = Some(Arc::new(pass()));
        });
        assert_eq!(get(address, "/readyz").await, (200, "ok, leader\n".to_owned()));
        let (status, metrics) = get(address, "/metrics").await;
        assert!(status == 200 && metrics.contains("\nmarathon_sync_ready 1.0\n"), "{metrics}");
        let (status, document) = get(address, "/status").await;
        let document: serde_json::Value = serde_json::from_str(&document).unwrap();
        assert_eq!((status, &document["ready"]), (200, &true.into()));
        for path in ["/status?app=/a", "/status?x=1&app=%2Fa", "/status?app=a"] {
            let (status, document) = get(address, path).await;
            let document: serde_json::Value = serde_json::from_str(&document).unwrap();
            assert_eq!((status, &document["id"]), (200, &"/a".into()), "{path}");
        }
        assert_eq!(get(address, "/status?app=/none").await.0, 404);
        assert_eq!(get(address, "/nothing").await.0, 404);
        observed.is_ending.store(true, Ordering::Relaxed);
        assert_eq!(get(address, "/readyz").await, (503, "ending\n".to_owned()));
    }

    #[test]
    fn an_address_that_cannot_be_had_is_named() {
        let taken = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = taken.local_addr().unwrap();
        let error = bind(address).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()), "{error}");
    }
}
