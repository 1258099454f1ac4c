use std::io::Write as _;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::NamedTempFile;

use super::super::auth::Credentials;
use super::super::client::{Client, Options};
use super::super::endpoints::Endpoints;
use super::super::testing::{Server, json};
use super::*;

/// A private authority and what it has signed.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: NamedTempFile,
}

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = file(&issuer.pem());
        Self { issuer, file }
    }

    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// A server for 127.0.0.1, which may want certificates of its clients.
    async fn serve(&self, wants_certificate: bool) -> Server {
        let builder = ServerConfig::builder();
        let builder = if wants_certificate {
            let mut roots = RootCertStore::empty();
            roots.add(self.issuer.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let (certificate, key) = self.sign("127.0.0.1");
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        Server::start_tls(Some(config), |_| json(r#"{"apps":[]}"#)).await
    }
}

async fn fetch(server: &Server, tls: &Tls) -> Result<(), String> {
    let endpoints = Endpoints::parse(&[format!("https://{}", server.host)], None).unwrap();
    let client = Client::new(endpoints, Credentials::None, tls, Options::default()).unwrap();
    client.fetch_apps().await.map(|_| ()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn certificates_are_believed_by_authority_or_when_told_so() {
    let authority = Authority::new();
    let server = authority.serve(false).await;
    let trusting = Tls { ca_files: vec![authority.file.path().to_owned()], ..Tls::default() };
    assert_eq!(fetch(&server, &trusting).await, Ok(()));
    assert_eq!(fetch(&server, &Tls { is_insecure: true, ..Tls::default() }).await, Ok(()));

    let stranger = Authority::new();
    let other = Tls { ca_files: vec![stranger.file.path().to_owned()], ..Tls::default() };
    let error = fetch(&server, &other).await.unwrap_err();
    assert!(error.contains("cannot connect") && error.contains("certificate"), "{error}");
}

/// As `openssl req -x509` makes one: it signed itself, and says that it is an authority.
#[tokio::test]
async fn a_certificate_that_signed_itself_is_pinned() {
    let serve = |name: &str, years: std::ops::Range<i32>| {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
        (file(&certificate.pem()), Server::start_tls(Some(config), |_| json(r#"{"apps":[]}"#)))
    };
    let trusting =
        |file: &NamedTempFile| Tls { ca_files: vec![file.path().to_owned()], ..Tls::default() };
    let (pinned, server) = serve("127.0.0.1", 2000..4000);
    let server = server.await;
    assert_eq!(fetch(&server, &trusting(&pinned)).await, Ok(()));
    assert!(fetch(&server, &Tls::default()).await.is_err());
    let (other, _) = serve("127.0.0.1", 2000..4000);
    assert!(fetch(&server, &trusting(&other)).await.is_err(), "another one of the same name");
    // Name and time still count.
    for (name, years, part) in
        [("other.test", 2000..4000, "not valid for name"), ("127.0.0.1", 2000..2001, "expired")]
    {
        let (pinned, server) = serve(name, years);
        let error = fetch(&server.await, &trusting(&pinned)).await.unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test]
async fn a_certificate_for_another_host_is_not_believed() {
    let authority = Authority::new();
    let mut server = authority.serve(false).await;
    // The same listener by a name that its certificate does not have.
    server.host = server.host.replace("127.0.0.1", "localhost");
    let tls = Tls { ca_files: vec![authority.file.path().to_owned()], ..Tls::default() };
    let error = fetch(&server, &tls).await.unwrap_err();
    assert!(error.contains("not valid for name \"localhost\""), "{error}");
}

#[tokio::test]
async fn a_certificate_of_our_own_is_shown_to_who_wants_one() {
    let authority = Authority::new();
    let server = authority.serve(true).await;
    let ca_files = vec![authority.file.path().to_owned()];
    let without = Tls { ca_files: ca_files.clone(), ..Tls::default() };
    assert!(fetch(&server, &without).await.is_err());
    let (certificate, key) = authority.sign("marathon-sync");
    let (certificate, key) = (file(&certificate.pem()), file(&key.serialize_pem()));
    let identity = Some((certificate.path().to_owned(), key.path().to_owned()));
    let with = Tls { ca_files, identity, ..Tls::default() };
    assert_eq!(fetch(&server, &with).await, Ok(()));
}

#[test]
fn a_wrong_file_is_named() {
    let (authority, empty) = (Authority::new(), file("nothing"));
    let (good, bad) = (authority.file.path().to_owned(), empty.path().to_owned());
    let missing = PathBuf::from("/no/such");
    let tls = |ca_files, identity| Tls { ca_files, identity, is_insecure: false };
    for (tls, path, message) in [
        (tls(vec![good.clone(), missing.clone()], None), &missing, "cannot be read"),
        (tls(vec![bad.clone()], None), &bad, "no certificates in PEM"),
        (tls(vec![], Some((good.clone(), missing.clone()))), &missing, "cannot be read"),
        (tls(vec![], Some((good, bad.clone()))), &bad, "not a certificate and its private key"),
    ] {
        let endpoints = Endpoints::parse(&["http://m"], None).unwrap();
        let error = Client::new(endpoints, Credentials::None, &tls, Options::default());
        let error = error.unwrap_err().to_string();
        assert!(error.contains(message) && error.contains(path.to_str().unwrap()), "{error}");
    }
}
