//! Which hosts apps claim.

use marathon_sync::document::parse;
use marathon_sync::rules::address::AppPorts;
use marathon_sync::rules::labels::{Claims, Include, Options, claims, identifier};
use serde_json::{Value, json};

fn read(labels: Value, options: &Options) -> Claims {
    let mut app = json!({ "id": "/shop/web", "container": { "portMappings": [
        { "containerPort": 80, "hostPort": 0, "name": "web", "labels": {} },
        { "containerPort": 81, "hostPort": 0, "name": "admin",
          "labels": { "portFrontend": "p.test", "hipacheIdentifier": "by-port" } },
        { "containerPort": 53, "hostPort": 0, "name": "dns", "protocol": "udp" } ] } });
    app["labels"] = labels;
    let answer = parse(json!({ "apps": [app] }).to_string().as_bytes()).expect("an answer");
    let app = &answer.apps[0];
    claims(app, &AppPorts::of(app), options)
}

/// `host identifier port`, in the order of the claims.
fn hosts(found: &Claims) -> Vec<String> {
    let line = |claim: &marathon_sync::rules::labels::Claim| {
        format!("{} {} {} {:?}", claim.host, claim.identifier, claim.port, claim.scheme)
    };
    found.hosts.iter().map(line).collect()
}

#[track_caller]
fn assert_claims(labels: Value, options: &Options, expected: &[&str], refused: &[&str]) {
    let text = labels.to_string();
    let found = read(labels, options);
    assert_eq!(hosts(&found), expected, "{text}");
    assert_eq!(found.refused.len(), refused.len(), "{text}: {:?}", found.refused);
    for (refused, part) in found.refused.iter().zip(refused) {
        assert!(
            format!("{}: {}", refused.label, refused.reason).contains(part),
            "{refused:?} {part}"
        );
    }
}

#[test]
fn hosts_of_the_bridges_label() {
    let options = Options::default();
    for (labels, expected, refused) in [
        (
            json!({ "hipacheFrontend": " A.test ,,b.test.,a.test, *.C.test,*" }),
            &[
                "a.test a port 0 Http",
                "b.test b port 0 Http",
                "*.c.test c port 0 Http",
                "* web port 0 Http",
            ][..],
            &[][..],
        ),
        (
            json!({ "hipacheFrontend": "a.test", "hipacheIdentifier": " shop " }),
            &["a.test shop port 0 Http"],
            &[],
        ),
        (
            json!({ "hipacheFrontend": "a.test", "hipacheIdentifier": "a\nb" }),
            &["a.test a port 0 Http"],
            &["hipacheIdentifier: "],
        ),
        (
            json!({ "hipacheFrontend.1": "a.test", "hipacheFrontend.admin": "b.test" }),
            &["a.test a port 1 Http", "b.test b port `admin` Http"],
            &[],
        ),
        (
            json!({ "hipacheFrontend.nope": "a.test" }),
            &[],
            &["no port `nope`; it has 3, named web, admin, dns"],
        ),
        (
            json!({ "hipacheFrontend.3": "a.test", "hipacheFrontend": "b.test" }),
            &["b.test b port 0 Http"],
            &["no port 3"],
        ),
        (json!({ "hipacheFrontend.dns": "a.test" }), &[], &["UDP"]),
        (
            json!({ "hipacheFrontend": "a.test", "hipacheFrontend.1": "a.test" }),
            &["a.test a port 1 Http"],
            &["`a.test` is claimed for port 0"],
        ),
        (
            json!({ "hipacheFrontend": "http://a.test/,a.test/x,a b.test,a..test,a.*.test,a.test:80,__ping__,*.a.b.c.d.e.f,ok.test" }),
            &["ok.test ok port 0 Http"],
            &[
                "neither URL",
                "neither URL",
                "character",
                "empty label",
                "whole beginning",
                "port",
                "reserved",
                "at most 5",
            ],
        ),
        (json!({ "hipacheFrontend": "" }), &[], &[]),
        (json!({ "hipacheFrontendX": "a.test", "other": "b" }), &[], &[]),
    ] {
        assert_claims(labels, &options, expected, refused);
    }
}

