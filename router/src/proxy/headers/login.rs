//! Logins that are valid for a whole connection, not for one request (RFC 4559 6). Pure.

use http::HeaderValue;

/// NTLM, and what negotiates it: Microsoft's servers authenticate the TCP connection, and answer all further
/// requests on it as the same user. `Nego2` and `Kerberos` are later names of the same.
const SCHEMES: [&[u8]; 4] = [b"Kerberos", b"Nego2", b"Negotiate", b"NTLM"];

/// Whether credentials, or one of a list of challenges (RFC 9110 11), are of such a scheme. A comma inside a
/// quoted string ends a challenge, too: taking too many for such costs a connection, one too few a login.
pub(super) fn is_bound(value: &HeaderValue) -> bool {
    value.as_bytes().split(|byte| *byte == b',').any(|challenge| {
        let mut words = challenge.trim_ascii().split(u8::is_ascii_whitespace);
        let scheme = words.next().unwrap_or_default();
        SCHEMES.iter().any(|bound| scheme.eq_ignore_ascii_case(bound))
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::is_bound;

    #[test]
    fn schemes_that_log_a_connection_in_are_found_wherever_they_stand() {
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
            assert_eq!(is_bound(&HeaderValue::from_static(value)), expected, "{value:?}");
        }
    }
}
