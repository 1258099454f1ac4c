//! The dependency direction that ARCHITECTURE.md promises, read off the sources.

use std::collections::BTreeSet;
use std::path::Path;

/// Each module, with the modules of this crate that it may name.
const MAY_USE: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("coherence", &["clock"]),
    ("cli", &[]),
    ("clients", &["limits", "route"]),
    ("descriptors", &[]),
    ("route", &["clock", "suggest"]),
    ("healthcheck", &[]),
    ("http1", &[]),
    ("limits", &[]),
    ("listen", &[]),
    ("seldom", &["route"]),
    ("host_failures", &["route"]),
    ("grace", &["clock"]),
    ("passwords", &["route"]),
    ("privileges", &[]),
    ("message", &["http1"]),
    ("metrics", &[]),
    ("stream", &[]),
    ("suggest", &[]),
    ("admin", &["metrics"]),
    ("config", &["cli", "coherence", "descriptors", "limits", "suggest"]),
    ("access_log", &["clock", "config", "route"]),
    ("table", &["clock", "coherence", "grace", "route"]),
    ("tls", &["clock", "coherence", "config", "grace", "stream"]),
    ("buffers", &["descriptors", "pipes"]),
    ("pipes", &["descriptors"]),
    ("permit", &[]),
    ("client_io", &["stream"]),
    ("connection", &["clients", "clock", "http1", "limits", "permit", "route"]),
    ("dead_marks", &["clock", "route", "table"]),
    ("snapshot", &["clock", "route", "table"]),
    ("http2", &["connection", "http1", "route", "stream", "upstream"]),
    ("upstream", &["clock", "descriptors", "route", "seldom", "stream"]),
    ("pool", &["clock", "descriptors", "http1", "http2", "permit", "route", "stream", "upstream"]),
    (
        "proxy",
        &[
            "access_log",
            "buffers",
            "client_io",
            "clock",
            "connection",
            "dead_marks",
            "host_failures",
            "http1",
            "http2",
            "limits",
            "message",
            "metrics",
            "passwords",
            "pipes",
            "pool",
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
            "client_io",
            "clients",
            "clock",
            "connection",
            "descriptors",
            "http1",
            "http2",
            "limits",
            "listen",
            "metrics",
            "pool",
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
            "buffers",
            "clients",
            "clock",
            "coherence",
            "config",
            "dead_marks",
            "descriptors",
            "grace",
            "host_failures",
            "listen",
            "message",
            "metrics",
            "passwords",
            "pool",
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
    "coherence/cache.rs",
    "coherence/generations.rs",
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
    "pool/reuse.rs",
    "proxy/error.rs",
    "proxy/retry.rs",
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

/// HTTP/1 on the data path is ours: the library speaks HTTP/2, and HTTP/1 to whoever asks the admin listener.
#[test]
fn nothing_on_the_data_path_names_http1_of_the_library() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&root, &mut found);
    assert!(found.len() > 100);
    for path in found {
        let name = path.strip_prefix(&root).expect("below the sources").display().to_string();
        let source = std::fs::read_to_string(&path).expect("a source");
        assert!(!source.contains("conn::http1"), "{name}");
        let may_use = ["http2", "worker/http2.rs", "stream.rs", "upstream/connect.rs"];
        let is_edge = may_use.iter().any(|edge| name.starts_with(edge));
        assert!(is_edge || !source.contains("hyper::"), "{name}");
    }
}
