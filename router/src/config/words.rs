//! What the JSON library says is wrong with a file, in words for those who write it. Pure.

use serde_json::Value;

/// Longest text of a value that is shown.
const SHOWN: usize = 60;

/// Keys whose values are secrets, or hold them.
const SECRETS: &[&str] =
    &["cookieKey", "driver", "passphrase", "password", "redisMasterPassword", "redisPassword"];

/// Why `json` is no JSON, with the line, 1-based.
pub(super) fn syntax(json: &str, error: &serde_json::Error) -> (usize, String) {
    if json.trim().is_empty() {
        return (1, "is empty; the least that can stand there is {}".to_owned());
    }
    if let Some(line) = comment(json).filter(|line| *line <= error.line()) {
        let problem = "is not valid JSON, which has no comments: remove what begins with // or # \
                       or /*";
        return (line, problem.to_owned());
    }
    let text = error.to_string();
    let problem = if text.starts_with("trailing comma") {
        "is not valid JSON: there is a comma in front of } or ] that nothing follows: remove it"
            .to_owned()
    } else if json.lines().nth(error.line().saturating_sub(1)).is_some_and(has_single_quotes) {
        "is not valid JSON: texts stand in double quotes, not in single ones".to_owned()
    } else {
        format!("is not valid JSON: {text}")
    };
    (error.line(), problem)
}

/// The line of the first `/` or `#` outside of texts.
fn comment(json: &str) -> Option<usize> {
    let mut line = 1;
    let mut is_text = false;
    let mut chars = json.chars();
    while let Some(c) = chars.next() {
        match c {
            '\n' => line += 1,
            '"' => is_text = !is_text,
            '\\' if is_text => {
                chars.next();
            }
            '/' | '#' if !is_text => return Some(line),
            _ => {}
        }
    }
    None
}

/// Whether a text of this line stands in single quotes.
fn has_single_quotes(line: &str) -> bool {
    let start = line.trim_start_matches([' ', '\t', '{', '[', ',']);
    start.starts_with('\'')
        || line.split_once(':').is_some_and(|(_, value)| value.trim_start().starts_with('\''))
}

/// What is wrong with the value at the dotted `key` of `file`, of which the library says `message`.
pub(super) fn value(message: &str, key: Option<&str>, file: Option<&Value>) -> String {
    let message = message.rsplit_once(" at line ").map_or(message, |(text, _position)| text);
    if let Some(rest) = message.strip_prefix("duplicate field ") {
        return format!("{rest} stands there twice: remove one");
    }
    let problem = message
        .strip_prefix("invalid type: ")
        .or_else(|| message.strip_prefix("invalid value: "))
        .and_then(|rest| rest.rsplit_once(", expected "))
        .map_or_else(|| message.to_owned(), |(_, wanted)| format!("expected {}", expected(wanted)));
    let parts: Vec<_> =
        key.unwrap_or_default().split('.').filter(|part| !part.is_empty()).collect();
    let is_secret = parts.iter().any(|part| SECRETS.contains(part));
    let found = parts.iter().try_fold(file, |value, part| {
        let value = value?;
        let inner = part.parse().ok().and_then(|index: usize| value.get(index));
        Some(inner.or_else(|| value.get(part)))
    });
    match found.flatten() {
        Some(found) if !is_secret => format!("{problem}, not {}", shown(found)),
        _ => problem,
    }
}

/// The library's names of types in words.
fn expected(wanted: &str) -> &str {
    match wanted {
        "u8" | "u32" | "u64" | "usize" => "a whole number from 0 on",
        "u16" => "a number from 0 to 65535",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a string" => "a text in quotes",
        "path string" => "a path in quotes",
        other => other,
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        scalar => {
            let text = scalar.to_string();
            match text.char_indices().nth(SHOWN) {
                Some((cut, _)) => format!("{}…", text.get(..cut).unwrap_or_default()),
                None => text,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::{syntax, value};

    fn problem(json: &str) -> (usize, String) {
        syntax(json, &serde_json::from_str::<Value>(json).unwrap_err())
    }

    #[test]
    fn common_mistakes_in_json_are_named() {
        for (json, line, word) in [
            ("", 1, "is empty"),
            (" \n\n", 1, "is empty"),
            ("{\n// the port\n\"port\": 1}", 2, "no comments"),
            ("{\"a\": 1, # one\n}", 1, "no comments"),
            ("/* x */ {}", 1, "no comments"),
            ("{\"a\": [1,\n]}", 2, "comma in front of"),
            ("{\n'a': 1}", 2, "double quotes"),
            ("{\"a\":\n \"x\" \"y\"}", 2, "expected `,` or `}`"),
            ("{\"a\": \"http://x/#y\", }", 1, "comma"),
        ] {
            let (found, text) = problem(json);
            assert!(found == line && text.contains(word), "{json:?}: {found}: {text}");
        }
    }

    #[test]
    fn values_are_shown_unless_they_may_be_secret() {
        let file = json!({"http": {"bind": [{"port": "x"}]}, "driver": 1, "redisPassword": [1]});
        let text = "invalid type: string \"x\", expected u16 at line 1 column 2";
        assert_eq!(
            value(text, Some("http.bind.0.port"), Some(&file)),
            "expected a number from 0 to 65535, not \"x\""
        );
        let text = "invalid type: sequence, expected a string";
        assert_eq!(value(text, Some("redisPassword"), Some(&file)), "expected a text in quotes");
        let long = json!({"a": "é".repeat(100)});
        assert!(value("expected b", Some("a"), Some(&long)).ends_with("é…"));
        assert_eq!(
            value("duplicate field `a` at line 1 column 9", None, None),
            "`a` stands there twice: remove one"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "[{}\\[\\]\",:a'/#\\\\ \né]{0,60}") {
            if let Err(error) = serde_json::from_str::<Value>(&text) {
                let (line, _problem) = syntax(&text, &error);
                prop_assert!(line <= text.lines().count().max(1) + 1);
            }
        }
    }
}
