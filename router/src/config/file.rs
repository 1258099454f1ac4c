//! Hipache's JSON configuration as it stands in the file, legacy keys included.
//!
//! A mirror of the file: types are checked here, values are not. Every field is optional; what a
//! missing one means is decided in [`super`].

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ConfigFile {
    pub(super) server: Object<Server>,
    pub(super) http: Object<Listener>,
    pub(super) https: Object<Listener>,
    pub(super) driver: Option<OneOrMany>,
    pub(super) user: Option<NameOrId>,
    pub(super) group: Option<NameOrId>,
    // Hipache 0.1.
    pub(super) redis: Option<Object<Redis>>,
    // Hipache 0.2 and 0.3.
    pub(super) redis_host: Option<String>,
    pub(super) redis_port: Option<u16>,
    pub(super) redis_password: Option<String>,
    pub(super) redis_database: Option<u32>,
    pub(super) redis_master_host: Option<String>,
    pub(super) redis_master_port: Option<u16>,
    pub(super) redis_master_password: Option<String>,
    pub(super) redis_master_database: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Server {
    pub(super) debug: Option<bool>,
    pub(super) workers: Option<u32>,
    pub(super) max_sockets: Option<u32>,
    pub(super) tcp_timeout: Option<f64>,
    #[serde(rename = "deadBackendTTL")]
    pub(super) dead_backend_ttl: Option<f64>,
    pub(super) retry_on_error: Option<CountOrSwitch>,
    pub(super) access_log: Option<String>,
    pub(super) http_keep_alive: Option<bool>,
    pub(super) dead_backend_on500: Option<bool>,
    pub(super) dead_backend_on_timeout: Option<String>,
    pub(super) static_dir: Option<PathBuf>,
    pub(super) lru_cache: Option<Object<LruCache>>,
    pub(super) admin: Option<String>,
    pub(super) admin_hosts: Option<OneOrMany>,
    pub(super) cache: Option<String>,
    pub(super) snapshot: Option<PathBuf>,
    pub(super) empty_redis_grace: Option<f64>,
    pub(super) backend_ca: Option<PathBuf>,
    pub(super) connect_timeout: Option<f64>,
    pub(super) tunnel_idle_timeout: Option<f64>,
    pub(super) drain_timeout: Option<f64>,
    pub(super) head_timeout: Option<f64>,
    pub(super) first_byte_timeout: Option<f64>,
    pub(super) idle_timeout: Option<f64>,
    pub(super) max_head: Option<u32>,
    pub(super) max_headers: Option<u32>,
    pub(super) max_uri: Option<u32>,
    pub(super) max_body: Option<u64>,
    pub(super) min_body_rate: Option<u32>,
    pub(super) max_requests: Option<u32>,
    pub(super) max_requests_per_connection: Option<u32>,
    pub(super) max_connections: Option<u32>,
    pub(super) max_connections_per_address: Option<u32>,
    pub(super) max_tunnels: Option<u32>,
    pub(super) max_tunnels_per_backend: Option<u32>,
    pub(super) trusted_proxies: Option<OneOrMany>,
    pub(super) allowed_backends: Option<OneOrMany>,
    pub(super) cookie_key: Option<String>,
    pub(super) forwarded: Option<bool>,
    pub(super) request_ids: Option<bool>,
    #[serde(rename = "plainIPv4")]
    pub(super) plain_ipv4: Option<bool>,
    // Hipache 0.1.
    pub(super) error_max_retries: Option<u32>,
    // Hipache 0.1 to 0.3.
    pub(super) port: Option<u16>,
    pub(super) address: Option<OneOrMany>,
    pub(super) address6: Option<OneOrMany>,
    pub(super) https: Option<Object<Listener>>,
}

/// Where Redis is, as Hipache 0.1 wrote it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Redis {
    pub(super) host: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) password: Option<String>,
    pub(super) database: Option<u32>,
}

/// A JSON object. Without this serde would read a list as the fields of a struct in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct Object<T>(pub(super) T);

impl<T> Deref for Object<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Object<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }

        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LruCache {
    pub(super) size: Option<usize>,
    pub(super) ttl: Option<f64>,
}

/// `http` or `https`; also one entry of `bind`, which may override all of it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Listener {
    pub(super) port: Option<u16>,
    pub(super) bind: Option<Binds>,
    pub(super) key: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) ca: Option<OneOrMany>,
    pub(super) passphrase: Option<String>,
    pub(super) secure_protocol: Option<String>,
    pub(super) secure_options: Option<Value>,
    pub(super) ciphers: Option<String>,
    pub(super) honor_cipher_order: Option<bool>,
    pub(super) proxy_protocol: Option<bool>,
    pub(super) directory: Option<PathBuf>,
    pub(super) preset: Option<String>,
    pub(super) http2: Option<bool>,
    pub(super) h2c: Option<bool>,
}

/// Not `#[serde(untagged)]`, nor is [`Bind`]: that reads into a buffer first, and neither unknown keys
/// nor the place of an error are told from there.
#[derive(Clone, Debug)]
pub(super) enum Binds {
    One(Bind),
    Many(Vec<Bind>),
}

impl<'de> Deserialize<'de> for Binds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BindsVisitor;

        impl<'de> Visitor<'de> for BindsVisitor {
            type Value = Binds;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address, or a list of addresses or of {address, port} objects")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Binds, E> {
                BindVisitor.visit_str(text).map(Binds::One)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Binds, A::Error> {
                BindVisitor.visit_map(map).map(Binds::One)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Binds, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Binds::Many)
            }
        }

        deserializer.deserialize_any(BindsVisitor)
    }
}

impl Binds {
    /// The entries, each with its dotted key below that of the `section`.
    pub(super) fn list(&self, section: &str) -> impl Iterator<Item = (String, &Bind)> {
        let binds = match self {
            Self::One(bind) => std::slice::from_ref(bind),
            Self::Many(binds) => binds,
        };
        binds.iter().enumerate().map(move |(index, bind)| match self {
            Self::One(_) => (format!("{section}.bind"), bind),
            Self::Many(_) => (format!("{section}.bind.{index}"), bind),
        })
    }
}

#[derive(Clone, Debug)]
pub(super) enum Bind {
    Address(String),
    Object(BindObject),
}

struct BindVisitor;

impl<'de> Visitor<'de> for BindVisitor {
    type Value = Bind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address or an {address, port} object")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Bind, E> {
        Ok(Bind::Address(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Bind, A::Error> {
        BindObject::deserialize(MapAccessDeserializer::new(map)).map(Bind::Object)
    }
}

impl<'de> Deserialize<'de> for Bind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BindVisitor)
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct BindObject {
    pub(super) address: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) key: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) ca: Option<OneOrMany>,
    pub(super) passphrase: Option<String>,
    pub(super) proxy_protocol: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(super) fn list(&self) -> &[String] {
        match self {
            Self::One(item) => std::slice::from_ref(item),
            Self::Many(items) => items,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a name or a number")]
pub(super) enum NameOrId {
    Id(u32),
    Name(String),
}

impl fmt::Display for NameOrId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a number, or false for none")]
pub(super) enum CountOrSwitch {
    Count(u32),
    Switch(bool),
}
