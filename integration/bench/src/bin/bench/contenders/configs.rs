//! The configuration of each proxy, so that all do the same work.

use std::path::Path;

use serde_json::json;

use super::{AccessLog, Front, Mode, Room, Setup};

pub(super) fn router_config(
    setup: &Setup,
    port: u16,
    log: AccessLog,
    front: Front,
    dir: &Path,
) -> String {
    let access_log = match log {
        AccessLog::Off => "none".to_owned(),
        AccessLog::On => dir.join("access.log").display().to_string(),
    };
    let mut config = json!({
        "server": {
            "workers": 1,
            "accessLog": access_log,
            "lruCache": { "size": 1000, "ttl": 60 },
        },
        "driver": format!("redis://127.0.0.1:{}", setup.redis_port),
    });
    if setup.room == Room::Usual {
        // As many as nginx may keep: the number of clients is the limit, for every contender. In a
        // storm the router shows what its default does.
        config["server"]["maxSockets"] = setup.room.to_origin().into();
    }
    match front {
        Front::Plain => config["http"] = json!({ "bind": ["127.0.0.1"], "port": port }),
        Front::Tls => {
            config["http"] = json!({ "bind": [] });
            config["https"] = json!({
                "bind": ["127.0.0.1"],
                "port": port,
                "cert": setup.tls.certificate,
                "key": setup.tls.key,
                "preset": "modern",
            });
        }
    }
    if nix::unistd::geteuid().is_root() {
        // As nginx and HAProxy here: no privileges dropped, the directory stays accessible.
        config["user"] = json!("root");
        config["group"] = json!("root");
    }
    config.to_string()
}

pub(super) fn nginx_config(
    setup: &Setup,
    port: u16,
    log: AccessLog,
    front: Front,
    mode: &Mode,
    dir: &Path,
) -> String {
    let (origin, connections) = (setup.origin_port, setup.room.connections());
    let most = setup.room.to_origin();
    let (main, http) = (nginx_main(mode), nginx_http());
    // Buffers of 16 KiB, HAProxy's default size: with its own default of 4 KiB nginx needs four times
    // the CPU for a large body.
    let access_log = match log {
        AccessLog::Off => "off".to_owned(),
        // Buffered, as the router writes its log.
        AccessLog::On => {
            format!("{} combined buffer=64k flush=1s", dir.join("access.log").display())
        }
    };
    let (listen_tls, tls) = match front {
        Front::Plain => ("", String::new()),
        Front::Tls => (
            "ssl",
            format!(
                "ssl_protocols TLSv1.3; ssl_certificate {}; ssl_certificate_key {};",
                setup.tls.certificate.display(),
                setup.tls.key.display()
            ),
        ),
    };
    format!(
        "{main}
        events {{ worker_connections {connections}; }}
        http {{
            {http}
            access_log {access_log};
            upstream origin {{
                server 127.0.0.1:{origin};
                keepalive {most};
                keepalive_requests 1000000000;
                keepalive_timeout 300s;
            }}
            server {{
                listen 127.0.0.1:{port} {listen_tls} backlog=4096;
                {tls}
                location / {{
                    proxy_pass http://origin;
                    proxy_http_version 1.1;
                    proxy_set_header Connection '';
                    proxy_set_header Host $http_host;
                    proxy_set_header X-Forwarded-For $remote_addr;
                    proxy_set_header X-Real-IP $remote_addr;
                    proxy_set_header X-Forwarded-Proto $scheme;
                    proxy_set_header X-Forwarded-Protocol $scheme;
                    proxy_set_header X-Forwarded-Port $server_port;
                    proxy_max_temp_file_size 0;
                    proxy_buffer_size 16k;
                    proxy_buffers 8 16k;
                    proxy_busy_buffers_size 32k;
                }}
            }}
        }}\n"
    )
}

pub(super) fn nginx_main(mode: &Mode) -> String {
    let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
    let processes = match mode {
        Mode::Normal => "worker_processes 1;",
        // One process: valgrind counts into one file.
        Mode::Callgrind(_) => "master_process off;",
    };
    format!("{user} daemon off; {processes} pid nginx.pid; error_log stderr;")
}

/// Temporary files in the own directory; connections never closed for their number of requests.
pub(super) fn nginx_http() -> &'static str {
    "client_body_temp_path tmp-body; proxy_temp_path tmp-proxy; fastcgi_temp_path tmp-fastcgi;
            uwsgi_temp_path tmp-uwsgi; scgi_temp_path tmp-scgi;
            keepalive_requests 1000000000; keepalive_timeout 300s;"
}

pub(super) fn haproxy_config(setup: &Setup, port: u16, log: AccessLog, front: Front) -> String {
    // In a storm each connection needs two files.
    let (origin, connections) = (setup.origin_port, setup.room.connections().min(9000));
    // Its standard output is a file; it writes each line by itself, having no buffered log.
    let (global_log, log) = match log {
        AccessLog::Off => ("", ""),
        AccessLog::On => ("log stdout format raw local0", "log global\n    option httplog"),
    };
    let scheme = front.scheme();
    let tls = match front {
        Front::Plain => String::new(),
        Front::Tls => format!("ssl crt {} ssl-min-ver TLSv1.3", setup.tls.both.display()),
    };
    format!(
        "global
    nbthread 1
    maxconn {connections}
    {global_log}
defaults
    mode http
    timeout connect 30s
    timeout client 300s
    timeout server 30s
    {log}
listen bench
    bind 127.0.0.1:{port} {tls}
    option forwardfor
    http-request set-header X-Real-IP %[src]
    http-request set-header X-Forwarded-Proto {scheme}
    http-request set-header X-Forwarded-Protocol {scheme}
    http-request set-header X-Forwarded-Port %[dst_port]
    http-reuse always
    server origin 127.0.0.1:{origin}\n"
    )
}
