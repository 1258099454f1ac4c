//! Flags for the limits of clients.

use std::time::Duration;

use clap::Args;

use super::seconds;

/// Flags for what clients may make the router bear.
#[allow(clippy::doc_markdown, reason = "these comments are the text of --help")]
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Limits of clients")]
pub struct LimitArgs {
    /// Seconds for a request's head, from its first byte on [config: server.headTimeout; default:
    /// 10]
    #[arg(long, global = true, value_name = "SECONDS", env = "ROUTER_HEAD_TIMEOUT", value_parser = seconds)]
    pub head_timeout: Option<Duration>,

    /// Seconds for the first byte of a new connection [config: server.firstByteTimeout; default:
    /// 10]
    #[arg(long, global = true, value_name = "SECONDS", env = "ROUTER_FIRST_BYTE_TIMEOUT", value_parser = seconds)]
    pub first_byte_timeout: Option<Duration>,

    /// Seconds that a connection may be unused between requests [config: server.idleTimeout;
    /// default: tcpTimeout, or 300 where that is 0]
    #[arg(long, global = true, value_name = "SECONDS", env = "ROUTER_IDLE_TIMEOUT", value_parser = seconds)]
    pub idle_timeout: Option<Duration>,

    /// Bytes a second that a request body has to bring while it is waited for, 0 for any [config:
    /// server.minBodyRate; default: 100]
    #[arg(long, global = true, value_name = "N", env = "ROUTER_MIN_BODY_RATE")]
    pub min_body_rate: Option<u32>,

    /// Bytes of a request's body, 0 for any number [config: server.maxBody; default: 0]
    #[arg(long, global = true, value_name = "BYTES", env = "ROUTER_MAX_BODY")]
    pub max_body: Option<u64>,

    /// Bytes of a request's head [config: server.maxHead; default: 81920]
    #[arg(long, global = true, value_name = "BYTES", env = "ROUTER_MAX_HEAD")]
    pub max_head: Option<u32>,

    /// Header lines of a request [config: server.maxHeaders; default: 100]
    #[arg(long, global = true, value_name = "N", env = "ROUTER_MAX_HEADERS")]
    pub max_headers: Option<u32>,

    /// Bytes of a request's path and query [config: server.maxUri; default: 65534]
    #[arg(long, global = true, value_name = "BYTES", env = "ROUTER_MAX_URI")]
    pub max_uri: Option<u32>,

    /// Requests that a worker answers at a time; more get 503, 0 for any number [config:
    /// server.maxRequests; default: 10000]
    #[arg(long, global = true, value_name = "N", env = "ROUTER_MAX_REQUESTS")]
    pub max_requests: Option<u32>,

    /// Requests after which a client's connection ends, 0 for never [config:
    /// server.maxRequestsPerConnection; default: 0]
    #[arg(long, global = true, value_name = "N", env = "ROUTER_MAX_REQUESTS_PER_CONNECTION")]
    pub max_requests_per_connection: Option<u32>,

    /// Maximum client connections; further ones get 503 (0: limited by open files only) [config:
    /// server.maxConnections; default: 0]
    #[arg(long, global = true, value_name = "N", env = "ROUTER_MAX_CONNECTIONS")]
    pub max_connections: Option<u32>,

    /// Connections from one address that is no trusted proxy; more are refused with 503, 0 for any
    /// number [config: server.maxConnectionsPerAddress; default: 0]
    #[arg(long, global = true, value_name = "N", env = "ROUTER_MAX_CONNECTIONS_PER_ADDRESS")]
    pub max_connections_per_address: Option<u32>,

    /// Tunnels (WebSockets and other upgrades); more are refused with 503, 0 for any number [config:
    /// server.maxTunnels; default: half of the limit of open files]
    #[arg(long, global = true, value_name = "N", env = "ROUTER_MAX_TUNNELS")]
    pub max_tunnels: Option<u32>,

    /// Tunnels to one backend; more go to another backend, or are refused with 503, 0 for any number
    /// [config: server.maxTunnelsPerBackend; default: half of maxTunnels]
    #[arg(long, global = true, value_name = "N", env = "ROUTER_MAX_TUNNELS_PER_BACKEND")]
    pub max_tunnels_per_backend: Option<u32>,
}
