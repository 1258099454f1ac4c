//! Certificates of hosts, as PlanB keeps them: hashes `tls:<host>` with the fields `certificate` and
//! `key`, both PEM.

use redis::{FromRedisValue as _, RedisResult, Value};

use super::{KeyProblem, Store, StoreError, scripts};
use crate::host;
use crate::keys::Kind;
use crate::secret::Secret;

/// Longest value of a field.
const MAX_PEM: usize = Kind::Certificate.max_bytes();

/// KEYS: the hashes of the look-up order. ARGV: most bytes of a field. Returns for each hash its two
/// fields, or `L` when one of them is longer, or `E` when the key has another type. Where a user may not
/// ask for lengths, there is no limit.
const READ: &str = r"
local answer = {}
for index, key in ipairs(KEYS) do
  local longest = 0
  for _, field in ipairs({'certificate', 'key'}) do
    local length = redis.pcall('HSTRLEN', key, field)
    if type(length) == 'number' and length > longest then
      longest = length
    end
  end
  if longest > tonumber(ARGV[1]) then
    answer[index] = 'L'
  else
    answer[index] = redis.pcall('HMGET', key, 'certificate', 'key')
    if answer[index].err then
      if not string.find(answer[index].err, 'WRONGTYPE', 1, true) then
        return error(answer[index].err)
      end
      answer[index] = 'E'
    end
  end
end
return answer
";

/// The fields `certificate` and `key`.
type Fields = (Option<Vec<u8>>, Option<Vec<u8>>);

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
        let keys: Vec<_> = names.iter().map(|name| Kind::Certificate.key(prefix, name)).collect();
        let answers = self.read_fields(&keys).await?;
        let mut found = Vec::new();
        for ((name, key), fields) in names.iter().zip(keys).zip(answers) {
            let problem =
                |detail: &str| Err(KeyProblem { key: key.clone(), detail: detail.to_owned() });
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
                Err(problem) => Err(problem),
            };
            found.push(StoredCertificate { key: key.clone(), name: name.to_string(), pem });
        }
        Ok(found)
    }

    /// The fields of each hash, or what is wrong with it.
    async fn read_fields(
        &self,
        keys: &[String],
    ) -> Result<Vec<Result<Fields, KeyProblem>>, StoreError> {
        let mut command = redis::cmd("EVAL");
        command.arg(READ).arg(keys.len()).arg(keys).arg(MAX_PEM);
        let answers = match self.inner.read.allows_scripts() {
            true => self.inner.read.run(&command).await,
            false => return self.read_fields_plainly(keys).await,
        };
        let answers = match answers {
            // That may be the right to these keys alone.
            Err(StoreError::Command(error)) if scripts::are_refused(&error) => {
                return self.read_fields_plainly(keys).await;
            }
            answers => Vec::<Value>::from_redis_value(answers?)?,
        };
        let fields = |(key, answer): (&String, Value)| {
            let problem = |detail| Ok(Err(KeyProblem { key: key.clone(), detail }));
            match answer {
                Value::BulkString(kind) if kind == b"L" => {
                    problem(format!("a field of it is longer than {MAX_PEM} bytes"))
                }
                Value::BulkString(_) => problem(super::host_record::wrong_type(Kind::Certificate)),
                answer => Ok(Ok(Fields::from_redis_value(answer)?)),
            }
        };
        keys.iter().zip(answers).map(fields).collect()
    }

    async fn read_fields_plainly(
        &self,
        keys: &[String],
    ) -> Result<Vec<Result<Fields, KeyProblem>>, StoreError> {
        // Not one MULTI: each hash is read as a whole anyway, and a user that may not read them
        // gets an error for each, which does not look like a broken connection.
        let mut pipe = redis::pipe();
        pipe.ignore_errors();
        for key in keys {
            pipe.cmd("HMGET").arg(key).arg("certificate").arg("key");
        }
        let answers = self.inner.read.query(&pipe).await?;
        let fields = |(key, answer): (&String, RedisResult<Value>)| match answer
            .and_then(|value| Ok(Fields::from_redis_value(value)?))
        {
            Ok(fields) => Ok(Ok(fields)),
            Err(error) => Ok(Err(self.key_problem(Kind::Certificate, key.clone(), error)?)),
        };
        keys.iter().zip(answers).map(fields).collect()
    }
}
