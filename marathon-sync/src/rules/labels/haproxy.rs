//! The labels of marathon-lb: `HAPROXY_n_VHOST` and those that decide whether it counts.

use std::collections::BTreeMap;

use super::{Collector, Options};
use crate::document::App;
use crate::rules::address::PortRef;

/// Settings of a port by name, without `HAPROXY_n_`.
type Settings<'a> = BTreeMap<&'a str, (&'a str, &'a str)>;

/// A virtual host must not be served without these: they protect it, or change its paths.
const NEEDED: &[(&str, &str)] = &[
    ("AUTH", "requests would get through without the password that it asks for"),
    ("BACKEND_NETWORK_ALLOWED_ACL", "requests would get through from everywhere"),
    ("HTTP_BACKEND_PROXYPASS_PATH", "paths cannot be rewritten"),
    ("HTTP_BACKEND_REDIR", "redirects cannot be expressed"),
    ("HTTP_BACKEND_REVPROXY_PATH", "paths cannot be rewritten"),
    ("PATH", "only whole hosts can be routed, not paths"),
];

/// Why a group alone brings nothing.
pub(super) const NO_VHOST: &str = "there is no HAPROXY_n_VHOST: its service ports are plain TCP in marathon-lb, which \
                        is not carried";

/// Settings that are obeyed.
const OBEYED: &[&str] = &["ENABLED", "GROUP", "MODE", "VHOST"];

pub(super) fn read(app: &App, options: &Options, collector: &mut Collector<'_>) {
    let mut ports: BTreeMap<usize, Settings<'_>> = BTreeMap::new();
    for (label, value) in &app.labels {
        let Some(rest) = label.strip_prefix("HAPROXY_") else { continue };
        let Some((index, name)) = rest.split_once('_') else { continue };
        let Ok(index) = index.parse() else { continue };
        let _only = ports.entry(index).or_default().insert(name, (label, value));
    }
    let app_groups = app.labels.get("HAPROXY_GROUP").map_or("", String::as_str);
    for (index, settings) in &ports {
        port(*index, settings, app_groups, options, collector);
    }
    let has_vhost = ports.values().any(|settings| settings.contains_key("VHOST"));
    if !has_vhost && app.labels.contains_key("HAPROXY_GROUP") {
        without_vhost(app_groups, &ports, options, collector);
    }
}

/// A group without a virtual host: marathon-lb opens the app's service ports then, in plain TCP.
fn without_vhost(
    groups: &str,
    ports: &BTreeMap<usize, Settings<'_>>,
    options: &Options,
    collector: &mut Collector<'_>,
) {
    if !in_groups(groups, &options.groups) {
        let reason = format!("its HAPROXY_GROUP `{groups}` is not among the groups asked for");
        return collector.skip(reason);
    }
    // That of a port says more.
    let is_named = ports.values().any(|settings| {
        settings.contains_key("PORT") || settings.get("MODE").is_some_and(|(_, mode)| is_tcp(mode))
    });
    if !is_named {
        collector.refuse("HAPROXY_GROUP", NO_VHOST.to_owned());
    }
}

fn port(
    index: usize,
    settings: &Settings<'_>,
    app_groups: &str,
    options: &Options,
    collector: &mut Collector<'_>,
) {
    let groups = settings.get("GROUP").map_or(app_groups, |(_, value)| value);
    if !in_groups(groups, &options.groups) {
        let reason = format!("its HAPROXY_GROUP `{groups}` is not among the groups asked for");
        return collector.skip(reason);
    }
    let is_enabled = settings.get("ENABLED").map_or(!options.strict, |(_, value)| is_true(value));
    if !is_enabled {
        return collector.skip(format!("HAPROXY_{index}_ENABLED is not true"));
    }
    if let Some((label, _)) = settings.get("MODE").filter(|(_, mode)| is_tcp(mode)) {
        return collector.refuse(label, "only HTTP can be routed, not TCP".to_owned());
    }
    let Some((label, hosts)) = settings.get("VHOST") else {
        if let Some((label, _)) = settings.get("PORT") {
            let reason = "a port of its own cannot be opened; a VHOST is needed".to_owned();
            collector.refuse(label, reason);
        } else if let Some((label, _)) = settings.get("GROUP") {
            collector.refuse(label, NO_VHOST.to_owned());
        }
        return;
    };
    let needed = NEEDED.iter().find_map(|(name, why)| Some((settings.get(name)?.0, why)));
    if let Some((needed, why)) = needed {
        return collector.refuse(label, format!("it comes with `{needed}`, and {why}"));
    }
    collector.hosts(label, hosts, &PortRef::Index(index));
    for (name, (label, _)) in settings {
        if !OBEYED.contains(name) {
            let reason = "has no counterpart here; the host is routed without it".to_owned();
            collector.refuse(label, reason);
        }
    }
}

fn in_groups(own: &str, wanted: &[String]) -> bool {
    let mut own = own.split(',').map(str::trim).filter(|group| !group.is_empty());
    wanted.iter().any(|group| group == "*") || own.any(|group| wanted.iter().any(|w| w == group))
}

/// The words that marathon-lb takes for "yes".
fn is_true(value: &str) -> bool {
    matches!(value.trim().to_ascii_lowercase().as_str(), "true" | "t" | "yes" | "y")
}

fn is_tcp(mode: &str) -> bool {
    !mode.trim().eq_ignore_ascii_case("http")
}
