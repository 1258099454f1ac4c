use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::super::auth::Source;
use super::super::testing::{Request, Server, Step, answer, json, raw, redirect};
use super::*;

const NO_APPS: &str = r#"{"apps":[]}"#;

fn small() -> Options {
    Options { body_limit: BodyLimit(10_000), ..Options::default() }
}

fn client_with(urls: &[String], credentials: Credentials, options: Options) -> Client {
    let endpoints = Endpoints::parse(urls, None).unwrap();
    Client::new(endpoints, credentials, &Tls::default(), options).unwrap()
}

fn client(urls: &[String]) -> Client {
    client_with(urls, Credentials::None, Options::default())
}

#[tokio::test]
async fn the_list_is_asked_for_as_every_version_understands_it() {
    let server =
        Server::start(|_| answer("200 OK", "X-Marathon-Leader: http://10.0.0.1:8080\r\n", NO_APPS))
            .await;
    let url = format!("{}/service/marathon/", server.url());
    let options = Options {
        label: Some("hipacheFrontend".to_owned()),
        readiness: true,
        ..Options::default()
    };
    let fetched = client_with(&[url], Credentials::None, options).fetch_apps().await.unwrap();
    assert_eq!(fetched.body, NO_APPS);
    assert_eq!(fetched.endpoint, format!("{}/service/marathon", server.url()));
    assert_eq!(fetched.leader.as_deref(), Some("http://10.0.0.1:8080"));
    let requests = server.requests();
    let [request] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!(
        request.target(),
        "/service/marathon/v2/apps?embed=apps.tasks&embed=apps.readiness&label=hipacheFrontend"
    );
    assert_eq!(request.values("accept"), ["application/json"]);
    assert_eq!(request.values("accept-encoding"), ["gzip"]);
    assert_eq!(request.authorization(), None);
}

