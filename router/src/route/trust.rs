//! By what certificates of a host's `https://` backends are verified, where its options say so. Pure.
//!
//! What cannot be read closes the way to those backends: a mistake never means less verification.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256, digest};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};

use super::options::switch;

/// Longest `backend-ca`: as much as all authorities of a system.
const MAX_PEM: usize = 512 * 1024;

/// Says that two rules are the same one, without comparing them: a digest of all that they say.
pub type Id = [u8; 32];

/// By what certificates of backends are verified. Connections are shared only between those who agree on
/// all of it.
#[derive(Clone)]
pub struct Trust {
    /// Who may have signed them.
    pub signers: Signers,
    /// What they have to be valid for, and what is asked for, in place of the host of the URL.
    pub name: Option<ServerName<'static>>,
    id: Id,
}

/// Who may have signed a certificate.
#[derive(Clone, Debug)]
pub enum Signers {
    /// Anyone: encrypted, but perhaps to the wrong one.
    Anyone,
    /// These.
    Authorities(Authorities),
    /// Those of `server.backendCa`, or of the system.
    Configured,
    /// What the options say cannot be read: nobody.
    Nobody,
}

/// The authorities of one `backend-ca`, or of `server.backendCa`.
#[derive(Clone)]
pub struct Authorities {
    /// For those whom they signed for.
    pub roots: Arc<RootCertStore>,
    /// The certificates themselves: a backend may serve one of these, too.
    pub certificates: Arc<[CertificateDer<'static>]>,
    id: Id,
}

impl Trust {
    /// The same for equal ones, and for no others.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// Whether a backend can be anyone.
    pub fn verifies_nothing(&self) -> bool {
        matches!(self.signers, Signers::Anyone)
    }
}

impl PartialEq for Trust {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Trust {}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Trust");
        shown.field("signers", &self.signers).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Authorities {
    /// Reads certificates, PEM.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn parse(pem: &[u8]) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let mut certificates = Vec::new();
        for (index, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
            let number = index + 1;
            let failed = |error: &dyn fmt::Display| format!("certificate {number}: {error}");
            let certificate = certificate.map_err(|error| failed(&error))?;
            roots.add(certificate.clone()).map_err(|error| failed(&error))?;
            certificates.push(certificate);
        }
        if roots.is_empty() {
            return Err("there is no `-----BEGIN CERTIFICATE-----` in it".to_owned());
        }
        Ok(Self { roots: Arc::new(roots), certificates: certificates.into(), id: sha256(pem) })
    }

    /// The same for equal texts, and for no others.
    pub fn id(&self) -> &Id {
        &self.id
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorities({})", self.roots.len())
    }
}

/// What the fields of `options:<host>` say, as they are read one by one.
#[derive(Debug, Default)]
pub(super) struct Draft {
    authorities: Option<Authorities>,
    name: Option<ServerName<'static>>,
    is_off: bool,
    is_unreadable: bool,
}

impl Draft {
    /// Takes a field, if it is one of those that are about this.
    pub(super) fn set(&mut self, field: &str, value: &str) -> Option<Result<(), String>> {
        let read = match field {
            "backend-ca" => self.set_authorities(value),
            "backend-name" => self.set_name(value),
            "backend-verify" => match word(value) {
                Some(is_on) => {
                    self.is_off = !is_on;
                    Ok(())
                }
                None => Err("expected on or off".to_owned()),
            },
            _ => return None,
        };
        Some(read.map_err(|problem| {
            self.is_unreadable = true;
            format!(
                "{problem}; the https:// backends of the host get no requests until it is right"
            )
        }))
    }

    fn set_authorities(&mut self, value: &str) -> Result<(), String> {
        if word(value) == Some(false) {
            return Ok(());
        }
        if value.len() > MAX_PEM {
            return Err(format!("longer than {MAX_PEM} bytes"));
        }
        let authorities = Authorities::parse(value.as_bytes())
            .map_err(|problem| format!("expected certificates of authorities, PEM: {problem}"))?;
        self.authorities = Some(authorities);
        Ok(())
    }

    fn set_name(&mut self, value: &str) -> Result<(), String> {
        if word(value) == Some(false) {
            return Ok(());
        }
        let name = ServerName::try_from(value.to_ascii_lowercase())
            .map_err(|_invalid| "expected a host name or an address".to_owned())?;
        self.name = Some(name);
        Ok(())
    }

