//! Hipache's OpenSSL settings, and the presets of our own, as what rustls can do. Pure.
//!
//! Each setting that stands in a file is answered with a sentence that says what became of it:
//! whoever asked for something in particular is to know what is served.

/// The ciphers of TLS 1.2 that there are: OpenSSL's names and IANA's numbers. All of them have forward
/// secrecy and authenticate what they encrypt. Those of TLS 1.3 cannot be chosen, as in OpenSSL.
pub const CIPHERS: &[(&str, u16)] = &[
    ("ECDHE-ECDSA-AES256-GCM-SHA384", 0xc02c),
    ("ECDHE-ECDSA-AES128-GCM-SHA256", 0xc02b),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", 0xcca9),
    ("ECDHE-RSA-AES256-GCM-SHA384", 0xc030),
    ("ECDHE-RSA-AES128-GCM-SHA256", 0xc02f),
    ("ECDHE-RSA-CHACHA20-POLY1305", 0xcca8),
];

/// `SSL_OP_*` of OpenSSL that mean something here.
const NO_TLS_1_2: u64 = 0x0800_0000;
const NO_TLS_1_3: u64 = 0x2000_0000;
const SERVER_PREFERENCE: u64 = 0x0040_0000;
/// Those that ask for what is true anyway: no SSL 2 and 3, no TLS 1.0 and 1.1, no compression, no
/// renegotiation, no reuse of ephemeral keys, and OpenSSL's list of workarounds for old clients.
const TRUE_ANYWAY: u64 = 0x0100_0000
    | 0x0200_0000
    | 0x0400_0000
    | 0x1000_0000
    | 0x0002_0000
    | 0x4000_0000
    | 0x0008_0000
    | 0x0010_0000
    | 0x8000_0854;

/// Which TLS is spoken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsPolicy {
    /// TLS 1.2 is served.
    pub tls_1_2: bool,
    /// TLS 1.3 is served.
    pub tls_1_3: bool,
    /// Ciphers of TLS 1.2 by IANA's numbers; `None` is all.
    pub ciphers: Option<Vec<u16>>,
    /// Our order of ciphers counts, not the client's.
    pub own_order: bool,
}

impl TlsPolicy {
    /// The preset of that name, after Mozilla's recommendations.
    pub fn preset(name: &str) -> Result<Self, String> {
        let tls_1_2 = match name {
            "intermediate" => true,
            "modern" => false,
            other => return Err(format!("expected `intermediate` or `modern`, not `{other}`")),
        };
        Ok(Self { tls_1_2, tls_1_3: true, ciphers: None, own_order: false })
    }

