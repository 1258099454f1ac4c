//! Hosts as people write them into labels.

use std::net::Ipv4Addr;

/// Wildcards stand for the last labels of a host, of which at most five are looked up
/// ([`shared::host::lookup_names`]).
const MAX_WILDCARD_LABELS: usize = 5;

/// The text behind `frontend:` for a host of a label.
pub(super) fn normalize(text: &str) -> Result<String, String> {
    let quoted = || format!("`{}`", crate::document::shorten(text));
    if text == "*" {
        return Ok("*".to_owned());
    }
    let (is_wildcard, name) = match text.strip_prefix("*.") {
        Some(name) => (true, name),
        None => (false, text),
    };
    if name.contains('*') {
        return Err(format!("{}: `*` can only stand for the whole beginning, as `*.`", quoted()));
    }
    if name.contains('/') {
        return Err(format!("{}: only a host can be routed, neither URL nor path", quoted()));
    }
    let normalized = shared::host::normalize(name.as_bytes())
        .map_err(|error| format!("{}: {error}", quoted()))?;
    // Hosts are looked up without their port, so such a list would never be found.
    let has_port = name.rsplit_once(':').is_some_and(|(_, rest)| !rest.contains(']'));
    if has_port {
        return Err(format!("{}: hosts are routed whatever their port; leave it away", quoted()));
    }
    if normalized == shared::host::PING {
        return Err(format!("{}: reserved for the router's own health check", quoted()));
    }
    if !is_wildcard {
        return Ok(normalized.into_owned());
    }
    if normalized.starts_with('[') || normalized.split('.').count() > MAX_WILDCARD_LABELS {
        return Err(format!(
            "{}: no host is looked up under it, as wildcards have at most {MAX_WILDCARD_LABELS} \
             labels behind `*.`",
            quoted()
        ));
    }
    Ok(format!("*.{normalized}"))
}

/// The identifier that the bridge gives a list: the first label of the host. Where that says
/// nothing: of a wildcard the label behind the star, of an address the whole, of `*` the last
/// part of the app's id.
pub fn identifier(host: &str, app: &str) -> String {
    if host == "*" {
        return app.rsplit('/').next().unwrap_or(app).to_owned();
    }
    let name = host.strip_prefix("*.").unwrap_or(host);
    if name.starts_with('[') || name.parse::<Ipv4Addr>().is_ok() {
        return name.to_owned();
    }
    name.split('.').next().unwrap_or(name).to_owned()
}
