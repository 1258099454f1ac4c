//! Who may ask the fake Marathon: passwords, tokens, the login of DC/OS, and TLS.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use integration::client::{Client, Response};
use integration::marathon::{Auth, Dcos, Dialect, LOGIN_PATH, Marathon, ServiceAccount};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use pretty_assertions::assert_eq;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

fn ask(marathon: &Marathon, target: &str, authorization: &str) -> Response {
    let header = match authorization {
        "" => String::new(),
        value => format!("Authorization: {value}\r\n"),
    };
    Client::connect(marathon.addr()).get_with("m", target, &header)
}

#[test]
fn basic_authentication_is_asked_of_every_path() {
    let auth = Auth::Basic("user".to_owned(), "pass:word".to_owned());
    let marathon = Marathon::builder(Dialect::V1_9).auth(auth).start();
    for path in ["/ping", "/v2/apps", "/v2/events"] {
        let response = ask(&marathon, path, "");
        assert_eq!(response.status(), 401, "{path}");
        assert_eq!(response.header("www-authenticate"), Some(r#"Basic realm="Mesosphere""#));
    }
    assert_eq!(ask(&marathon, "/ping", "Basic dXNlcjpwYXNzOndvcmQ=").status(), 200);
    assert_eq!(ask(&marathon, "/ping", "Basic dXNlcjpwYXNz").status(), 401);
}

#[test]
fn a_static_token_opens() {
    let marathon = Marathon::builder(Dialect::V1_9).auth(Auth::Token("t.o.k".to_owned())).start();
    assert_eq!(ask(&marathon, "/ping", "token=t.o.k").status(), 200);
    assert_eq!(ask(&marathon, "/ping", "token=t.o").status(), 401);
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn login(marathon: &Marathon, account: &ServiceAccount, claims: &Value) -> Response {
    let key = EncodingKey::from_rsa_pem(account.private_key.as_bytes()).expect("the key");
    let jwt = encode(&Header::new(Algorithm::RS256), claims, &key).expect("a JWT");
    let body = json!({"uid": account.uid, "token": jwt, "exp": now() + 3600}).to_string();
    Client::connect(marathon.addr()).post("m", LOGIN_PATH, &body)
}

fn dcos(lifetime: Duration) -> (Marathon, ServiceAccount) {
    let (account, dcos): (ServiceAccount, Dcos) = ServiceAccount::new("svc");
    let auth = Auth::Dcos(dcos.lifetime(lifetime));
    (Marathon::builder(Dialect::V1_9).auth(auth).start(), account)
}

#[test]
fn a_service_account_logs_in_with_its_key() {
    let (marathon, account) = dcos(Duration::from_secs(60));
    let good = json!({"uid": "svc", "exp": now() + 60});
    let response = login(&marathon, &account, &good);
    let body: Value = serde_json::from_str(&response.text()).expect("JSON");
    let token = body["token"].as_str().expect("a token");
    let cookie = response.header("set-cookie").expect("a cookie");
    assert!(cookie.starts_with(&format!("dcos-acs-auth-cookie={token};")), "{cookie}");
    assert_eq!(ask(&marathon, "/v2/apps", "").status(), 401);
    assert_eq!(ask(&marathon, "/v2/apps", &format!("token={token}")).status(), 200);
    marathon.revoke_tokens();
    assert_eq!(ask(&marathon, "/v2/apps", &format!("token={token}")).status(), 401);

    let (stranger, _) = ServiceAccount::new("svc");
    let cases = [
        (&stranger, good),
        (&account, json!({"uid": "svc", "exp": now() - 60})),
        (&account, json!({"uid": "other", "exp": now() + 60})),
        (&account, json!({"uid": "svc"})),
    ];
    for (account, claims) in cases {
        assert_eq!(login(&marathon, account, &claims).status(), 401, "{claims}");
    }
    assert_eq!(Client::connect(marathon.addr()).post("m", LOGIN_PATH, "no JSON").status(), 401);
}

#[test]
fn tokens_expire() {
    let (marathon, account) = dcos(Duration::ZERO);
    let response = login(&marathon, &account, &json!({"uid": "svc", "exp": now() + 60}));
    let body: Value = serde_json::from_str(&response.text()).expect("JSON");
    let token = body["token"].as_str().expect("a token");
    assert_eq!(ask(&marathon, "/v2/apps", &format!("token={token}")).status(), 401);
}

#[test]
fn tls_is_by_an_authority_of_its_own() {
    let marathon = Marathon::builder(Dialect::V1_9).tls().base_path("/service/marathon").start();
    marathon.app("/a").running(1);
    assert!(marathon.url().starts_with("https://127.0.0.1:"));
    let fetch = |roots: RootCertStore, path: &str| {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = "127.0.0.1".try_into().expect("a name");
        let session = ClientConnection::new(Arc::new(config), name).expect("a session");
        let tcp = TcpStream::connect(marathon.addr()).expect("connects");
        let mut tls = StreamOwned::new(session, tcp);
        write!(tls, "GET {path} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        tls.read_to_end(&mut answer)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let mut roots = RootCertStore::empty();
    let authority = marathon.authority().expect("TLS");
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).expect("PEM")).expect("a root");
    let answer = fetch(roots.clone(), "/service/marathon/v2/apps").expect("trusted");
    assert!(answer.contains(r#""id":"/a""#), "{answer}");
    assert!(answer.contains("X-Marathon-Leader: https://"), "{answer}");
    assert!(fetch(roots, "/v2/apps").expect("trusted").starts_with("HTTP/1.1 404"));
    assert!(fetch(RootCertStore::empty(), "/service/marathon/ping").is_err());
}