    /// What is served, for people.
    fn versions(&self) -> &'static str {
        match (self.tls_1_2, self.tls_1_3) {
            (true, true) => "TLS 1.2 and 1.3 are served",
            (true, false) => "TLS 1.2 alone is served",
            (false, _) => "TLS 1.3 alone is served",
        }
    }

    fn allow(&mut self, tls_1_2: bool, tls_1_3: bool) -> String {
        if tls_1_2 || tls_1_3 {
            (self.tls_1_2, self.tls_1_3) = (tls_1_2, tls_1_3);
            self.versions().to_owned()
        } else {
            format!("that leaves no version that is safe to use; {}", self.versions())
        }
    }

    /// `secureProtocol`: a method of OpenSSL. Versions before 1.2 are never served.
    pub(super) fn apply_protocol(&mut self, method: &str) -> String {
        let name = method.strip_suffix("_method").unwrap_or(method);
        let name =
            name.strip_suffix("_server").or_else(|| name.strip_suffix("_client")).unwrap_or(name);
        match name {
            "TLSv1_2" => self.allow(true, false),
            "TLSv1_3" => self.allow(false, true),
            "SSLv23" | "TLS" => self.versions().to_owned(),
            "SSLv2" | "SSLv3" | "TLSv1" | "TLSv1_1" => {
                format!("versions before TLS 1.2 are refused as unsafe; {}", self.versions())
            }
            _ => format!("`{method}` is no method of OpenSSL; {}", self.versions()),
        }
    }

    /// `secureOptions`: flags of OpenSSL.
    pub(super) fn apply_options(&mut self, options: u64) -> String {
        if options & SERVER_PREFERENCE != 0 {
            self.own_order = true;
        }
        let tls_1_2 = self.tls_1_2 && options & NO_TLS_1_2 == 0;
        let tls_1_3 = self.tls_1_3 && options & NO_TLS_1_3 == 0;
        let said = self.allow(tls_1_2, tls_1_3);
        let rest = options & !(NO_TLS_1_2 | NO_TLS_1_3 | SERVER_PREFERENCE | TRUE_ANYWAY);
        match rest {
            0 => said,
            rest => format!("{said}; the flags {rest:#x} have no meaning here"),
        }
    }

    /// `ciphers`: a cipher list of OpenSSL. Names that are known restrict TLS 1.2 to themselves; a
    /// keyword such as `HIGH` means every cipher that there is, for all of them are.
    pub(super) fn apply_ciphers(&mut self, list: &str) -> String {
        let (mut named, mut unknown, mut has_keyword) = (Vec::new(), Vec::new(), false);
        for word in list.split([':', ',', ' ']).filter(|word| !word.is_empty()) {
            // Exclusions are about ciphers that there are not.
            if word.starts_with(['!', '-', '@']) || word.starts_with("TLS_") {
                continue;
            }
            match CIPHERS.iter().find(|(name, _)| *name == word) {
                Some((_, number)) => named.push(*number),
                None if word.contains("SHA") || word.starts_with("DES-") => unknown.push(word),
                None => has_keyword = true,
            }
        }
        let all = "every cipher of TLS 1.2 and 1.3 with forward secrecy is served";
        if has_keyword || named.is_empty() {
            return all.to_owned();
        }
        let count = named.len();
        self.ciphers = Some(named);
        match unknown.as_slice() {
            [] => format!("the {count} ciphers named are those of TLS 1.2"),
            unknown => format!(
                "of the ciphers named, {count} are served with TLS 1.2; without forward secrecy or \
                 unknown, and left out: {}",
                unknown.join(" ")
            ),
        }
    }

    /// `honorCipherOrder`.
    pub(super) fn apply_order(&mut self, is_own: bool) -> String {
        self.own_order = is_own;
        let whose = if is_own { "the router's" } else { "the client's" };
        format!("of the ciphers of TLS 1.2 and 1.3 the first in {whose} order is taken")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{CIPHERS, TlsPolicy};

    fn policy() -> TlsPolicy {
        TlsPolicy::preset("intermediate").unwrap()
    }

    #[test]
    fn methods_of_openssl_choose_versions_but_never_old_ones() {
        for (method, versions, word) in [
            ("SSLv23_method", (true, true), "TLS 1.2 and 1.3"),
            ("TLS_server_method", (true, true), "TLS 1.2 and 1.3"),
            ("TLSv1_2_method", (true, false), "TLS 1.2 alone"),
            ("TLSv1_2_server_method", (true, false), "TLS 1.2 alone"),
            ("TLSv1_method", (true, true), "refused"),
            ("SSLv3_server_method", (true, true), "refused"),
            ("nonsense", (true, true), "no method"),
        ] {
            let mut policy = policy();
            let said = policy.apply_protocol(method);
            assert_eq!((policy.tls_1_2, policy.tls_1_3), versions, "{method}");
            assert!(said.contains(word) && said.contains("TLS"), "{method}: {said}");
        }
    }

    #[test]
    fn flags_of_openssl_are_obeyed_where_they_mean_something() {
        for (flags, versions, own_order, word) in [
            (0, (true, true), false, "1.2 and 1.3"),
            (0x0600_0000, (true, true), false, "1.2 and 1.3 are served"),
            (0x0800_0000, (false, true), false, "1.3 alone"),
            (0x2000_0000, (true, false), false, "1.2 alone"),
            (0x2800_0000, (true, true), false, "no version"),
            (0x0040_0000, (true, true), true, "1.2 and 1.3"),
            (0x1, (true, true), false, "0x1 have no meaning"),
        ] {
            let mut policy = policy();
            let said = policy.apply_options(flags);
            assert_eq!((policy.tls_1_2, policy.tls_1_3), versions, "{flags:#x}");
            assert_eq!(policy.own_order, own_order, "{flags:#x}");
            assert!(said.contains(word), "{flags:#x}: {said}");
        }
    }

    #[test]
    fn cipher_lists_restrict_only_when_they_name_ciphers() {
        for (list, expected, word) in [
            ("HIGH:!aNULL:!MD5", None, "every cipher"),
            ("ECDHE-RSA-AES128-GCM-SHA256", Some(vec![0xc02f]), "1 ciphers"),
            (
                "ECDHE-RSA-AES128-GCM-SHA256:AES128-SHA:!RC4",
                Some(vec![0xc02f]),
                "left out: AES128-SHA",
            ),
            ("AES128-SHA", None, "every cipher"),
            ("ECDHE-RSA-AES128-GCM-SHA256:HIGH", None, "every cipher"),
            ("", None, "every cipher"),
        ] {
            let mut policy = policy();
            let said = policy.apply_ciphers(list);
            assert_eq!(policy.ciphers, expected, "{list}");
            assert!(said.contains(word) && said.contains("TLS"), "{list}: {said}");
        }
    }

    proptest! {
        #[test]
        fn there_is_always_something_left_to_serve(method in "[A-Za-z0-9_]{0,20}", flags: u64, list in "[A-Z0-9:!@ -]{0,60}") {
            let mut policy = policy();
            policy.apply_protocol(&method);
            policy.apply_options(flags);
            policy.apply_ciphers(&list);
            prop_assert!(policy.tls_1_2 || policy.tls_1_3);
            let are_known = |ciphers: Vec<u16>| {
                !ciphers.is_empty() && ciphers.iter().all(|c| CIPHERS.iter().any(|(_, n)| n == c))
            };
            prop_assert!(policy.ciphers.is_none_or(are_known));
        }
    }
}
