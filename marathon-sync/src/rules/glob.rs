//! Patterns for ids of apps.

/// Whether `pattern` matches the whole of `text`: `*` stands for any number of characters, also
/// `/`, and `?` for one. In time bounded by the product of the two lengths.
pub fn matches(pattern: &str, text: &str) -> bool {
    let mut pattern_rest = pattern.chars();
    let mut text_rest = text.chars();
    // Where to go on after the last star: behind it, with one character more swallowed by it.
    let mut retry: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
    loop {
        let mut pattern_next = pattern_rest.clone();
        match pattern_next.next() {
            Some('*') => {
                retry = Some((pattern_next.clone(), text_rest.clone()));
                pattern_rest = pattern_next;
                continue;
            }
            Some(wanted) => {
                let mut text_next = text_rest.clone();
                if text_next.next().is_some_and(|c| wanted == '?' || wanted == c) {
                    pattern_rest = pattern_next;
                    text_rest = text_next;
                    continue;
                }
            }
            None if text_rest.as_str().is_empty() => return true,
            None => {}
        }
        let Some((behind_star, swallowed)) = &mut retry else { return false };
        if swallowed.next().is_none() {
            return false;
        }
        pattern_rest = behind_star.clone();
        text_rest = swallowed.clone();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::matches;

    #[test]
    fn bridge_bug_18_ids_match_as_a_whole_and_never_by_a_part() {
        for (pattern, text, is_match) in [
            ("/hipcheck", "/hipcheck", true),
            ("/hipcheck", "/chipcheck", false),
            ("hipcheck", "/chipcheck", false),
            ("/infra/*", "/infra/a/b", true),
            ("/infra/*", "/infrared", false),
            ("*check", "/chipcheck", true),
            ("/a?c", "/abc", true),
            ("/a?c", "/ac", false),
            ("/*a*b", "/xaxxbxb", true),
            ("/*a*b", "/xaxxbxbc", false),
            ("*", "", true),
            ("", "", true),
            ("", "/a", false),
        ] {
            assert_eq!(matches(pattern, text), is_match, "{pattern} {text}");
        }
    }

    proptest! {
        #[test]
        fn text_without_signs_matches_itself_and_stars_match_anything(text in "[a-zäß/.-]{0,20}", rest in "[a-z/]{0,20}") {
            prop_assert!(matches(&text, &text));
            let whole = format!("{text}{rest}{text}");
            let pattern = format!("{text}*{text}");
            prop_assert!(matches(&pattern, &whole));
        }
    }
}
