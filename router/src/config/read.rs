//! Reads the file: its text, its shape, and what is to be said about both.

use std::path::{Path, PathBuf};

use serde::Deserializer;
use serde_json::Value;

use super::file::{Bind, ConfigFile, Object};
use super::locate::line_of;
use super::{ConfigError, numbers, words};
use crate::suggest::did_you_mean;

/// Every key that may stand in a file, for "did you mean".
const KEYS: &[&str] = &[
    "server",
    "http",
    "https",
    "driver",
    "user",
    "group",
    "redisHost",
    "redisPort",
    "redisPassword",
    "redisDatabase",
    "redisMasterHost",
    "redisMasterPort",
    "redisMasterPassword",
    "redisMasterDatabase",
    "debug",
    "workers",
    "maxSockets",
    "tcpTimeout",
    "deadBackendTTL",
    "retryOnError",
    "accessLog",
    "httpKeepAlive",
    "deadBackendOn500",
    "deadBackendOnTimeout",
    "staticDir",
    "lruCache",
    "cache",
    "snapshot",
    "emptyRedisGrace",
    "admin",
    "adminHosts",
    "connectTimeout",
    "tunnelIdleTimeout",
    "drainTimeout",
    "headTimeout",
    "firstByteTimeout",
    "idleTimeout",
    "maxHead",
    "maxHeaders",
    "maxUri",
    "maxBody",
    "minBodyRate",
    "maxRequests",
    "maxRequestsPerConnection",
    "maxConnections",
    "maxConnectionsPerAddress",
    "maxTunnels",
    "maxTunnelsPerBackend",
    "trustedProxies",
    "allowedBackends",
    "cookieKey",
    "forwarded",
    "requestIds",
    "plainIPv4",
    "size",
    "ttl",
    "port",
    "bind",
    "address",
    "key",
    "cert",
    "ca",
    "passphrase",
    "secureProtocol",
    "secureOptions",
    "ciphers",
    "honorCipherOrder",
    "proxyProtocol",
    "directory",
    "preset",
    "http2",
    "h2c",
    "backendCa",
    "address6",
    "errorMaxRetries",
    "redis",
    "host",
    "password",
    "database",
];

/// A file that was read and is of the right shape.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(super) file: ConfigFile,
    /// One sentence for each key that means nothing, or perhaps not what was wanted.
    pub(super) warnings: Vec<String>,
    /// Keys whose values came from older ones, and those.
    renamed: Vec<(String, &'static str)>,
}

impl Loaded {
    /// Notes that `key`, with all below it, was read from the older key `old`: messages name that.
    pub(super) fn rename(&mut self, key: &str, old: &'static str) {
        self.renamed.push((key.to_owned(), old));
    }

    /// The dotted key as it stands in the file.
    pub(super) fn written(&self, key: &str) -> String {
        let old = self.renamed.iter().find_map(|(new, old)| match key.strip_prefix(new.as_str()) {
            Some("") => Some((*old).to_owned()),
            Some(rest) if rest.starts_with('.') => Some(format!("{old}{rest}")),
            Some(_) | None => None,
        });
        old.unwrap_or_else(|| key.to_owned())
    }

    /// An error about the value at the dotted `key`.
    pub(super) fn error(&self, key: &str, problem: impl Into<String>) -> ConfigError {
        let key = self.written(key);
        let path: Vec<&str> = key.split('.').collect();
        ConfigError {
            file: Some(self.path.clone()),
            line: Some(line_of(&self.text, &path)),
            key: Some(key),
            problem: problem.into(),
        }
    }

    /// `file:line: key` of the dotted `key`, for warnings.
    pub(super) fn place(&self, key: &str) -> String {
        let key = self.written(key);
        let path: Vec<&str> = key.split('.').collect();
        format!("{}:{}: {key}", self.path.display(), line_of(&self.text, &path))
    }
}

/// Reads and parses `path`.
///
/// # Errors
///
/// When the file cannot be read, is no JSON, or a value has the wrong type.
pub(super) fn load(path: &Path) -> Result<Loaded, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
        file: Some(path.to_owned()),
        line: None,
        key: None,
        problem: format!("cannot be read: {error}"),
    })?;
    parse(path, text)
}

