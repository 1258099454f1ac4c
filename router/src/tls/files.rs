//! Certificates in files: those of `https.bind` and of `https.directory`, read at the start, at SIGHUP
//! and when they change.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecursiveMode, Watcher as _};
use rustls::ServerConfig;
use shared::host;
use shared::secret::Secret;
use tokio::sync::Notify;
use tracing::warn;

use super::identity::{Identity, IdentityError, Source, fingerprint};
use crate::config::CertificateFiles;

/// Pairs of files that are read from the directory.
const MAX_FILES: usize = 20_000;
/// Longest file: more than the longest chain of large RSA certificates.
const MAX_LENGTH: u64 = 1024 * 1024;

/// Why a certificate's files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// What is in them is no certificate with its key.
    #[error("{}: {problem}", path.display())]
    Content {
        /// The certificate.
        path: PathBuf,
        /// What is wrong.
        #[source]
        problem: IdentityError,
    },
    /// The file's name is no host.
    #[error("{} is not named after a host, as www.example.com.crt or _.example.com.crt is", .0.display())]
    Name(PathBuf),
    /// A file cannot be read.
    #[error("{} cannot be read: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// There are more files than anyone has hosts.
    #[error("{} holds more than {MAX_FILES} certificates; the others are left out", .0.display())]
    TooMany(PathBuf),
}

/// What stands in files.
#[derive(Debug, Default)]
pub struct Files {
    /// The default certificates, in the order of `https.bind`.
    pub binds: Vec<Option<Arc<Identity>>>,
    /// The certificates of the directory by host.
    pub hosts: HashMap<Box<str>, Arc<Identity>>,
    /// What is wrong, by file.
    pub problems: HashMap<PathBuf, String>,
}

impl Files {
    /// Every certificate.
    pub fn identities(&self) -> impl Iterator<Item = &Arc<Identity>> {
        self.binds.iter().flatten().chain(self.hosts.values())
    }
}

/// Where certificates are read from.
#[derive(Clone, Debug)]
pub struct Places {
    /// The files of each `https.bind`.
    pub binds: Vec<Option<CertificateFiles>>,
    /// `https.directory`.
    pub directory: Option<PathBuf>,
}

impl Places {
    /// Reads everything. What cannot be used is what it was in `previous`, or left out; either way
    /// it is among the problems.
    pub fn read(&self, base: &ServerConfig, previous: &Files) -> Files {
        let mut files = Files::default();
        for (index, place) in self.binds.iter().enumerate() {
            let old = previous.binds.get(index).and_then(Option::as_ref);
            let read = place.as_ref().map(|place| {
                let read = read_bind(base, place, old);
                files.keep(place.cert.clone(), read, old)
            });
            files.binds.push(read.flatten());
        }
        if let Some(directory) = &self.directory {
            match list(directory) {
                Ok(found) => {
                    if found.len() > MAX_FILES {
                        let problem = FileError::TooMany(directory.clone()).to_string();
                        files.problems.insert(directory.clone(), problem);
                    }
                    for path in found.into_iter().take(MAX_FILES) {
                        files.read_host(base, path, previous);
                    }
                }
                Err(error) => {
                    let problem = FileError::Read { path: directory.clone(), error }.to_string();
                    files.problems.insert(directory.clone(), problem);
                    files.hosts.clone_from(&previous.hosts);
                }
            }
        }
        files
    }

    /// Calls `changed` whenever one of the files may have changed. `None` when the system cannot
    /// watch them, which is said; SIGHUP still works.
    pub fn watch(&self, changed: Arc<Notify>) -> Option<impl Drop + Send> {
        let mut named: Vec<PathBuf> = Vec::new();
        for files in self.binds.iter().flatten() {
            named.extend([&files.key, &files.cert].into_iter().chain(&files.ca).cloned());
        }
        let mut directories: Vec<PathBuf> = named.iter().map(|path| parent(path)).collect();
        directories.extend(self.directory.clone());
        directories.sort_unstable();
        directories.dedup();
        if directories.is_empty() {
            return None;
        }
        let directory = self.directory.clone();
        let is_ours = move |path: &PathBuf| {
            directory.as_ref().is_some_and(|directory| path.starts_with(directory))
                || named.iter().any(|name| name.file_name() == path.file_name())
                // How orchestrators swap all files of a mounted secret at once.
                || path.file_name().is_some_and(|name| name == "..data")
        };
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading must not look like a change.
            let has_changed = event.is_ok_and(|event| match event.kind {
                EventKind::Access(AccessKind::Close(AccessMode::Write))
                | EventKind::Create(_)
                | EventKind::Modify(_)
                | EventKind::Remove(_) => event.paths.iter().any(&is_ours),
                _ => event.need_rescan(),
            });
            if has_changed {
                changed.notify_one();
            }
        });
        let watched = watcher.and_then(|mut watcher| {
            for directory in &directories {
                watcher.watch(directory, RecursiveMode::NonRecursive)?;
            }
            Ok(watcher)
        });
        watched
            .inspect_err(|error| {
                warn!(
                    %error,
                    "changes of certificate files are not seen by themselves: send SIGHUP after each"
                );
            })
            .ok()
    }
}