/// Labels that are not read and were probably meant.
#[test]
fn labels_that_were_probably_meant_are_named() {
    let options = Options::default();
    for (labels, part) in [
        (json!({ "hipachefrontend": "a.test" }), "did you mean `hipacheFrontend`?"),
        (json!({ "hipacheFrontends.1": "a.test" }), "did you mean `hipacheFrontend`?"),
        (
            json!({ "HAPROXY_GROUP": "external", "HAPROXY_0_VHOST": "a.test" }),
            "labels of marathon-lb such as its `HAPROXY_0_VHOST` are read with `--group external`",
        ),
        (
            json!({ "HAPROXY_GROUP": "external" }),
            "its `HAPROXY_GROUP` is not read: there is no HAPROXY_n_VHOST: its service ports are plain TCP",
        ),
        (json!({ "traefik.frontend.rule": "Host:a.test" }), "are read with --traefik"),
        (json!({ "traefik.http.routers.a.rule": "Host(`a.test`)" }), "are read with --traefik"),
    ] {
        let found = read(labels.clone(), &options);
        let why = found.not_meant.unwrap_or_default();
        assert!(why.contains(part) && why.contains("no label `hipacheFrontend`"), "{labels} {why}");
        assert!(found.hosts.is_empty() && found.refused.is_empty());
    }
    let labels = json!({ "hipacheFrontend": "a.test", "hipacheIdentifer": "shop" });
    let refused = &["hipacheIdentifer: is not read; did you mean `hipacheIdentifier`?"];
    assert_claims(labels, &options, &["a.test a port 0 Http"], refused);
    for labels in [json!({ "frontend": "a.test", "team": "shop" }), json!({})] {
        assert_eq!(read(labels.clone(), &options).not_meant, None, "{labels}");
    }
}

/// marathon-lb opens service ports of such an app in plain TCP.
#[test]
fn a_group_without_a_virtual_host_is_named_as_tcp() {
    let options = Options { groups: vec!["external".to_owned()], ..Options::default() };
    for labels in [
        json!({ "HAPROXY_GROUP": "external" }),
        json!({ "HAPROXY_GROUP": "a,external", "HAPROXY_0_STICKY": "true" }),
        json!({ "HAPROXY_GROUP": "external", "HAPROXY_0_MODE": "http" }),
    ] {
        let refused =
            &["HAPROXY_GROUP: there is no HAPROXY_n_VHOST: its service ports are plain TCP"];
        assert_claims(labels, &options, &[], refused);
    }
    for labels in [
        json!({ "HAPROXY_GROUP": "external", "HAPROXY_0_MODE": "tcp" }),
        json!({ "HAPROXY_GROUP": "external", "HAPROXY_0_PORT": "10000" }),
        json!({ "HAPROXY_0_GROUP": "external" }),
    ] {
        assert_eq!(read(labels.clone(), &options).refused.len(), 1, "{labels}");
    }
    let found = read(json!({ "HAPROXY_GROUP": "internal" }), &options);
    assert!(found.refused.is_empty());
    assert!(found.not_meant.unwrap_or_default().contains("`internal` is not among the groups"));
}

#[test]
fn the_label_can_be_called_otherwise_and_stand_at_a_port() {
    let options = Options { label: "portFrontend".to_owned(), ..Options::default() };
    assert_claims(
        json!({ "hipacheFrontend": "a.test" }),
        &options,
        &["p.test by-port port 1 Http"],
        &[],
    );
}

#[test]
fn only_apps_with_the_included_labels_count() {
    for (include, is_in) in [("team", true), ("team=x", true), ("team=y", false), ("other", false)]
    {
        let options = Options { include: vec![Include::parse(include)], ..Options::default() };
        let found = read(json!({ "hipacheFrontend": "a.test", "team": "x" }), &options);
        assert_eq!(
            (found.hosts.len() == 1, found.not_meant.is_none()),
            (is_in, is_in),
            "{include}"
        );
    }
}

#[test]
fn identifiers_are_the_bridges_where_those_make_sense() {
    for (host, expected) in [
        ("www.example.test", "www"),
        ("localhost", "localhost"),
        ("*.example.test", "example"),
        ("*", "web"),
        ("10.0.0.1", "10.0.0.1"),
        ("[::1]", "[::1]"),
    ] {
        assert_eq!(identifier(host, "/shop/web"), expected);
    }
}

#[test]
fn marathon_lbs_labels_count_when_a_group_is_asked_for() {
    let lb = |groups: &[&str], strict| Options {
        groups: groups.iter().map(|&group| group.to_owned()).collect(),
        strict,
        ..Options::default()
    };
    let own = json!({ "HAPROXY_GROUP": "int, ext", "HAPROXY_0_VHOST": "A.test, b.test,", "HAPROXY_1_VHOST": "c.test", "HAPROXY_1_GROUP": "other" });
    assert_claims(own.clone(), &lb(&[], false), &[], &[]);
    assert_claims(
        own.clone(),
        &lb(&["ext"], false),
        &["a.test a port 0 Http", "b.test b port 0 Http"],
        &[],
    );
    assert_claims(
        own.clone(),
        &lb(&["*"], false),
        &["a.test a port 0 Http", "b.test b port 0 Http", "c.test c port 1 Http"],
        &[],
    );
    assert_claims(own, &lb(&["ext"], true), &[], &[]);
    for (name, value, expected, refused) in [
        ("ENABLED", "false", &[][..], &[][..]),
        ("ENABLED", "Yes", &["a.test a port 0 Http"], &[]),
        ("PATH", "/x", &[], &["HAPROXY_0_VHOST: it comes with `HAPROXY_0_PATH`"]),
        ("AUTH", "r:u:h", &[], &["without the password"]),
        ("MODE", "tcp", &[], &["HAPROXY_0_MODE: only HTTP"]),
        ("STICKY", "true", &["a.test a port 0 Http"], &["HAPROXY_0_STICKY: has no counterpart"]),
    ] {
        let mut labels = json!({ "HAPROXY_0_VHOST": "a.test" });
        labels[format!("HAPROXY_0_{name}")] = json!(value);
        assert_claims(labels, &lb(&["*"], false), expected, refused);
    }
    assert_claims(
        json!({ "HAPROXY_0_PORT": "9000" }),
        &lb(&["*"], false),
        &[],
        &["VHOST is needed"],
    );
}

