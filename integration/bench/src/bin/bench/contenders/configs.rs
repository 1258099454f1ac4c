//! The configuration of each proxy, so that all do the same work.

use std::path::Path;

use serde_json::json;

use super::{AccessLog, Front, Launch, Mode};
use crate::setup::{Room, Setup};

/// Where the requests of clients of this kind go.
pub(super) fn origin_port(setup: &Setup, front: Front) -> u16 {
    match front {
        Front::Websocket => setup.echo_port,
        Front::Plain | Front::Tls | Front::Http2 => setup.origin_port,
    }
}

pub(super) fn router_config(setup: &Setup, launch: &Launch, port: u16, dir: &Path) -> String {
    let access_log = match launch.log {
        AccessLog::Off => "none".to_owned(),
        AccessLog::On => dir.join("access.log").display().to_string(),
    };
    let mut config = json!({
        "server": {
            "workers": launch.workers,
            "accessLog": access_log,
            "lruCache": { "size": 1000 + 2 * launch.hosts, "ttl": 60 },
        },
        "driver": format!("redis://127.0.0.1:{}", setup.redis_port),
    });
    if setup.room != Room::Storm {
        // As many as nginx may keep: the number of clients is the limit, for every contender. In a
        // storm the router shows what its default does.
        config["server"]["maxSockets"] = setup.room.to_origin().into();
    }
    if launch.front.is_tls() {
        config["http"] = json!({ "bind": [] });
        config["https"] = json!({
            "bind": ["127.0.0.1"],
            "port": port,
            "cert": setup.tls.certificate,
            "key": setup.tls.key,
            "preset": "modern",
        });
    } else {
        config["http"] = json!({ "bind": ["127.0.0.1"], "port": port });
    }
    if nix::unistd::geteuid().is_root() {
        // As nginx and HAProxy here: no privileges dropped, the directory stays accessible.
        config["user"] = json!("root");
        config["group"] = json!("root");
    }
    config.to_string()
}

pub(super) fn nginx_config(setup: &Setup, launch: &Launch, port: u16, dir: &Path) -> String {
    let (origin, connections) = (origin_port(setup, launch.front), setup.room.connections());
    let most = setup.room.to_origin();
    let (main, http) = (nginx_main(&launch.mode, launch.workers), nginx_http());
    // Buffers of 16 KiB, HAProxy's default size: with its own default of 4 KiB nginx needs four times
    // the CPU for a large body.
    let access_log = match launch.log {
        AccessLog::Off => "off".to_owned(),
        // Buffered, as the router writes its log.
        AccessLog::On => {
            format!("{} combined buffer=64k flush=1s", dir.join("access.log").display())
        }
    };
    let (listen_options, tls) = match launch.front {
        Front::Plain | Front::Websocket => ("", String::new()),
        Front::Tls => ("ssl", nginx_tls(setup)),
        Front::Http2 => ("ssl http2", nginx_tls(setup)),
    };
    let connection = match launch.front {
        Front::Websocket => "'upgrade'; proxy_set_header Upgrade $http_upgrade",
        Front::Plain | Front::Tls | Front::Http2 => "''",
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
                listen 127.0.0.1:{port} {listen_options} backlog=4096;
                {tls}
                location / {{
                    proxy_pass http://origin;
                    proxy_http_version 1.1;
                    proxy_set_header Connection {connection};
                    proxy_set_header Host $http_host;
                    proxy_set_header X-Forwarded-For $remote_addr;
                    proxy_set_header X-Real-IP $remote_addr;
                    proxy_set_header X-Forwarded-Proto $scheme;
                    proxy_set_header X-Forwarded-Protocol $scheme;
                    proxy_set_header X-Forwarded-Port $server_port;
                    client_max_body_size 0;
                    client_body_buffer_size 64k;
                    proxy_request_buffering off;
                    proxy_max_temp_file_size 0;
                    proxy_buffer_size 16k;
                    proxy_buffers 8 16k;
                    proxy_busy_buffers_size 32k;
                }}
            }}
        }}\n"
    )
}

fn nginx_tls(setup: &Setup) -> String {
    format!(
        "ssl_protocols TLSv1.3; ssl_certificate {}; ssl_certificate_key {};",
        setup.tls.certificate.display(),
        setup.tls.key.display()
    )
}

pub(crate) fn nginx_main(mode: &Mode, workers: u32) -> String {
    let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
    let processes = match mode {
        Mode::Normal => format!("worker_processes {workers};"),
        // One process: valgrind counts into one file.
        Mode::Callgrind(_) => "master_process off;".to_owned(),
    };
    format!("{user} daemon off; {processes} pid nginx.pid; error_log stderr;")
}

/// Temporary files in the own directory; connections never closed for their number of requests.
pub(crate) fn nginx_http() -> &'static str {
    "client_body_temp_path tmp-body; proxy_temp_path tmp-proxy; fastcgi_temp_path tmp-fastcgi;
            uwsgi_temp_path tmp-uwsgi; scgi_temp_path tmp-scgi;
            keepalive_requests 1000000000; keepalive_timeout 300s;"
}

pub(super) fn haproxy_config(setup: &Setup, launch: &Launch, port: u16) -> String {
    let (origin, workers) = (origin_port(setup, launch.front), launch.workers);
    // In a storm each connection needs two files.
    let connections = setup.room.connections().min(9000);
    // Its standard output is a file; it writes each line by itself, having no buffered log.
    let (global_log, log) = match launch.log {
        AccessLog::Off => ("", ""),
        AccessLog::On => ("log stdout format raw local0", "log global\n    option httplog"),
    };
    let scheme = launch.front.scheme();
    let certificate = setup.tls.both.display();
    let tls = match launch.front {
        Front::Plain | Front::Websocket => String::new(),
        Front::Tls => format!("ssl crt {certificate} ssl-min-ver TLSv1.3"),
        Front::Http2 => format!("ssl crt {certificate} ssl-min-ver TLSv1.3 alpn h2,http/1.1"),
    };
    format!(
        "global
    nbthread {workers}
    maxconn {connections}
    {global_log}
defaults
    mode http
    timeout connect 30s
    timeout client 300s
    timeout server 30s
    timeout tunnel 300s
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