impl Files {
    /// Notes what is wrong and keeps what was right before.
    fn keep(
        &mut self,
        path: PathBuf,
        read: Result<Arc<Identity>, FileError>,
        old: Option<&Arc<Identity>>,
    ) -> Option<Arc<Identity>> {
        match read {
            Ok(identity) => Some(identity),
            Err(error) => {
                self.problems.insert(path, error.to_string());
                old.cloned()
            }
        }
    }

    fn read_host(&mut self, base: &ServerConfig, path: PathBuf, previous: &Self) {
        let Some(host) = host_of(&path) else {
            let problem = FileError::Name(path.clone()).to_string();
            self.problems.insert(path, problem);
            return;
        };
        let old = previous.hosts.get(&host);
        let key = path.with_extension("key");
        let read = read_pair(base, Source::Directory, (&[&path], &key), None, old);
        if let Some(identity) = self.keep(path, read, old) {
            self.hosts.insert(host, identity);
        }
    }
}

/// The `.crt` files of a directory, in order.
fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "crt") {
            found.push(path);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The host that a file is named after; `_` stands for the `*` of a wildcard, for those who do not
/// like asterisks in file names.
fn host_of(path: &Path) -> Option<Box<str>> {
    let stem = path.file_stem()?.to_str()?;
    let (prefix, name) = match stem.strip_prefix("_.").or_else(|| stem.strip_prefix("*.")) {
        Some(name) => ("*.", name),
        None => ("", stem),
    };
    Some(format!("{prefix}{}", host::normalize(name.as_bytes()).ok()?).into())
}

fn read_bind(
    base: &ServerConfig,
    files: &CertificateFiles,
    old: Option<&Arc<Identity>>,
) -> Result<Arc<Identity>, FileError> {
    let chain: Vec<&Path> = std::iter::once(&files.cert).chain(&files.ca).map(|p| &**p).collect();
    read_pair(base, Source::Bind, (&chain, &files.key), files.passphrase.as_ref(), old)
}

fn read_pair(
    base: &ServerConfig,
    source: Source,
    (certificates, key): (&[&Path], &Path),
    passphrase: Option<&Secret>,
    old: Option<&Arc<Identity>>,
) -> Result<Arc<Identity>, FileError> {
    let mut chain = Vec::new();
    for path in certificates {
        chain.extend(read_file(path)?);
        // A file need not end with a line break.
        chain.push(b'\n');
    }
    let key = String::from_utf8_lossy(&read_file(key)?).into_owned();
    if let Some(old) = old.filter(|old| old.fingerprint == fingerprint(&chain, &key)) {
        return Ok(Arc::clone(old));
    }
    let place = certificates.first().map_or_else(PathBuf::new, |path| path.to_path_buf());
    let named = place.display().to_string();
    Identity::read(base, (source, &named), &chain, &key, passphrase)
        .map(Arc::new)
        .map_err(|problem| FileError::Content { path: place, problem })
}

fn read_file(path: &Path) -> Result<Vec<u8>, FileError> {
    let failed = |error| FileError::Read { path: path.to_owned(), error };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > MAX_LENGTH {
        return Err(failed(io::Error::other("it is too long for a certificate")));
    }
    std::fs::read(path).map_err(failed)
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::host_of;

    #[test]
    fn files_are_named_after_hosts() {
        for (path, host) in [
            ("/d/a.test.crt", Some("a.test")),
            ("/d/A.Test.crt", Some("a.test")),
            ("/d/_.a.test.crt", Some("*.a.test")),
            ("/d/*.a.test.crt", Some("*.a.test")),
            ("/d/a b.crt", None),
            ("/d/...crt", None),
        ] {
            assert_eq!(host_of(Path::new(path)).as_deref(), host, "{path}");
        }
    }
}
