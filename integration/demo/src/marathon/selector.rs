//! Label selectors of `GET /v2/apps?label=…`.

use std::collections::BTreeMap;

/// One condition; a selector is a list of them, all of which must hold.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Condition {
    Exists(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
}

/// Whether `labels` match `selector`; an error says what is wrong with it.
pub(super) fn matches(selector: &str, labels: &BTreeMap<String, String>) -> Result<bool, String> {
    let conditions = parse(selector)?;
    Ok(conditions.iter().all(|condition| match condition {
        Condition::Exists(key) => labels.contains_key(key),
        Condition::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
        Condition::NotIn(key, values) => {
            labels.get(key).is_some_and(|value| !values.contains(value))
        }
    }))
}

fn parse(selector: &str) -> Result<Vec<Condition>, String> {
    split(selector).into_iter().map(|part| condition(part.trim())).collect()
}

/// Splits at the commas outside of brackets.
fn split(selector: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    selector
        .split(|letter| {
            match letter {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            letter == ',' && depth == 0
        })
        .collect()
}

fn condition(text: &str) -> Result<Condition, String> {
    let one = |(key, value): (&str, &str)| (key.trim().to_owned(), vec![value.trim().to_owned()]);
    if let Some((key, values)) = text.split_once("==").map(one) {
        return Ok(Condition::In(key, values));
    }
    if let Some((key, values)) = text.split_once("!=").map(one) {
        return Ok(Condition::NotIn(key, values));
    }
    let words = text.split_once('(').and_then(|(front, list)| {
        let list = list.trim_end().strip_suffix(')')?;
        let values = list.split(',').map(|value| value.trim().to_owned()).collect();
        Some((front.split_whitespace().collect::<Vec<_>>(), values))
    });
    match words {
        Some((front, values)) => match front.as_slice() {
            [key, "in"] => Ok(Condition::In((*key).to_owned(), values)),
            [key, "notin"] => Ok(Condition::NotIn((*key).to_owned(), values)),
            _ => Err(format!("Label selector {text:?} is not understood")),
        },
        None if text.is_empty() || text.contains(char::is_whitespace) => {
            Err(format!("Label selector {text:?} is not understood"))
        }
        None => Ok(Condition::Exists(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_choose_by_key_and_value() {
        let labels =
            [("a", "1"), ("b", "x")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        let labels = BTreeMap::from(labels);
        let cases = [
            ("a", Some(true)),
            ("c", Some(false)),
            ("a,b", Some(true)),
            ("a,c", Some(false)),
            ("a==1", Some(true)),
            ("a == 2", Some(false)),
            ("a!=2", Some(true)),
            ("c!=2", Some(false)),
            ("b in (w, x),a", Some(true)),
            ("b in (y)", Some(false)),
            ("b notin (y,z)", Some(true)),
            ("b notin (x)", Some(false)),
            ("", None),
            ("a b", None),
            ("b of (x)", None),
        ];
        for (selector, expected) in cases {
            assert_eq!(matches(selector, &labels).ok(), expected, "{selector:?}");
        }
    }
}