pub(super) fn parse(path: &Path, text: String) -> Result<Loaded, ConfigError> {
    // Node reads a file with a byte order mark only after cutting it off; editors still write it.
    let json = text.strip_prefix('\u{feff}').unwrap_or(&text);
    // Only where numbers stand in quotes is the file read from the tree: the text's own reader also
    // finds keys that stand there twice.
    let mut tree = serde_json::from_str::<Value>(json).ok();
    let changes = tree.as_mut().map(numbers::normalize).unwrap_or_default();
    let mut unknown = Vec::new();
    let result = match tree.as_ref().filter(|_| !changes.is_empty()) {
        Some(tree) => read(tree, &mut unknown),
        None => {
            let mut parser = serde_json::Deserializer::from_str(json);
            let file = read(&mut parser, &mut unknown);
            file.and_then(|file| match parser.end() {
                Ok(()) => Ok(file),
                Err(error) => Err((String::new(), error)),
            })
        }
    };
    let file = result.map_err(|(key, error)| wrong(path, json, &key, &error, tree.as_ref()))?;
    let warnings = unknown.iter().map(|key| unknown_key(path, json, key)).collect();
    let mut loaded = Loaded { path: path.to_owned(), text, file, warnings, renamed: Vec::new() };
    for (key, change) in changes {
        loaded.warnings.push(format!("{} {change}", loaded.place(&key)));
    }
    let local = without_address(&loaded);
    loaded.warnings.extend(local);
    Ok(loaded)
}

/// Reads the file, and notes the keys that mean nothing; an error comes with its dotted key.
fn read<'de, D: Deserializer<'de>>(
    deserializer: D,
    unknown: &mut Vec<String>,
) -> Result<ConfigFile, (String, D::Error)> {
    let mut note = |key: serde_ignored::Path<'_>| unknown.push(clean(&key.to_string()));
    let ignored = serde_ignored::Deserializer::new(deserializer, &mut note);
    let parsed: Result<Object<ConfigFile>, _> = serde_path_to_error::deserialize(ignored);
    match parsed {
        Ok(Object(file)) => Ok(file),
        Err(error) => Err((clean(&error.path().to_string()), error.into_inner())),
    }
}

/// What is wrong with the file, and where.
fn wrong(
    path: &Path,
    json: &str,
    key: &str,
    error: &serde_json::Error,
    tree: Option<&Value>,
) -> ConfigError {
    let is_syntax = error.is_syntax() || error.is_eof();
    let key = Some(key).filter(|key| !key.is_empty() && !is_syntax);
    let (line, problem) = if is_syntax {
        words::syntax(json, error)
    } else {
        let line = match key {
            Some(key) => line_of(json, &key.split('.').collect::<Vec<_>>()),
            None => error.line().max(1),
        };
        (line, words::value(&error.to_string(), key, tree))
    };
    let key = key.map(str::to_owned);
    ConfigError { file: Some(path.to_owned()), line: Some(line), key, problem }
}

/// A warning for each object of `bind` that leaves its address out: nobody else reaches 127.0.0.1.
fn without_address(loaded: &Loaded) -> Vec<String> {
    let file = &loaded.file;
    let sections = [("http", Some(&file.http)), ("https", Some(&file.https))];
    let mut warnings = Vec::new();
    for (name, section) in
        sections.into_iter().chain([("server.https", file.server.https.as_ref())])
    {
        let Some(binds) = section.and_then(|section| section.bind.as_ref()) else { continue };
        for (key, bind) in binds.list(name) {
            if matches!(bind, Bind::Object(object) if object.address.is_none()) {
                let place = loaded.place(&key);
                warnings.push(format!("{place} has no `address`: it listens on 127.0.0.1 only"));
            }
        }
    }
    warnings
}

fn unknown_key(path: &Path, json: &str, key: &str) -> String {
    let parts: Vec<&str> = key.split('.').collect();
    let name = parts.last().copied().unwrap_or(key);
    let place = format!("{}:{}", path.display(), line_of(json, &parts));
    match did_you_mean(name, KEYS) {
        Some(known) => format!("{place}: unknown key `{key}` is ignored; did you mean `{known}`?"),
        None => format!("{place}: unknown key `{key}` is ignored"),
    }
}

