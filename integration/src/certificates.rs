//! A private certificate authority and what it signs, as PEM files in a temporary directory.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, SanType, date_time_ymd,
};
use tempfile::TempDir;

/// An authority; its files go away with it.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

impl Authority {
    /// A new authority that nobody trusts yet.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let dir = tempfile::Builder::new().prefix("ca").tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("ca.pem"), issuer.pem()).expect("a file");
        Self { issuer, dir }
    }

    /// The authority's own certificate, PEM.
    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// A certificate for these names and for 127.0.0.1, for servers and clients.
    pub fn sign(&self, names: &[&str]) -> Identity {
        self.sign_until(names, (4000, 1, 1))
    }

    /// The same, which expires on that day.
    pub fn sign_until(&self, names: &[&str], (year, month, day): (i32, u8, u8)) -> Identity {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let file = names.first().map_or("identity", String::as_str).replace('*', "_");
        let mut params = CertificateParams::new(names).expect("host names");
        params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_after = date_time_ymd(year, month, day);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity::write(self.dir.path(), &file, &certificate.pem(), &key)
    }
}

impl Identity {
    /// One that signed itself, as `openssl req -x509` makes it: it says that it is an authority. Its
    /// files in `directory` are called `file`.
    pub fn self_signed(
        directory: &Path,
        file: &str,
        name: &str,
        (year, month, day): (i32, u8, u8),
    ) -> Self {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a host name");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = date_time_ymd(year, month, day);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Self::write(directory, file, &certificate.pem(), &key)
    }

    fn write(directory: &Path, name: &str, certificate: &str, key: &KeyPair) -> Self {
        let path = |kind: &str| directory.join(format!("{name}.{kind}"));
        let identity = Self { certificate: path("crt"), key: path("key") };
        std::fs::write(&identity.certificate, certificate).expect("a file");
        std::fs::write(&identity.key, key.serialize_pem()).expect("a file");
        identity
    }

    /// The certificate and its key as text.
    pub fn pem(&self) -> (String, String) {
        let read = |path| std::fs::read_to_string(path).expect("own file");
        (read(&self.certificate), read(&self.key))
    }

    /// Puts copies into `directory`, as `<name>.crt` and `<name>.key`.
    pub fn copy_to(&self, directory: &Path, name: &str) {
        let copy = |from: &Path, kind: &str| {
            std::fs::copy(from, directory.join(format!("{name}.{kind}"))).expect("a copy");
        };
        copy(&self.key, "key");
        copy(&self.certificate, "crt");
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
