//! Labels that are not read, although they may have been meant for us.

use super::{IDENTIFIER_LABEL, Options};
use crate::document::App;

/// Letters that a misspelt name may differ by.
const MAX_DISTANCE: usize = 2;

/// Misspelt names of labels of `app`, and what was probably meant.
pub(super) fn misspelt<'a>(
    app: &'a App,
    options: &'a Options,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let known = [options.label.as_str(), IDENTIFIER_LABEL];
    app.labels.keys().filter_map(move |name| {
        let (base, _selector) = name.split_once('.').unwrap_or((name, ""));
        let meant = known.into_iter().find(|known| is_like(base, known))?;
        let is_known = known.contains(&base);
        (!is_known && !app.labels.contains_key(meant)).then_some((name.as_str(), meant))
    })
}

/// Whether one was probably meant by the other: but for case, hyphens and underscores, they differ by
/// little of their length.
fn is_like(name: &str, known: &str) -> bool {
    let plain = |text: &str| text.replace(['-', '_'], "").to_lowercase();
    let (name, known) = (plain(name), plain(known));
    let limit = MAX_DISTANCE.min(known.chars().count() / 4);
    name.len().abs_diff(known.len()) <= limit && strsim::osa_distance(&name, &known) <= limit
}

/// Labels of other balancers that are not read, and what makes them be read.
pub(super) fn other_labels(app: &App, options: &Options) -> Option<String> {
    let is_vhost = |name: &&String| name.starts_with("HAPROXY_") && name.ends_with("_VHOST");
    let is_rule = |name: &&String| {
        name.strip_prefix("traefik.").is_some_and(|rest| {
            rest.ends_with("frontend.rule")
                || (rest.starts_with("http.routers.") && rest.ends_with(".rule"))
        })
    };
    if options.groups.is_empty() {
        let group = app.labels.get("HAPROXY_GROUP").map(|group| group.trim());
        if let Some(name) = app.labels.keys().find(is_vhost) {
            let group = group.unwrap_or("*");
            return Some(format!(
                "labels of marathon-lb such as its `{name}` are read with `--group {group}`"
            ));
        }
        if group.is_some() {
            return Some(format!("its `HAPROXY_GROUP` is not read: {}", super::haproxy::NO_VHOST));
        }
    }
    let rule = app.labels.keys().find(is_rule).filter(|_| !options.traefik)?;
    Some(format!("labels of traefik such as its `{rule}` are read with --traefik"))
}

#[cfg(test)]
mod tests {
    use super::is_like;

    #[test]
    fn small_mistakes_are_alike_and_other_words_are_not() {
        for name in [
            "hipachefrontend",
            "hipacheFrontends",
            "hipache-frontend",
            "HIPACHE_FRONTEND",
            "hipacheFronted",
            "hipcaheFrontend",
        ] {
            assert!(is_like(name, "hipacheFrontend"), "{name}");
        }
        for name in ["hipache", "frontend", "hipacheBackend", "traefik.frontend", "", "team"] {
            assert!(!is_like(name, "hipacheFrontend"), "{name}");
        }
        assert!(!is_like("web", "vhost") && !is_like("vhos", "host"));
    }
}