#[tokio::test]
async fn what_is_no_answer_is_named_and_the_next_endpoint_asked() {
    let huge = format!("{{\"a\":\"{}\"}}", "x".repeat(10_000));
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(huge.as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    let ok = "HTTP/1.1 200 OK\r\nConnection: close\r\n";
    let table: Vec<(&str, Vec<Step>)> = vec![
        ("answered 200 with an empty body", answer("200 OK", "", "")),
        ("not with a JSON object (expected value", answer("200 OK", "", "<html>Down</html>")),
        (": <html>Down</html>", answer("200 OK", "", "<html>Down</html>")),
        ("EOF while parsing", answer("200 OK", "", r#"{"apps":[{"id":"/a"}"#)),
        ("EOF while parsing", raw(&format!("{ok}\r\n{{\"apps\":["))),
        ("broke off after 9 bytes", raw(&format!("{ok}Content-Length: 99\r\n\r\n{{\"apps\":["))),
        (
            "broke off after 9 bytes",
            raw(&format!("{ok}Transfer-Encoding: chunked\r\n\r\n9\r\n{{\"apps\":[\r\n")),
        ),
        ("more than 10000 bytes", answer("200 OK", "", &huge)),
        ("more than 10000 bytes", answer("200 OK", "Content-Encoding: gzip\r\n", &packed)),
        ("broke off", answer("200 OK", "Content-Encoding: gzip\r\n", &packed[..30])),
        (
            "answered 503 Service Unavailable: {\"message\":\"Futures",
            answer("503 Service Unavailable", "", r#"{"message":"Futures timed out"}"#),
        ),
        ("answered 502 Bad Gateway: (nothing)", answer("502 Bad Gateway", "", "")),
        ("answered 401 Unauthorized", answer("401 Unauthorized", "", "")),
        ("answered 204 No Content", raw("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")),
        ("neither configured nor Marathon's leader", redirect("http://127.0.0.1:1/v2/apps")),
        ("redirects twice", redirect("/v2/apps")),
        ("which is no usable URL", redirect("mailto:x")),
        ("the connection ended before an answer", vec![]),
        ("the connection ended before an answer", raw("SSH-2.0-x\r\n\r\n")),
    ];
    let good = Server::start(|_| json(NO_APPS)).await;
    for (message, steps) in table {
        let bad = Server::start(move |_| steps.clone()).await;
        let alone = client_with(&[bad.url()], Credentials::None, small());
        let error = alone.fetch_apps().await.expect_err(message).to_string();
        assert!(error.contains(message), "{message}\n{error}");
        let both = client_with(&[bad.url(), good.url()], Credentials::None, small());
        let fetched = both.fetch_apps().await.expect(message);
        assert_eq!((fetched.endpoint, &fetched.body[..]), (good.url(), NO_APPS.as_bytes()));
    }
}

#[tokio::test]
async fn every_wait_has_a_limit() {
    let usual = Deadlines::default();
    let second = Duration::from_secs(1);
    let head = |text: &str| Step::Send(format!("HTTP/1.1 200 OK\r\n{text}\r\n").into_bytes());
    let mut cases = Vec::new();
    for (message, deadlines, steps) in [
        (
            "waited 1s for the head of an answer",
            Deadlines { connect: second, first_byte: Duration::ZERO, ..usual },
            vec![Step::Hang],
        ),
        (
            "waited 1s for more of the body",
            Deadlines { idle: second, ..usual },
            vec![head("Content-Length: 99\r\n"), Step::Hang],
        ),
        (
            "waited 1s for the whole answer",
            Deadlines { total: second, ..usual },
            vec![head(""), Step::Drip],
        ),
    ] {
        let server = Server::start(move |_| steps.clone()).await;
        let options = Options { deadlines, ..Options::default() };
        let client = client_with(&[server.url()], Credentials::None, options);
        cases.push((message, server, client));
    }
    let checks = cases.iter().map(async |(message, _server, client)| {
        let error = client.fetch_apps().await.expect_err(message).to_string();
        assert!(error.contains(message), "{error}");
    });
    futures_util::future::join_all(checks).await;
}

#[tokio::test]
async fn a_packed_list_is_unpacked() {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(NO_APPS.as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    let server =
        Server::start(move |_| answer("200 OK", "Content-Encoding: gzip\r\n", &packed)).await;
    assert_eq!(client(&[server.url()]).fetch_apps().await.unwrap().body, NO_APPS);
}

#[tokio::test]
async fn every_endpoint_is_tried_once_and_the_one_that_answers_is_kept() {
    let sick = Server::start(|_| answer("500 Oops", "", "")).await;
    let well = Server::start(|_| json(NO_APPS)).await;
    let client = client(&[sick.url(), well.url()]);
    for _ in 0..3 {
        assert_eq!(client.fetch_apps().await.unwrap().endpoint, well.url());
    }
    assert_eq!((sick.requests().len(), well.requests().len()), (1, 3));
    well.stop().await;
    let error = client.fetch_apps().await.unwrap_err();
    let tried: Vec<&String> = error.attempts.iter().map(|(endpoint, _)| endpoint).collect();
    assert_eq!(tried.len(), 2);
    assert_eq!(sick.requests().len(), 2);
    let error = error.to_string();
    assert!(error.contains("cannot connect: ") && error.contains("refused"), "{error}");
    assert!(error.contains("answered 500"), "{error}");
}

#[tokio::test]
async fn a_redirect_takes_credentials_to_the_leader_that_marathon_names() {
    let leader = Server::start(|_| json(NO_APPS)).await;
    let host = leader.host.clone();
    // One names it when asked, one in every answer.
    for is_named_by_header in [false, true] {
        let (to, host) = (leader.url(), host.clone());
        let standby = Server::start(move |request: &Request| match request.target() {
            "/v2/leader" => json(&format!(r#"{{"leader":"{host}"}}"#)),
            _ if is_named_by_header => {
                let headers = format!("Location: {to}/v2/apps?x=1\r\nX-Marathon-Leader: {to}\r\n");
                answer("302 Found", &headers, "")
            }
            _ => redirect(&format!("{to}/v2/apps?x=1")),
        })
        .await;
        let url = format!("http://joe:a%3Ab@{}", standby.host);
        client(&[url]).fetch_apps().await.unwrap();
        let asked: Vec<_> = standby.requests().iter().map(|r| r.target().to_owned()).collect();
        assert_eq!(asked.contains(&"/v2/leader".to_owned()), !is_named_by_header);
        for request in leader.requests().iter().chain(&standby.requests()) {
            assert_eq!(request.authorization(), Some("Basic am9lOmE6Yg=="), "{request:?}");
        }
    }
    assert!(leader.requests().iter().all(|request| request.target() == "/v2/apps?x=1"));
}

#[tokio::test]
async fn a_stranger_gets_neither_credentials_nor_a_request() {
    let stranger = Server::start(|_| json(NO_APPS)).await;
    for leader in [r#"{"leader":"127.0.0.1:1"}"#, "{}", "<html>", ""] {
        let to = format!("{}/v2/apps", stranger.url());
        let standby = Server::start(move |request: &Request| match request.target() {
            "/v2/leader" => json(leader),
            _ => redirect(&to),
        })
        .await;
        let credentials = Credentials::token("hunter2").unwrap();
        let client = client_with(&[standby.url()], credentials, small());
        let error = client.fetch_apps().await.unwrap_err().to_string();
        assert!(error.contains("neither configured nor Marathon's leader"), "{error}");
        assert!(!error.contains("hunter2") && !format!("{client:?}").contains("hunter2"));
        assert_eq!(standby.requests()[0].authorization(), Some("token=hunter2"));
    }
    assert!(stranger.requests().is_empty());
}

/// A DC/OS whose tokens are `t0`, `t1`, …; `is_valid` says which ones its Marathon takes.
async fn dcos(is_valid: fn(&str) -> bool) -> Server {
    Server::start(move |request: &Request| {
        if request.target() == "/acs/api/v1/auth/login" {
            if request.text.contains("wrong") {
                return answer("401 Unauthorized", "", r#"{"title":"Unauthorized"}"#);
            }
            return json(&format!(r#"{{"token":"t{}"}}"#, request.number));
        }
        match request.authorization() {
            Some(pass) if is_valid(pass) => json(NO_APPS),
            _ => answer("401 Unauthorized", "", "<html>"),
        }
    })
    .await
}

fn account(server: &Server, password: &str) -> Credentials {
    let json = format!(r#"{{"uid":"svc","password":"{password}"}}"#);
    let login = format!("{}/acs/api/v1/auth/login", server.url());
    Credentials::service_account(&json, Some(&login)).unwrap()
}

fn logins(server: &Server) -> usize {
    server.count("POST /acs/")
}

#[tokio::test]
async fn one_login_serves_all_who_ask_at_once() {
    let server = dcos(|pass| pass == "token=t0").await;
    let client = client_with(&[server.url()], account(&server, "pw"), Options::default());
    let fetches = (0..5).map(|_| client.fetch_apps());
    for fetched in futures_util::future::join_all(fetches).await {
        fetched.unwrap();
    }
    assert_eq!(logins(&server), 1);
    let login = &server.requests()[0];
    assert!(login.text.ends_with("\r\n\r\n{\"password\":\"pw\",\"uid\":\"svc\"}"), "{login:?}");
}

#[tokio::test]
async fn a_login_that_ended_early_is_made_again_once() {
    // `t0` is refused, so the login after that refusal counts.
    let server = dcos(|pass| pass == "token=t2").await;
    let client = client_with(&[server.url()], account(&server, "pw"), Options::default());
    client.fetch_apps().await.unwrap();
    assert_eq!(logins(&server), 2);
    let server = dcos(|_| false).await;
    let client = client_with(&[server.url()], account(&server, "pw"), Options::default());
    let error = client.fetch_apps().await.unwrap_err().to_string();
    assert!(error.contains("answered 401"), "{error}");
    assert_eq!((logins(&server), server.requests().len()), (2, 4));
}

#[tokio::test]
async fn a_login_is_made_anew_when_its_time_is_over() {
    let server = Server::start(|request: &Request| {
        if !request.text.starts_with("POST ") {
            return json(NO_APPS);
        }
        // Over since long, which makes it good for a second: clocks may differ.
        let key = jsonwebtoken::EncodingKey::from_secret(b"x");
        let claims = serde_json::json!({ "exp": request.number });
        let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
        answer("200 OK", &format!("Set-Cookie: dcos-acs-auth-cookie={token}; Path=/\r\n"), "")
    })
    .await;
    let client = client_with(&[server.url()], account(&server, "pw"), Options::default());
    let renewed = async {
        while logins(&server) < 2 {
            client.fetch_apps().await.unwrap();
        }
    };
    timeout(Duration::from_secs(10), renewed).await.unwrap();
    let requests = server.requests();
    let last = requests.last().unwrap();
    assert!(last.authorization() != requests[1].authorization() && last.authorization().is_some());
}

#[tokio::test]
async fn a_refused_login_is_named_as_such() {
    let server = dcos(|_| true).await;
    let client = client_with(&[server.url()], account(&server, "wrong"), Options::default());
    let error = client.fetch_apps().await.unwrap_err().to_string();
    assert!(error.contains("the login endpoint answered 401"), "{error}");
    assert!(!error.contains("wrong"), "{error}");
}

/// A password or token that was replaced in its file; a file that is no good leaves what there was.
#[tokio::test]
async fn a_refused_password_or_token_is_read_again() {
    let server = Server::start(|request: &Request| match request.authorization() {
        // `u:new`
        Some("token=new" | "Basic dTpuZXc=") => json(NO_APPS),
        _ => answer("401 Unauthorized", "", ""),
    })
    .await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let write = |text| std::fs::write(file.path(), text).unwrap();
    let path = file.path().to_owned();
    for source in [
        Source::Token(path.clone()),
        Source::Basic { user: "u".to_owned(), password: path.clone() },
    ] {
        write("old\n");
        let (text, credentials) = source.read().unwrap();
        let client = client_with(&[server.url()], credentials, Options::default());
        client.read_credentials_from(ReadFrom { source, text });
        let before = server.requests().len();
        assert!(client.fetch_apps().await.is_err());
        assert_eq!(server.requests().len() - before, 1, "the same is not sent twice");
        write("");
        assert!(client.fetch_apps().await.is_err());
        let error = client.read_credentials_again().await.unwrap_err().to_string();
        assert!(error.contains("empty"), "{error}");
        write("new\n");
        client.fetch_apps().await.unwrap();
        assert!(!client.read_credentials_again().await.unwrap());
        write("newer");
        assert!(client.read_credentials_again().await.unwrap());
    }
}

#[tokio::test]
async fn a_service_account_is_read_again_when_its_login_is_refused() {
    let server = dcos(|_| true).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let write = |password: &str| {
        let login = format!("{}/acs/api/v1/auth/login", server.url());
        let json =
            serde_json::json!({ "uid": "svc", "password": password, "login_endpoint": login });
        std::fs::write(file.path(), json.to_string()).unwrap();
    };
    write("wrong");
    let source = Source::ServiceAccount(file.path().to_owned());
    let (text, credentials) = source.read().unwrap();
    let client = client_with(&[server.url()], credentials, Options::default());
    client.read_credentials_from(ReadFrom { source, text });
    assert!(client.fetch_apps().await.is_err());
    assert_eq!(logins(&server), 1);
    write("right");
    client.fetch_apps().await.unwrap();
    assert_eq!(logins(&server), 3);
}

#[tokio::test]
async fn marathon_is_asked_what_it_is() {
    let server = Server::start(|request: &Request| match request.target() {
        "/v2/info" => {
            json(r#"{"name":"marathon","version":"1.4.13","leader":"a:8080","elected":true}"#)
        }
        _ => answer("200 OK", "", "pong\n"),
    })
    .await;
    let client = client(&[server.url()]);
    let info = Info { version: Some("1.4.13".to_owned()), leader: Some("a:8080".to_owned()) };
    assert_eq!(client.info().await.unwrap(), info);
    assert_eq!(client.fetch_text("/ping").await.unwrap(), "pong\n");
}

#[tokio::test]
async fn silent_endpoint_is_not_waited_for_alone() {
    let silent = Server::start(|_| vec![Step::Hang]).await;
    let other = Server::start(|_| json(NO_APPS)).await;
    let deadlines = Deadlines { hedge: Duration::from_millis(50), ..Deadlines::default() };
    let options = Options { deadlines, ..Options::default() };
    let urls = [silent.url(), other.url()];
    let client = client_with(&urls, Credentials::None, options);
    let fetched = client.fetch_apps().await.unwrap();
    assert_eq!(fetched.endpoint, other.url());
    // It is asked first from now on.
    assert_eq!(client.fetch_apps().await.unwrap().endpoint, other.url());
    assert_eq!(silent.requests().len(), 1);
}