#[test]
fn traefiks_labels_count_behind_the_option_as_far_as_they_name_whole_hosts() {
    let options = Options { traefik: true, ..Options::default() };
    assert_claims(json!({ "traefik.frontend.rule": "Host:a.test" }), &Options::default(), &[], &[]);
    let service = |port: &str| {
        json!({ "traefik.http.routers.r.rule": "Host(`a.test`)",
        "traefik.http.services.s.loadbalancer.server.port": port,
        "traefik.http.services.s.loadbalancer.server.scheme": "https" })
    };
    for (labels, expected, refused) in [
        (
            json!({ "traefik.frontend.rule": "Host:a.test, B.test" }),
            &["a.test a port 0 Http", "b.test b port 0 Http"][..],
            &[][..],
        ),
        (
            json!({ "traefik.frontend.rule": "Host:a.test", "traefik.portIndex": "1", "traefik.protocol": "https" }),
            &["a.test a port 1 Https"],
            &[],
        ),
        (
            json!({ "traefik.frontend.rule": "Host:a.test", "traefik.port": "81" }),
            &["a.test a port number 81 Http"],
            &[],
        ),
        (
            json!({ "traefik.api.frontend.rule": "Host:a.test", "traefik.api.portIndex": "1" }),
            &["a.test a port 1 Http"],
            &[],
        ),
        (
            json!({ "traefik.frontend.rule": "Host:a.test;PathPrefix:/x" }),
            &[],
            &["not `PathPrefix:/x`"],
        ),
        (json!({ "traefik.frontend.rule": "HostRegexp:{s:.*}.test" }), &[], &["only whole hosts"]),
        (
            json!({ "traefik.frontend.rule": "Host:a.test", "traefik.frontend.auth.basic": "u:p" }),
            &[],
            &["traefik.frontend.auth.basic"],
        ),
        (
            json!({ "traefik.frontend.rule": "Host:a.test", "traefik.protocol": "h2c" }),
            &[],
            &["neither http nor https"],
        ),
        (json!({ "traefik.frontend.rule": "Host:a.test", "traefik.enable": "false" }), &[], &[]),
        (json!({ "traefik.enable": "true" }), &[], &["no rule"]),
        (
            json!({ "traefik.http.routers.r.rule": "Host(`a.test`, `b.test`) || Host(\"c.test\")" }),
            &["a.test a port 0 Http", "b.test b port 0 Http", "c.test c port 0 Http"],
            &[],
        ),
        (service("81"), &["a.test a port number 81 Https"], &[]),
        (service("index:1"), &["a.test a port 1 Https"], &[]),
        (service("name:admin"), &["a.test a port `admin` Https"], &[]),
        (service("what:1"), &[], &["neither a number nor an index"]),
        (
            json!({ "traefik.http.routers.r.rule": "Host(`a.test`) && PathPrefix(`/x`)" }),
            &[],
            &["only whole hosts"],
        ),
        (
            json!({ "traefik.http.routers.r.rule": "Host(`a.test`)", "traefik.http.routers.r.middlewares": "auth" }),
            &[],
            &["middlewares"],
        ),
        (json!({ "traefik.tcp.routers.r.rule": "HostSNI(`*`)" }), &[], &["neither TCP nor UDP"]),
    ] {
        assert_claims(labels, &options, expected, refused);
    }
}

#[test]
fn an_app_claims_a_thousand_hosts_and_is_told_of_the_rest() {
    let hosts: Vec<String> = (0..1002).map(|n| format!("h{n}.test")).collect();
    let claims = read(json!({ "hipacheFrontend": hosts.join(",") }), &Options::default());
    assert_eq!((claims.hosts.len(), claims.refused.len()), (1000, 2));
    assert!(claims.refused[0].reason.contains("h1000.test"));
}
