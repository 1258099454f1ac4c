//! The dependency direction that ARCHITECTURE.md promises, read off the sources.

use std::collections::BTreeSet;
use std::path::Path;

/// Each module, with the modules of this crate that it may name.
const MAY_USE: &[(&str, &[&str])] = &[
    ("clock", &["route"]),
    ("cli", &[]),
    ("clients", &["limits", "route"]),
    ("descriptors", &[]),
    ("fields", &[]),
    ("route", &["suggest"]),
    ("healthcheck", &[]),
    ("http1", &[]),
    ("limits", &[]),
    ("listen", &[]),
    ("seldom", &["route"]),
    ("host_failures", &["route"]),
    ("grace", &["route"]),
    ("passwords", &["route"]),
    ("privileges", &[]),
    ("message", &["http1"]),
    ("metrics", &[]),
    ("stream", &[]),
    ("suggest", &[]),
    ("admin", &["metrics"]),
    ("config", &["cli", "descriptors", "limits", "suggest"]),
    ("access_log", &["clock", "config", "route"]),
    ("table", &["clock", "config", "grace", "route"]),
    ("tls", &["clock", "config", "grace", "route", "stream"]),
    ("connection", &["access_log", "clients", "clock", "limits", "route", "stream"]),
    ("dead_marks", &["clock", "route", "table"]),
    ("snapshot", &["clock", "route", "table"]),
    ("http2", &["connection", "http1", "route", "stream", "upstream"]),
    ("request_body", &["connection", "fields"]),
    (
        "upstream",
        &["clock", "connection", "descriptors", "request_body", "route", "seldom", "stream"],
    ),
    (
        "proxy",
        &[
            "access_log",
            "clock",
            "connection",
            "dead_marks",
            "fields",
            "host_failures",
            "limits",
            "metrics",
            "passwords",
            "request_body",
            "route",
            "seldom",
            "stream",
            "table",
            "tls",
            "upstream",
        ],
    ),
    (
        "worker",
        &[
            "access_log",
            "clients",
            "clock",
            "connection",
            "descriptors",
            "limits",
            "listen",
            "metrics",
            "proxy",
            "route",
            "stream",
            "tls",
        ],
    ),
    (
        "app",
        &[
            "access_log",
            "admin",
            "clients",
            "clock",
            "config",
            "dead_marks",
            "descriptors",
            "grace",
            "host_failures",
            "listen",
            "metrics",
            "passwords",
            "privileges",
            "proxy",
            "route",
            "seldom",
            "snapshot",
            "table",
            "tls",
            "upstream",
            "worker",
        ],
    ),
];

/// Decisions only: no sockets, no clock, no randomness, no Redis.
const PURE: &[&str] = &[
    "http1/body.rs",
    "http1/chunked.rs",
    "http1/client.rs",
    "http1/connection.rs",
    "http1/encode.rs",
    "http1/error.rs",
    "http1/fields.rs",
    "http1/framing.rs",
    "http1/head.rs",
    "http1/known.rs",
    "http1/server.rs",
    "http1/server/steps.rs",
    "http1/target.rs",
    "http1/trailers.rs",
    "http2/error.rs",
    "http2/fields.rs",
    "http2/from_backend.rs",
    "http2/from_client.rs",
    "http2/to_backend.rs",
    "http2/to_client.rs",
    "http2/websocket.rs",
    "limits.rs",
    "message/client_info.rs",
    "message/forwarded.rs",
    "message/forwarding.rs",
    "message/hops.rs",
    "message/host_options.rs",
    "message/logins.rs",
    "message/request.rs",
    "message/request_head.rs",
    "message/request_ids.rs",
    "message/request_kind.rs",
    "message/response_head.rs",
    "message/text.rs",
    "route.rs",
    "route/options.rs",
    "route/saved.rs",
    "route/sticky.rs",
    "route/trust.rs",
    "snapshot/format.rs",
    "listen/proxy_protocol.rs",
    "upstream/guard.rs",
    "upstream/names/queue.rs",
    "upstream/names/state.rs",
    "proxy/forwarded.rs",
    "proxy/headers.rs",
    "proxy/headers/evidence.rs",
    "proxy/http2.rs",
    "proxy/request_id.rs",
    "proxy/request_kind.rs",
    "proxy/error.rs",
    "config/locate.rs",
    "config/openssl.rs",
];

fn sources(directory: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("the sources are there") {
        let path = entry.expect("the sources can be listed").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The source without its tests.
fn production(path: &Path) -> String {
    if path.ends_with("tests.rs") || path.parent().is_some_and(|folder| folder.ends_with("tests")) {
        return String::new();
    }
    let text = std::fs::read_to_string(path).expect("sources are text");
    text.split("#[cfg(test)]").next().unwrap_or_default().to_owned()
}

#[test]
fn modules_use_only_what_is_below_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut seen = BTreeSet::new();
    for file in files {
        let relative = file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        if relative == "main.rs" || relative == "lib.rs" {
            continue;
        }
        let module = relative.split(['/', '.']).next().unwrap().to_owned();
        let (_, allowed) = MAY_USE
            .iter()
            .find(|(name, _)| *name == module)
            .unwrap_or_else(|| panic!("say in this test what `{module}` may use"));
        for used in production(&file).split("crate::").skip(1) {
            let used: String =
                used.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            assert!(
                used == module || allowed.contains(&used.as_str()),
                "{relative} uses `{used}`, which is not below `{module}`"
            );
        }
        let _first = seen.insert(module);
    }
    assert_eq!(seen.len(), MAY_USE.len(), "this test names a module that is gone");
}

#[test]
fn pure_modules_touch_no_world() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in PURE {
        let text = production(&root.join(file));
        for banned in ["tokio", "redis::", "Instant", "SystemTime", "fastrand", "std::fs"] {
            assert!(!text.contains(banned), "{file} names `{banned}`");
        }
    }
}

/// `message` uses `http1` and no other library of messages, and is pure as a whole.
#[test]
fn what_is_done_to_fields_knows_no_other_message() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root.join("message"), &mut files);
    for file in files {
        let text = production(&file);
        for banned in ["hyper::", " http::", "bytes::Bytes", "std::io", "HeaderMap"] {
            assert!(!text.contains(banned), "{} names `{banned}`", file.display());
        }
        let relative = file.strip_prefix(&root).unwrap().to_str().unwrap();
        let is_test = relative.ends_with("testing.rs") || relative.ends_with("tests.rs");
        assert!(is_test || PURE.contains(&relative), "{relative} is not listed as pure");
    }
}

/// `http1` uses no HTTP library but `httparse`, and no I/O.
#[test]
fn the_message_layer_knows_no_other_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = vec![root.join("http1.rs")];
    sources(&root.join("http1"), &mut files);
    for file in files {
        let text = production(&file);
        for banned in ["hyper::", "http::", "bytes::", "std::io", "std::net", "tokio"] {
            assert!(!text.contains(banned), "{} names `{banned}`", file.display());
        }
        let relative = file.strip_prefix(&root).unwrap().to_str().unwrap();
        assert!(
            relative == "http1.rs" || PURE.contains(&relative),
            "{relative} is not listed as pure"
        );
    }
}
