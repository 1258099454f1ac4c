//! Logins that are valid for a whole connection, not for one request (RFC 4559 6).

/// NTLM, and what negotiates it: Microsoft's servers authenticate the TCP connection, and answer all further
/// requests on it as the same user. `Nego2` and `Kerberos` are later names of the same.
const SCHEMES: [&[u8]; 4] = [b"Kerberos", b"Nego2", b"Negotiate", b"NTLM"];

/// Whether credentials, or one of a list of challenges (RFC 9110 11), are of such a scheme. A comma inside a
/// quoted string ends a challenge, too: taking too many for such costs a connection, one too few a login.
pub fn is_bound(value: &[u8]) -> bool {
    value.split(|byte| *byte == b',').any(|challenge| {
        let mut words = challenge.trim_ascii().split(u8::is_ascii_whitespace);
        let scheme = words.next().unwrap_or_default();
        SCHEMES.iter().any(|bound| scheme.eq_ignore_ascii_case(bound))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::is_bound;

    #[test]
    fn schemes_that_log_a_connection_in_are_found_anywhere_in_a_list() {
        for (value, expected) in [
            ("NTLM", true),
            ("ntlm TlRMTVNTUAAB", true),
            ("Negotiate", true),
            ("NEGOTIATE\tYII=", true),
            ("Basic realm=\"a\", NTLM", true),
            ("Nego2,Digest nonce=\"x\"", true),
            ("  Kerberos", true),
            ("Basic realm=\"a, NTLM\"", false),
            ("Basic realm=\"a, NTLM b\"", true),
            ("Basic TlRMTQ==", false),
            ("Bearer Negotiate", false),
            ("NTLMv2", false),
            ("Digest realm=NTLM", false),
            ("", false),
            (",,", false),
        ] {
            assert_eq!(is_bound(value.as_bytes()), expected, "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn scheme_is_found_behind_any_other_challenges(before in "[ -~]{0,30}") {
            let list = format!("{before}, NTLM");
            prop_assert!(is_bound(list.as_bytes()));
        }
    }
}
