//! Numbers that stand in quotes, and texts that stand without: JavaScript made no difference. Pure.

use serde_json::{Number, Value};

/// Keys whose values are numbers, wherever they stand.
const NUMBERS: &[&str] = &[
    "connectTimeout",
    "database",
    "deadBackendTTL",
    "drainTimeout",
    "errorMaxRetries",
    "firstByteTimeout",
    "headTimeout",
    "idleTimeout",
    "maxBody",
    "maxConnections",
    "maxConnectionsPerAddress",
    "maxHead",
    "maxHeaders",
    "maxRequests",
    "maxRequestsPerConnection",
    "maxSockets",
    "maxTunnels",
    "maxTunnelsPerBackend",
    "maxUri",
    "minBodyRate",
    "port",
    "redisDatabase",
    "redisMasterDatabase",
    "redisMasterPort",
    "redisPort",
    "retryOnError",
    "secureOptions",
    "size",
    "tcpTimeout",
    "ttl",
    "tunnelIdleTimeout",
    "workers",
];

/// Keys whose values are texts that people write as numbers.
const TEXTS: &[&str] = &["passphrase", "password", "redisMasterPassword", "redisPassword"];

/// Makes numbers of texts and texts of numbers where the key asks for it. Returns each dotted key with
/// what became of it.
pub(super) fn normalize(file: &mut Value) -> Vec<(String, String)> {
    let mut changes = Vec::new();
    walk(file, "", "", &mut changes);
    changes
}

fn walk(value: &mut Value, path: &str, key: &str, changes: &mut Vec<(String, String)>) {
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                walk(value, &join(key), key, changes);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                walk(item, &join(&index.to_string()), "", changes);
            }
        }
        Value::String(text) if NUMBERS.contains(&key) => {
            let text = text.trim();
            if text.is_empty() {
                changes.push((path.to_owned(), "is an empty text, and so not set".to_owned()));
                *value = Value::Null;
            } else if let Some(number) = number(text) {
                let change = format!("is a text, read as the number {number}: remove its quotes");
                changes.push((path.to_owned(), change));
                *value = Value::Number(number);
            }
        }
        Value::Number(number) if TEXTS.contains(&key) => {
            let change = "is a number, read as the text of its digits: put it in quotes";
            changes.push((path.to_owned(), change.to_owned()));
            *value = Value::String(number.to_string());
        }
        _ => {}
    }
}

fn number(text: &str) -> Option<Number> {
    let is_number = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+');
    if !text.chars().all(is_number) {
        return None;
    }
    match text.parse::<u64>() {
        Ok(number) => Some(number.into()),
        Err(_not_whole) => Number::from_f64(text.parse().ok()?),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::normalize;

    #[test]
    fn numbers_in_quotes_are_numbers_where_a_number_belongs() {
        let mut file = json!({
            "redisPort": "6379", "redisPassword": 7, "user": "33", "redisHost": "6379",
            "server": {"tcpTimeout": " 0.5 ", "workers": "ten", "port": "", "accessLog": "1"},
            "http": {"bind": [{"address": "::1", "port": "81"}]},
        });
        let keys: Vec<_> = normalize(&mut file).into_iter().map(|(key, _)| key).collect();
        assert_eq!(
            keys,
            ["http.bind.0.port", "redisPassword", "redisPort", "server.port", "server.tcpTimeout"]
        );
        assert_eq!(
            file,
            json!({
                "redisPort": 6379, "redisPassword": "7", "user": "33", "redisHost": "6379",
                "server": {"tcpTimeout": 0.5, "workers": "ten", "port": null, "accessLog": "1"},
                "http": {"bind": [{"address": "::1", "port": 81}]},
            })
        );
    }
}
