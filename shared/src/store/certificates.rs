//! Certificates of hosts, as PlanB keeps them: hashes `tls:<host>` with the fields `certificate` and
//! `key`, both PEM.

use redis::FromRedisValue as _;

use super::{KeyProblem, Store, StoreError};
use crate::secret::Secret;
use crate::{host, keys};

/// Longest value of a field: more than the longest chain of large RSA certificates.
const MAX_PEM: usize = 256 * 1024;

/// One `tls:` hash that is there.
#[derive(Clone, Debug)]
pub struct StoredCertificate {
    /// The full key, for people.
    pub key: String,
    /// The name behind `tls:`, such as `*.example.com`.
    pub name: String,
    /// Certificate chain and private key, PEM, or why the hash cannot be used.
    pub pem: Result<(Vec<u8>, Secret), KeyProblem>,
}

impl Store {
    /// Reads the certificates that `host` may be served with: those of the names of its look-up
    /// order that have one, nearest first.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when Redis is away, slow or refuses.
    pub async fn read_certificates(
        &self,
        host: &str,
    ) -> Result<Vec<StoredCertificate>, StoreError> {
        let prefix = &self.inner.read_prefix;
        let names: Vec<_> = host::lookup_names(host).collect();
        // Not one MULTI: each hash is read as a whole anyway, and a user that may not read them
        // gets an error for each, which does not look like a broken connection.
        let mut pipe = redis::pipe();
        pipe.ignore_errors();
        for name in &names {
            pipe.cmd("HMGET").arg(keys::certificate(prefix, name)).arg("certificate").arg("key");
        }
        let answers = self.inner.read.query(&pipe).await?;
        let mut found = Vec::new();
        for (name, answer) in names.iter().zip(answers) {
            let key = keys::certificate(prefix, name);
            type Fields = (Option<Vec<u8>>, Option<Vec<u8>>);
            let fields = answer.and_then(|value| Ok(Fields::from_redis_value(value)?));
            let problem = |detail: &str| {
                Err(KeyProblem { key: keys::certificate(prefix, name), detail: detail.to_owned() })
            };
            let pem = match fields {
                Ok((None, None)) => continue,
                Ok((Some(certificate), Some(key))) => match String::from_utf8(key) {
                    _ if certificate.len() > MAX_PEM => problem("its certificate is too long"),
                    Ok(key) if key.len() <= MAX_PEM => Ok((certificate, Secret::new(key))),
                    Ok(_) => problem("its key is too long"),
                    Err(_not_text) => problem("its key is not PEM text"),
                },
                Ok((None, Some(_))) => problem("it has no field `certificate`"),
                Ok((Some(_), None)) => problem("it has no field `key`"),
                Err(error) => Err(self.key_problem(key.clone(), error)?),
            };
            found.push(StoredCertificate { key, name: name.to_string(), pem });
        }
        Ok(found)
    }
}
