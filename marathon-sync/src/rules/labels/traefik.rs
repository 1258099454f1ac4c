//! The labels of traefik 1.7 and 2, as far as they name whole hosts.

use std::collections::BTreeSet;

use shared::backend::Scheme;

use super::Collector;
use crate::document::App;
use crate::rules::address::PortRef;

/// Parts of a 1.7 frontend that a host must not be served without.
const NEEDED_1: &[&str] = &["auth", "redirect", "whiteList", "whitelistSourceRange"];

pub(super) fn read(app: &App, collector: &mut Collector<'_>) {
    let enable = app.labels.get("traefik.enable").map(|value| value.trim());
    if enable.is_some_and(|value| value.eq_ignore_ascii_case("false")) {
        return collector.skip("traefik.enable is false".to_owned());
    }
    let mut is_ruled = false;
    for (label, rule) in &app.labels {
        let Some(rest) = label.strip_prefix("traefik.") else { continue };
        if rest.starts_with("tcp.") || rest.starts_with("udp.") {
            collector.refuse(label, "only HTTP can be routed, neither TCP nor UDP".to_owned());
        } else if let Some(router) = between(rest, "http.routers.", ".rule") {
            is_ruled = true;
            version_2(app, label, router, rule, collector);
        } else if let Some(base) = rest.strip_suffix("frontend.rule") {
            is_ruled = true;
            version_1(app, label, base.trim_end_matches('.'), rule, collector);
        }
    }
    if !is_ruled && enable.is_some() {
        let reason = "there is no rule, and hosts are not made up from ids of apps".to_owned();
        collector.refuse("traefik.enable", reason);
    }
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    text.strip_prefix(start)?.strip_suffix(end)
}

/// `traefik.frontend.rule`, or that of a segment: `Host:a.test,b.test`.
fn version_1(app: &App, label: &str, segment: &str, rule: &str, collector: &mut Collector<'_>) {
    let base = if segment.is_empty() { String::new() } else { format!("{segment}.") };
    for needed in NEEDED_1 {
        let prefix = format!("traefik.{base}frontend.{needed}");
        if let Some(name) = app.labels.keys().find(|name| name.starts_with(&prefix)) {
            let reason = format!("it comes with `{name}`, which cannot be carried out");
            return collector.refuse(label, reason);
        }
    }
    // A setting of the segment, or of the app.
    let setting = |name: &str| {
        let own = app.labels.get(&format!("traefik.{base}{name}"));
        own.or_else(|| app.labels.get(&format!("traefik.{name}"))).map(|value| value.trim())
    };
    let port = match (setting("port"), setting("portIndex")) {
        (Some(number), _) => number.parse().map(PortRef::Number).ok(),
        (None, Some(index)) => index.parse().map(PortRef::Index).ok(),
        (None, None) => Some(PortRef::Index(0)),
    };
    let mut hosts = Vec::new();
    for part in rule.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once(':') {
            Some((matcher, values)) if matcher.trim() == "Host" => {
                hosts.extend(values.split(',').map(str::trim).filter(|host| !host.is_empty()));
            }
            _ => return collector.refuse(label, only_hosts(part)),
        }
    }
    let scheme = scheme(setting("protocol"));
    claim(label, &hosts, port, scheme, collector);
}

/// `traefik.http.routers.<router>.rule`: ``Host(`a.test`) || Host(`b.test`)``.
fn version_2(app: &App, label: &str, router: &str, rule: &str, collector: &mut Collector<'_>) {
    let setting = |kind: &str, name: &str, rest: &str| {
        app.labels.get(&format!("traefik.http.{kind}.{name}.{rest}")).map(|value| value.trim())
    };
    if setting("routers", router, "middlewares").is_some_and(|names| !names.is_empty()) {
        let reason = "it comes with middlewares, which cannot be carried out".to_owned();
        return collector.refuse(label, reason);
    }
    let mut hosts = Vec::new();
    for part in rule.split("||").map(str::trim) {
        let Some(arguments) = between(part, "Host(", ")").filter(|inside| !inside.contains(')'))
        else {
            return collector.refuse(label, only_hosts(part));
        };
        hosts.extend(arguments.split(',').map(|host| host.trim().trim_matches(['`', '"'])));
    }
    let services: BTreeSet<&str> = app
        .labels
        .keys()
        .filter_map(|name| name.strip_prefix("traefik.http.services.")?.split('.').next())
        .collect();
    let service = match (setting("routers", router, "service"), services.len()) {
        (Some(service), _) => Some(service),
        (None, 0 | 1) => services.first().copied(),
        (None, _) => {
            let reason = "the app has several services and the router names none".to_owned();
            return collector.mistake(label, reason);
        }
    };
    let server = |rest: &str| setting("services", service?, &format!("loadbalancer.server.{rest}"));
    let port = match server("port") {
        None => Some(PortRef::Index(0)),
        Some(text) => match text.split_once(':') {
            Some(("index", index)) => index.parse().map(PortRef::Index).ok(),
            Some(("name", name)) => Some(PortRef::Name(name.to_owned())),
            Some(_) => None,
            None => text.parse().map(PortRef::Number).ok(),
        },
    };
    claim(label, &hosts, port, scheme(server("scheme")), collector);
}

fn claim(
    label: &str,
    hosts: &[&str],
    port: Option<PortRef>,
    scheme: Option<Scheme>,
    collector: &mut Collector<'_>,
) {
    let Some(port) = port else {
        return collector.mistake(label, "its port is neither a number nor an index".to_owned());
    };
    let Some(scheme) = scheme else {
        let reason = "its backends speak neither http nor https".to_owned();
        return collector.refuse(label, reason);
    };
    if let Err(reason) = collector.ports.check(&port) {
        return collector.mistake(label, reason);
    }
    for host in hosts {
        collector.host(label, host, &port, scheme);
    }
}

fn scheme(text: Option<&str>) -> Option<Scheme> {
    match text.map(str::to_ascii_lowercase).as_deref() {
        None | Some("" | "http") => Some(Scheme::Http),
        Some("https") => Some(Scheme::Https),
        Some(_) => None,
    }
}

fn only_hosts(part: &str) -> String {
    format!("only whole hosts can be routed, not `{}`", crate::document::shorten(part))
}