/// Both path crates mark an optional value with `?`, which is no part of the key.
fn clean(path: &str) -> String {
    path.split('.')
        .filter(|part| !matches!(*part, "" | "?"))
        .map(|part| part.replace('[', ".").replace(']', ""))
        .collect::<Vec<_>>()
        .join(".")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{KEYS, parse};

    fn error(text: &str) -> String {
        parse(Path::new("c.json"), text.to_owned()).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_file_line_key_and_what_was_expected() {
        assert_eq!(
            error("{\n \"server\": {\n  \"workers\": \"ten\"}}"),
            "c.json:3: server.workers: expected a whole number from 0 on, not \"ten\""
        );
        assert_eq!(
            error("{\"http\": {\n\"bind\": 7}}"),
            "c.json:2: http.bind: expected an address, or a list of addresses or of {address, \
             port} objects, not 7"
        );
        assert_eq!(
            error("{\"https\": {\"bind\": [\n{\"port\": 1},\n{\"port\": \"http\"}]}}"),
            "c.json:3: https.bind.1.port: expected a number from 0 to 65535, not \"http\""
        );
        assert_eq!(
            error("{\"driver\": [\n1]}"),
            "c.json:1: driver: expected a string or a list of strings"
        );
        let syntax = error("{\n\"server\": {,}}");
        assert!(syntax.starts_with("c.json:2: is not valid JSON: "), "{syntax}");
        let cut = error("{\"server\": ");
        assert!(cut.starts_with("c.json:1: is not valid JSON: EOF"), "{cut}");
        let behind = error("{} x");
        assert!(behind.starts_with("c.json:1: is not valid JSON: trailing"), "{behind}");
    }

    #[test]
    fn a_list_is_no_object() {
        assert_eq!(error("[]"), "c.json:1: expected an object, not a list");
        for key in ["server", "http", "https"] {
            assert_eq!(
                error(&format!("{{\n\"{key}\": []}}")),
                format!("c.json:2: {key}: expected an object, not a list")
            );
        }
        assert!(error("{\"server\": {\"lruCache\": [1, 2]}}").contains("expected an object"));
        assert!(error("{\"http\": {\"bind\": [[\"::1\"]]}}").contains("expected an address"));
    }

    #[test]
    fn unknown_keys_are_named_with_what_was_perhaps_meant() {
        let text = "{\n\"server\": {\"tcpTimout\": 3,\n\"colour\": 1},\n\"drivers\": \"redis:\"}";
        let loaded = parse(Path::new("c.json"), text.to_owned()).unwrap();
        assert_eq!(
            loaded.warnings,
            [
                "c.json:2: unknown key `server.tcpTimout` is ignored; did you mean `tcpTimeout`?",
                "c.json:3: unknown key `server.colour` is ignored",
                "c.json:4: unknown key `drivers` is ignored; did you mean `driver`?",
            ]
        );
    }

    #[test]
    fn unknown_keys_and_missing_addresses_of_bind_objects_are_named() {
        let meant = |key: &str| format!("unknown key `{key}` is ignored; did you mean `address`?");
        let local = |key: &str| format!("{key} has no `address`: it listens on 127.0.0.1 only");
        for (text, expected) in [
            (
                "{\"http\": {\"bind\": [\n\"::1\",\n{\"adress\": \"::\", \"port\": 81}]}}",
                vec![
                    format!("c.json:3: {}", meant("http.bind.1.adress")),
                    format!("c.json:3: {}", local("http.bind.1")),
                ],
            ),
            (
                "{\"https\": {\"bind\": {\n\"adress\": \"::\"}}}",
                vec![
                    format!("c.json:2: {}", meant("https.bind.adress")),
                    format!("c.json:1: {}", local("https.bind")),
                ],
            ),
            (
                "{\"server\": {\"https\": {\"bind\": [{\"address\": null}]}}}",
                vec![format!("c.json:1: {}", local("server.https.bind.0"))],
            ),
            (
                "{\"http\": {\"bind\": [{\"address\": \"::1\", \"colour\": 1, \"port\": 1}]}}",
                vec!["c.json:1: unknown key `http.bind.0.colour` is ignored".to_owned()],
            ),
            ("{\"http\": {\"bind\": {\"address\": \"::1\"}}}", Vec::new()),
            ("{\"http\": {\"bind\": \"::1\"}, \"https\": {\"bind\": null}}", Vec::new()),
            ("{\"http\": {\"bind\": []}}", Vec::new()),
        ] {
            let loaded = parse(Path::new("c.json"), text.to_owned()).unwrap();
            assert_eq!(loaded.warnings, expected, "{text}");
        }
    }

    #[test]
    fn every_known_key_is_read() {
        for key in KEYS {
            let inner = match *key {
                "size" | "ttl" => format!("{{\"server\": {{\"lruCache\": {{\"{key}\": null}}}}}}"),
                "host" | "password" | "database" => format!("{{\"redis\": {{\"{key}\": null}}}}"),
                "server" | "http" | "https" => format!("{{\"{key}\": {{}}}}"),
                "port" | "bind" | "key" | "cert" | "ca" | "passphrase" | "secureProtocol"
                | "secureOptions" | "ciphers" | "honorCipherOrder" | "directory" | "preset"
                | "http2" | "h2c" | "proxyProtocol" => {
                    format!("{{\"https\": {{\"{key}\": null}}}}")
                }
                _ if ["driver", "user", "group"].contains(key) || key.starts_with("redis") => {
                    format!("{{\"{key}\": null}}")
                }
                _ => format!("{{\"server\": {{\"{key}\": null}}}}"),
            };
            let loaded = parse(Path::new("c.json"), inner).unwrap();
            assert_eq!(loaded.warnings, Vec::<String>::new(), "{key}");
        }
    }
}
