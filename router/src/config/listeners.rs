//! Addresses to listen on, from `http`, `https`, `--listen` and older keys.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use shared::secret::Secret;

use super::file::{self, Bind, Listener};
use super::read::Loaded;
use super::resolve::flag_error;
use super::{CertificateFiles, ConfigError, TlsListener, TlsPolicy};

/// Hipache's port and address for plain HTTP.
pub(super) const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 80);
/// Hipache's port for HTTPS.
const DEFAULT_HTTPS_PORT: u16 = 443;

/// The addresses of a `bind` list with what each overrides.
pub(super) fn listeners<'a>(
    loaded: &Loaded,
    section: &'a Listener,
    name: &str,
    default: SocketAddr,
) -> Result<Vec<(SocketAddr, Option<&'a file::BindObject>)>, ConfigError> {
    let default_port = section.port.unwrap_or_else(|| default.port());
    let Some(binds) = &section.bind else {
        return Ok(vec![(SocketAddr::new(default.ip(), default_port), None)]);
    };
    let mut addresses = Vec::new();
    for (key, bind) in binds.list(name) {
        let (text, port, object) = match bind {
            Bind::Address(text) => (text.as_str(), default_port, None),
            Bind::Object(object) => (
                object.address.as_deref().unwrap_or("127.0.0.1"),
                object.port.unwrap_or(default_port),
                Some(object),
            ),
        };
        let resolved = resolve_address(text, port)
            .map_err(|problem| loaded.error(&key, format!("`{text}` {problem}")))?;
        addresses.extend(resolved.into_iter().map(|address| (address, object)));
    }
    Ok(addresses)
}

/// Which of the addresses in use expect a PROXY header: all by the flag, else those whose section or
/// object says so. An address of `--listen` belongs to `http`.
pub(super) fn proxy_protocol(
    loaded: &Loaded,
    flag: Option<bool>,
    listen: &[SocketAddr],
    https: &[TlsListener],
) -> Result<Vec<SocketAddr>, ConfigError> {
    let file = &loaded.file;
    let https: Vec<_> = https.iter().map(|listener| listener.address).collect();
    let mut found = Vec::new();
    for (name, section, default, used) in [
        ("http", &file.http, DEFAULT_LISTEN, listen),
        ("https", &file.https, SocketAddr::new(DEFAULT_LISTEN.ip(), DEFAULT_HTTPS_PORT), &https),
    ] {
        let by_section = flag.or(section.proxy_protocol).unwrap_or(false);
        let written =
            if used.is_empty() { Vec::new() } else { listeners(loaded, section, name, default)? };
        found.extend(used.iter().copied().filter(|address| {
            let object = written.iter().find(|(written, _)| written == address);
            let own = object.and_then(|(_, object)| (*object)?.proxy_protocol);
            flag.or(own).unwrap_or(by_section)
        }));
    }
    Ok(found)
}

/// `--listen`: `addr:port`, `[v6]:port`, `:port` or a port alone.
pub(super) fn parse_listen(flag: &str, text: &str) -> Result<Vec<SocketAddr>, ConfigError> {
    let problem =
        || flag_error(flag, format!("expected ADDR:PORT such as 0.0.0.0:80, not `{text}`"));
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port),
        None => ("127.0.0.1", text),
    };
    let port = port.parse::<u16>().map_err(|_not_a_port| problem())?;
    let host = match host {
        "" => "::",
        host => host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host),
    };
    resolve_address(host, port).map_err(|_unresolved| problem())
}

fn resolve_address(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let addresses: Vec<_> = (host, port)
        .to_socket_addrs()
        .map_err(|error| format!("is neither an address nor a name of this machine ({error})"))?
        .collect();
    if addresses.is_empty() {
        return Err("is a name without an address".to_owned());
    }
    Ok(addresses)
}

/// The addresses of `https`, each with its key and certificate, checked to be there. Only with a
/// directory of certificates may an address do without.
pub(super) fn tls_listeners(loaded: &Loaded) -> Result<Vec<TlsListener>, ConfigError> {
    let section = &loaded.file.https;
    if section.bind.is_none() {
        return Ok(Vec::new());
    }
    let default = SocketAddr::new(DEFAULT_LISTEN.ip(), DEFAULT_HTTPS_PORT);
    let mut listeners_found = Vec::new();
    for (address, object) in listeners(loaded, section, "https", default)? {
        let own = |pick: fn(&file::BindObject) -> Option<PathBuf>| object.and_then(pick);
        let missing = |what: &str| {
            let key = loaded.written(&format!("https.{what}"));
            loaded.error("https.bind", format!("{address} needs {key}: the path of a file"))
        };
        let key = own(|o| o.key.clone()).or_else(|| section.key.clone());
        let cert = own(|o| o.cert.clone()).or_else(|| section.cert.clone());
        if key.is_none() && cert.is_none() && section.directory.is_some() {
            listeners_found.push(TlsListener { address, default: None });
            continue;
        }
        let key = key.ok_or_else(|| missing("key"))?;
        let cert = cert.ok_or_else(|| missing("cert"))?;
        let ca = object.and_then(|o| o.ca.as_ref()).or(section.ca.as_ref());
        let ca: Vec<PathBuf> =
            ca.map(|ca| ca.list().iter().map(PathBuf::from).collect()).unwrap_or_default();
        for (name, path) in
            [("key", &key), ("cert", &cert)].into_iter().chain(ca.iter().map(|path| ("ca", path)))
        {
            // What only root may look into is read before privileges are dropped.
            if let Err(error) = std::fs::metadata(path)
                && error.kind() != std::io::ErrorKind::PermissionDenied
            {
                let problem = format!("{} cannot be read: {error}", path.display());
                return Err(loaded.error(&format!("https.{name}"), problem));
            }
        }
        let passphrase = object.and_then(|o| o.passphrase.clone());
        let passphrase = passphrase.or_else(|| section.passphrase.clone()).map(Secret::new);
        let default = Some(CertificateFiles { key, cert, ca, passphrase });
        listeners_found.push(TlsListener { address, default });
    }
    Ok(listeners_found)
}

/// Which TLS is spoken: the preset, and what Hipache's settings make of it. Each of those is
/// answered with a warning, for none means quite the same as in OpenSSL.
pub(super) fn tls_policy(
    loaded: &Loaded,
    warnings: &mut Vec<String>,
) -> Result<TlsPolicy, ConfigError> {
    let section = &loaded.file.https;
    let mut policy = TlsPolicy::preset(section.preset.as_deref().unwrap_or("intermediate"))
        .map_err(|problem| loaded.error("https.preset", problem))?;
    let mut say = |key: &str, said: String| {
        warnings.push(format!("{} is a setting of OpenSSL: {said}", loaded.place(key)));
    };
    if let Some(method) = &section.secure_protocol {
        say("https.secureProtocol", policy.apply_protocol(method));
    }
    if let Some(options) = &section.secure_options {
        let flags = options.as_u64().ok_or_else(|| {
            loaded.error("https.secureOptions", format!("expected a number, not {options}"))
        })?;
        say("https.secureOptions", policy.apply_options(flags));
    }
    if let Some(list) = &section.ciphers {
        say("https.ciphers", policy.apply_ciphers(list));
    }
    if let Some(is_own) = section.honor_cipher_order {
        say("https.honorCipherOrder", policy.apply_order(is_own));
    }
    Ok(policy)
}