    /// What all fields together say; nothing when they say what holds anyway.
    pub(super) fn finish(self) -> Option<Trust> {
        let signers = match self.authorities {
            _ if self.is_unreadable => Signers::Nobody,
            _ if self.is_off => Signers::Anyone,
            Some(authorities) => Signers::Authorities(authorities),
            None if self.name.is_none() => return None,
            None => Signers::Configured,
        };
        let (tag, authorities) = match &signers {
            Signers::Anyone => (0, [0; 32]),
            Signers::Authorities(authorities) => (1, authorities.id),
            Signers::Configured => (2, [0; 32]),
            Signers::Nobody => (3, [0; 32]),
        };
        let mut context = Context::new(&SHA256);
        context.update(&[tag]);
        context.update(&authorities);
        if let Some(name) = &self.name {
            context.update(name.to_str().as_bytes());
        }
        Some(Trust { signers, name: self.name, id: id(context.finish().as_ref()) })
    }
}

/// `on` or `off`. Nothing at all is neither here: it is what a script writes that has read no file.
fn word(value: &str) -> Option<bool> {
    switch(value).filter(|_| !value.is_empty())
}

fn sha256(bytes: &[u8]) -> Id {
    id(digest(&SHA256, bytes).as_ref())
}

fn id(digest: &[u8]) -> Id {
    digest.try_into().expect("a digest of SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::{Draft, Signers, Trust};

    const CA: &str = include_str!("../../../integration/tests/pem/ca.crt");

    fn read(fields: &[(&str, &str)]) -> (Option<Trust>, Vec<String>) {
        let mut draft = Draft::default();
        let read = fields.iter().map(|(field, value)| draft.set(field, value).unwrap());
        let problems = read.filter_map(Result::err).collect();
        (draft.finish(), problems)
    }

    fn shown(fields: &[(&str, &str)]) -> String {
        let (trust, _) = read(fields);
        trust.map_or_else(|| "as configured".to_owned(), |trust| format!("{:?}", trust.signers))
    }

    #[test]
    fn fields_mean_what_the_schema_says() {
        let two = &format!("{CA}\n{CA}");
        for (fields, expected) in [
            (&[][..], "as configured"),
            (&[("backend-verify", "on")], "as configured"),
            (&[("backend-ca", "off")], "as configured"),
            (&[("backend-name", "off")], "as configured"),
            (&[("backend-name", "B.test")], "Configured"),
            (&[("backend-name", "10.0.0.1")], "Configured"),
            (&[("backend-ca", CA)], "Authorities(Authorities(1))"),
            (&[("backend-ca", two)], "Authorities(Authorities(2))"),
            (&[("backend-ca", CA), ("backend-name", "b.test")], "Authorities(Authorities(1))"),
            (&[("backend-ca", CA), ("backend-verify", "on")], "Authorities(Authorities(1))"),
            (&[("backend-verify", "off")], "Anyone"),
            (&[("backend-ca", CA), ("backend-verify", "off")], "Anyone"),
        ] {
            assert_eq!(shown(fields), expected, "{fields:?}");
            assert_eq!(read(fields).1, Vec::<String>::new());
        }
    }

    /// Also beside `backend-verify off`: one mistake, and nobody knows what was meant.
    #[test]
    fn what_cannot_be_read_trusts_nobody() {
        let damaged = &CA.replace("MII", "!!!");
        let half = &format!("{CA}\n{damaged}");
        let long = &format!("{CA}{}", " ".repeat(600_000));
        for (field, value, problem) in [
            ("backend-verify", "none", "expected on or off"),
            ("backend-verify", "", "expected on or off"),
            ("backend-ca", "", "BEGIN CERTIFICATE"),
            ("backend-name", "", "expected a host name"),
            ("backend-verify", "\u{fffd}", "expected on or off"),
            ("backend-ca", "garbage", "BEGIN CERTIFICATE"),
            ("backend-ca", "on", "BEGIN CERTIFICATE"),
            ("backend-ca", damaged, "certificate 1"),
            ("backend-ca", half, "certificate 2"),
            ("backend-ca", long, "longer than"),
            ("backend-name", "*.example.com", "expected a host name"),
            ("backend-name", "a b", "expected a host name"),
        ] {
            for others in [&[][..], &[("backend-verify", "off"), ("backend-ca", CA)]] {
                let others = others.iter().copied().filter(|(other, _)| *other != field);
                let fields: Vec<_> = others.chain([(field, value)]).collect();
                let (trust, problems) = read(&fields);
                assert!(matches!(trust.unwrap().signers, Signers::Nobody), "{field} = {value}");
                assert!(problems.len() == 1 && problems[0].contains(problem), "{problems:?}");
            }
        }
    }

    #[test]
    fn only_equal_rules_have_one_id() {
        let other = &format!("{CA}\n");
        let rules = [
            &[("backend-verify", "off")][..],
            &[("backend-verify", "off"), ("backend-name", "b.test")],
            &[("backend-ca", CA)],
            &[("backend-ca", other)],
            &[("backend-ca", CA), ("backend-name", "b.test")],
            &[("backend-ca", CA), ("backend-name", "c.test")],
            &[("backend-name", "b.test")],
            &[("backend-verify", "perhaps")],
        ];
        let ids: HashSet<_> = rules.iter().map(|fields| *read(fields).0.unwrap().id()).collect();
        assert_eq!(ids.len(), rules.len());
        for fields in rules {
            assert_eq!(read(fields).0, read(fields).0);
        }
        let upper = read(&[("backend-name", "B.TEST")]).0;
        assert_eq!(upper, read(&[("backend-name", "b.test")]).0);
    }

    proptest! {
        /// Verification ends by one word only.
        #[test]
        fn no_other_value_opts_out(value in "[a-z01 ]{0,5}") {
            let (trust, problems) = read(&[("backend-verify", &value)]);
            let is_off = ["off", "false", "no", "0"].contains(&value.as_str());
            prop_assert_eq!(trust.as_ref().is_some_and(Trust::verifies_nothing), is_off);
            let is_closed = trust.is_some_and(|trust| matches!(trust.signers, Signers::Nobody));
            prop_assert_eq!(is_closed, !problems.is_empty());
        }
    }
}
