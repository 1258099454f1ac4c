//! Keys of Hipache 0.1 to 0.3, read as the keys that took their place. Each gets a warning that says
//! what it became.
//!
//! Facts: those versions listened on every address unless `server.address` or `server.address6` named
//! some, and `server.https` had the addresses of HTTP. 0.1 had `server.errorMaxRetries` and a `redis`
//! object. The keys of Redis were ignored where there was a `driver`.

use shared::driver::{Address, DEFAULT_HOST, DEFAULT_PORT, Driver, HostPort};
use shared::secret::Secret;

use super::file::{Bind, BindObject, Binds, ConfigFile, CountOrSwitch, OneOrMany};
use super::read::Loaded;

/// Every address of this machine, IPv4 included: what Node listens on when no address is named.
const ALL_ADDRESSES: &str = "::";
/// The same for IPv4 alone.
const ALL_IPV4_ADDRESSES: &str = "0.0.0.0";

/// Moves the older keys about listening and retries to where they belong.
pub(super) fn apply(loaded: &mut Loaded, warnings: &mut Vec<String>) {
    let is_old = is_old(&loaded.file);
    port(loaded, warnings);
    addresses(loaded, is_old, warnings);
    https(loaded, warnings);
    retries(loaded, warnings);
}

/// Whether a file was written for a version before 0.4, where no address means every address. Old keys of
/// Redis or retries alone say so unless `http.port` or `driver` shows that the file was edited for 0.4.
fn is_old(file: &ConfigFile) -> bool {
    let server = &file.server;
    let listens = server.port.is_some()
        || server.address.is_some()
        || server.address6.is_some()
        || server.https.is_some();
    let is_new = file.http.port.is_some() || file.driver.is_some();
    let has_old_redis = keys(file).iter().any(|key| key.is_set);
    listens || (!is_new && (has_old_redis || server.error_max_retries.is_some()))
}

fn port(loaded: &mut Loaded, warnings: &mut Vec<String>) {
    let Some(port) = loaded.file.server.port else { return };
    let place = loaded.place("server.port");
    if loaded.file.http.port.is_some() {
        warnings.push(format!("{place} is old and ignored: http.port is there"));
        return;
    }
    loaded.file.http.port = Some(port);
    loaded.rename("http.port", "server.port");
    warnings.push(format!("{place} is old, write http.port: {port}"));
}

/// `server.address` and `server.address6` are `http.bind`; an older file without them means every
/// address.
fn addresses(loaded: &mut Loaded, is_old: bool, warnings: &mut Vec<String>) {
    let server = &loaded.file.server;
    let four = server.address.as_ref().map(OneOrMany::list).map(<[_]>::to_vec);
    let six = server.address6.as_ref().map(OneOrMany::list).map(<[_]>::to_vec);
    let old: Vec<_> = [("server.address", four.is_some()), ("server.address6", six.is_some())]
        .into_iter()
        .filter_map(|(key, is_set)| is_set.then_some(key))
        .collect();
    let has_new = loaded.file.http.bind.is_some();
    if has_new || (!is_old && old.is_empty()) {
        for key in old {
            let place = loaded.place(key);
            warnings.push(format!("{place} is old and ignored: http.bind is there"));
        }
        return;
    }
    let addresses: Vec<String> = match (four, six) {
        (None, None) => {
            warnings.push(format!(
                "{}: older files without server.address listen on every address, and so does \
                 this one: write \"http\": {{\"bind\": [\"127.0.0.1\"]}} for this machine only",
                loaded.path.display()
            ));
            vec![ALL_ADDRESSES.to_owned()]
        }
        (Some(four), six) => {
            for index in 0..four.len() {
                loaded.rename(&format!("http.bind.{index}"), "server.address");
            }
            for index in 0..six.as_ref().map_or(0, Vec::len) {
                loaded.rename(&format!("http.bind.{}", four.len() + index), "server.address6");
            }
            four.into_iter().chain(six.into_iter().flatten()).collect()
        }
        (None, Some(six)) => {
            for index in 0..six.len() {
                loaded.rename(&format!("http.bind.{}", 1 + index), "server.address6");
            }
            std::iter::once(ALL_IPV4_ADDRESSES.to_owned()).chain(six).collect()
        }
    };
    let shown = serde_json::json!(addresses);
    for key in old {
        warnings.push(format!("{} is old, write http.bind: {shown}", loaded.place(key)));
    }
    loaded.file.http.bind = Some(Binds::Many(addresses.into_iter().map(Bind::Address).collect()));
}

