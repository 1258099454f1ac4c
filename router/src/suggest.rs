//! Names that are near to what was written. Pure.

/// The nearest of `known`, when it is near enough to be meant.
pub fn did_you_mean<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let lower = name.to_ascii_lowercase();
    known
        .iter()
        .map(|key| (strsim::damerau_levenshtein(&lower, &key.to_ascii_lowercase()), *key))
        .filter(|(distance, key)| *distance <= 1 + key.len() / 4)
        .min()
        .map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    use super::did_you_mean;

    #[test]
    fn only_near_names_are_suggested() {
        let known = ["timeout-read", "sticky", "allow"];
        for (name, expected) in [
            ("timeout_read", Some("timeout-read")),
            ("Stiky", Some("sticky")),
            ("alow", Some("allow")),
            ("deny", None),
            ("", None),
        ] {
            assert_eq!(did_you_mean(name, &known), expected, "{name}");
        }
    }
}