/// `server.https` is `https`, on the addresses of HTTP. So is an `https` without `bind` where
/// `server.address` names them.
fn https(loaded: &mut Loaded, warnings: &mut Vec<String>) {
    let has_new = {
        let https = &loaded.file.https;
        https.bind.is_some() || https.key.is_some() || https.cert.is_some()
    };
    let place = loaded.place("server.https");
    let is_moved = match loaded.file.server.https.take() {
        None => false,
        Some(_) if has_new => {
            warnings.push(format!("{place} is old and ignored: https is there"));
            false
        }
        Some(https) => {
            loaded.file.https = https;
            loaded.rename("https", "server.https");
            true
        }
    };
    let file = &mut loaded.file;
    let has_certificate = file.https.key.is_some() && file.https.cert.is_some();
    let takes_addresses = is_moved || (has_certificate && file.server.address.is_some());
    let bind = match file.https.bind.take() {
        Some(bind) => Some(bind),
        None if takes_addresses => Some(without_ports(file.http.bind.as_ref())),
        None => None,
    };
    if is_moved {
        let addresses = bind.iter().flat_map(|bind| bind.list("")).map(|(_, bind)| match bind {
            Bind::Address(address) => address.clone(),
            Bind::Object(object) => object.address.clone().unwrap_or_else(|| "127.0.0.1".into()),
        });
        let addresses: Vec<_> = addresses.collect();
        let shown = serde_json::json!(addresses);
        warnings.push(format!("{place} is old, write https, with \"bind\": {shown}"));
    } else if bind.is_none() && has_certificate && file.https.directory.is_none() {
        warnings.push(format!(
            "{} has a certificate but no `bind`: nothing listens for HTTPS; write \"bind\": \
             [\"0.0.0.0\", \"::\"]",
            loaded.place("https")
        ));
    }
    loaded.file.https.bind = bind;
}

/// The addresses of HTTP for HTTPS, which has a port of its own.
fn without_ports(bind: Option<&Binds>) -> Binds {
    let Some(bind) = bind else { return Binds::One(Bind::Address("127.0.0.1".to_owned())) };
    let addresses = bind.list("").map(|(_, bind)| match bind {
        Bind::Address(address) => Bind::Address(address.clone()),
        Bind::Object(object) => {
            Bind::Object(BindObject { address: object.address.clone(), ..BindObject::default() })
        }
    });
    Binds::Many(addresses.collect())
}

fn retries(loaded: &mut Loaded, warnings: &mut Vec<String>) {
    let Some(count) = loaded.file.server.error_max_retries else { return };
    let place = loaded.place("server.errorMaxRetries");
    if loaded.file.server.retry_on_error.is_some() {
        warnings.push(format!("{place} is old and ignored: server.retryOnError is there"));
        return;
    }
    loaded.file.server.retry_on_error = Some(CountOrSwitch::Count(count));
    warnings.push(format!("{place} is old, write server.retryOnError: {count}"));
}

/// `redisHost` and its fellows, and 0.1's `redis`: the replica is what is read from, the master what is
/// written to.
pub(super) fn drivers(loaded: &Loaded, warnings: &mut Vec<String>) -> Vec<Driver> {
    let file = &loaded.file;
    let keys = keys(file);
    if file.driver.is_some() {
        for key in keys.iter().filter(|key| key.is_set) {
            let place = loaded.place(key.name);
            warnings.push(format!("{place} is old and ignored: driver is there"));
        }
        return Vec::new();
    }
    let redis = file.redis.as_deref();
    let replica = driver(
        file.redis_host.as_ref().or_else(|| redis.and_then(|redis| redis.host.as_ref())),
        file.redis_port.or_else(|| redis.and_then(|redis| redis.port)),
        file.redis_password.as_ref().or_else(|| redis.and_then(|redis| redis.password.as_ref())),
        file.redis_database.or_else(|| redis.and_then(|redis| redis.database)),
    );
    // Without a host the other keys of the master meant nothing.
    let master = file.redis_master_host.as_ref().map(|host| {
        driver(
            Some(host),
            file.redis_master_port,
            file.redis_master_password.as_ref(),
            file.redis_master_database,
        )
    });
    for key in keys.iter().filter(|key| key.is_set) {
        let place = loaded.place(key.name);
        warnings.push(match (key.is_master, &master) {
            (false, None) => format!("{place} is old, write driver: \"{replica}\""),
            (false, Some(_)) => {
                format!("{place} is old, write driver, its first item: \"{replica}\"")
            }
            (true, Some(master)) => {
                format!("{place} is old, write driver, its last item: \"{master}\"")
            }
            (true, None) => format!(
                "{place} is old, write driver; it is ignored, as there is no redisMasterHost"
            ),
        });
    }
    if keys.iter().any(|key| key.is_set) {
        std::iter::once(replica).chain(master).collect()
    } else {
        Vec::new()
    }
}

struct Key {
    name: &'static str,
    is_set: bool,
    is_master: bool,
}

fn keys(file: &ConfigFile) -> [Key; 9] {
    [
        ("redis", file.redis.is_some()),
        ("redisHost", file.redis_host.is_some()),
        ("redisPort", file.redis_port.is_some()),
        ("redisPassword", file.redis_password.is_some()),
        ("redisDatabase", file.redis_database.is_some()),
        ("redisMasterHost", file.redis_master_host.is_some()),
        ("redisMasterPort", file.redis_master_port.is_some()),
        ("redisMasterPassword", file.redis_master_password.is_some()),
        ("redisMasterDatabase", file.redis_master_database.is_some()),
    ]
    .map(|(name, is_set)| Key { name, is_set, is_master: name.contains("Master") })
}

fn driver(
    host: Option<&String>,
    port: Option<u16>,
    password: Option<&String>,
    database: Option<u32>,
) -> Driver {
    let host = host.filter(|host| !host.is_empty()).map_or(DEFAULT_HOST, String::as_str);
    Driver {
        address: Address::Tcp(HostPort {
            host: host.to_owned(),
            port: port.unwrap_or(DEFAULT_PORT),
        }),
        password: password.filter(|password| !password.is_empty()).cloned().map(Secret::new),
        database: database.unwrap_or(0),
        ..Driver::default()
    }
}

#[cfg(test)]
mod tests;
