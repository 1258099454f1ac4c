//! Reading what one host needs: in one round trip, and within limits, so that a key that is huge by
//! mistake harms no other host.

use redis::{ErrorKind, FromRedisValue, RedisError, RedisResult, Value};

use super::{
    Fields, Found, HostRecord, KeyProblem, RawOptions, Store, StoreError, parse_position, scripts,
};
use crate::host;
use crate::keys::Kind;

/// KEYS: the lists of the look-up order, their settings in the same order, the dead set. ARGV: most rows,
/// most bytes of a list, most fields, most bytes of settings, and for each list `1` when its rows are
/// known.
///
/// Returns the dead set and its time to live; and of the first list that is not empty its index, its rows, the
/// settings of the host, and those of the list (nothing when that is the host's own). Each of the four contents
/// is `N` (nothing), `V` with the content, `K` (known), `L` with number and bytes of what is too large to be
/// read, or `E` with the error of a key of another type.
///
/// `MEMORY USAGE` with all samples walks the nodes of a list, of 8 KiB each, and copies nothing: a look
/// at a single item of any size costs nothing. Where a user may not use it, the number alone counts.
const READ: &str = r"
local count = (#KEYS - 1) / 2
local function lrange(key)
  return redis.call('LRANGE', key, 0, -1)
end
local function hgetall(key)
  return redis.call('HGETALL', key)
end
local function smembers(key)
  return redis.call('SMEMBERS', key)
end
local function read(bounds, known, key, items, get)
  if type(items) == 'table' then
    if string.find(items.err, 'WRONGTYPE', 1, true) then
      return {'E', items.err}
    end
    return error(items.err)
  end
  if items == 0 then
    return {'N'}
  end
  local most, bytes = tonumber(ARGV[bounds]), tonumber(ARGV[bounds + 1])
  if items > most then
    return {'L', items, 0}
  end
  if known == '1' then
    return {'K'}
  end
  local used = redis.pcall('MEMORY', 'USAGE', key, 'SAMPLES', 0)
  if type(used) == 'number' and used > bytes then
    return {'L', items, used}
  end
  return {'V', get(key)}
end
local dead = KEYS[#KEYS]
local answer = {read(1, '', dead, redis.pcall('SCARD', dead), smembers), redis.call('PTTL', dead)}
for index = 1, count do
  local key = KEYS[index]
  local list = read(1, ARGV[4 + index], key, redis.pcall('LLEN', key), lrange)
  if list[1] ~= 'N' then
    answer[3], answer[4] = index, list
    local own, shared = KEYS[count + 1], KEYS[count + index]
    answer[5], answer[6] = read(3, '', own, redis.pcall('HLEN', own), hgetall), {'N'}
    if index > 1 then
      answer[6] = read(3, '', shared, redis.pcall('HLEN', shared), hgetall)
    end
    break
  end
end
return answer
";

/// What stands under one key.
enum Content {
    /// More than is read: the number of items, and the bytes if those are too many.
    Huge(u64, u64),
    /// The rows are the ones that the caller knows.
    Known,
    Nothing,
    Value(Value),
    /// A key of another type.
    WrongType,
}

impl Content {
    fn read(value: Value) -> RedisResult<Self> {
        let mut parts = Vec::<Value>::from_redis_value(value)?.into_iter();
        let mut next = || parts.next().unwrap_or(Value::Nil);
        let kind = String::from_redis_value(next())?;
        Ok(match kind.as_str() {
            "N" => Self::Nothing,
            "K" => Self::Known,
            "V" => Self::Value(next()),
            "L" => Self::Huge(u64::from_redis_value(next())?, u64::from_redis_value(next())?),
            "E" => Self::WrongType,
            _ => return Err((ErrorKind::UnexpectedReturnType, "unknown kind of answer").into()),
        })
    }

    /// The content as a `T`; `None` is nothing, the error is what is wrong with `key`.
    fn parse<T: FromRedisValue + Default>(
        self,
        kind: Kind,
        key: &str,
        is_known: &mut bool,
    ) -> Result<Option<T>, KeyProblem> {
        let problem = |detail: String| Err(KeyProblem { key: key.to_owned(), detail });
        match self {
            Self::Nothing => Ok(None),
            Self::Known => {
                *is_known = true;
                Ok(Some(T::default()))
            }
            Self::Value(value) => match T::from_redis_value(value) {
                Ok(value) => Ok(Some(value)),
                Err(error) => problem(error.to_string()),
            },
            Self::Huge(items, bytes) => problem(too_large(kind, items, bytes)),
            Self::WrongType => problem(wrong_type(kind)),
        }
    }
}

/// What is wrong with a key that is not read because of its size, and what to do.
fn too_large(kind: Kind, items: u64, bytes: u64) -> String {
    let (most_items, most_bytes) = (kind.max_items(), kind.max_bytes());
    let size = match bytes {
        0 => format!("{items} items, and at most {most_items} are read"),
        _ => format!("{bytes} bytes in {items} items, and at most {most_bytes} bytes are read"),
    };
    format!("it holds {size}; shorten it, or `DEL` it if it is a mistake")
}

/// What is wrong with a key of another type, and what to do.
pub(super) fn wrong_type(kind: Kind) -> String {
    let expected = kind.redis_type();
    format!("it is not a {expected}; look at it with `TYPE`, and `DEL` it if it is a mistake")
}

impl Store {
    /// Reads all that routing `name` needs: the first list of its look-up order that is not empty, with
    /// the settings of host and list, and its dead set. `is_known` says of which names the caller has the
    /// rows in memory, as they are now: those are not sent again (see [`HostRecord::is_known`]).
    ///
    /// One script reads it, so nothing can be edited in between, and no key of any size is sent. Where
    /// scripts are not allowed, it is read as Hipache reads it: in one `MULTI`, unless changes are announced;
    /// then what is edited between two of the commands makes the answer be read again. A Redis that has
    /// reached `maxmemory` refuses every `MULTI`, also one that only reads; the same is then read without.
    ///
    /// A key that is too large or of the wrong type is part of the answer, not an error: it harms its own
    /// host only.
    ///
    /// # Errors
    ///
    /// [`StoreError`] when Redis is away, slow or refuses.
    pub async fn read_host(
        &self,
        name: &str,
        is_known: impl Fn(&str) -> bool,
    ) -> Result<HostRecord, StoreError> {
        if self.inner.read.allows_scripts() {
            match self.read_by_script(name, is_known).await {
                Err(StoreError::Command(error)) if scripts::are_refused(&error) => {
                    self.inner.read.refused_scripts(&error);
                }
                answer => return answer,
            }
        }
        self.read_by_commands(name).await
    }

    async fn read_by_script(
        &self,
        name: &str,
        is_known: impl Fn(&str) -> bool,
    ) -> Result<HostRecord, StoreError> {
        let prefix = &self.inner.read_prefix;
        let names: Vec<_> = host::lookup_names(name).collect();
        let mut command = redis::cmd("EVAL");
        command.arg(READ).arg(2 * names.len() + 1);
        for name in &names {
            command.arg(Kind::Frontend.key(prefix, name));
        }
        for name in &names {
            command.arg(Kind::Options.key(prefix, name));
        }
        let dead_key = Kind::Dead.key(prefix, name);
        command.arg(&dead_key);
        // The dead set has the limits of a list.
        for kind in [Kind::Frontend, Kind::Options] {
            command.arg(kind.max_items()).arg(kind.max_bytes());
        }
        for name in &names {
            command.arg(u8::from(is_known(name)));
        }
        let answer = self.inner.read.run(&command).await.inspect_err(|error| {
            if let StoreError::Command(error) = error
                && !scripts::are_refused(error)
                && error.code().is_some()
            {
                self.inner.read.refused(error);
            }
        })?;
        let mut parts =
            Vec::<Value>::from_redis_value(answer).map_err(RedisError::from)?.into_iter();
        let mut next = || parts.next().unwrap_or(Value::Nil);

        let mut record = HostRecord::default();
        match Content::read(next())?.parse::<Vec<Vec<u8>>>(Kind::Dead, &dead_key, &mut false) {
            Ok(members) => record.set_dead(&members.unwrap_or_default()),
            Err(problem) => record.dead_problem = Some(problem),
        }
        record.set_dead_ttl(next());
        let index = Option::<usize>::from_redis_value(next()).map_err(RedisError::from)?;
        let Some(found) = index.and_then(|index| names.get(index.checked_sub(1)?)) else {
            return Ok(record);
        };
        let key = Kind::Frontend.key(prefix, found);
        let mut is_known = false;
        let rows = Content::read(next())?.parse(Kind::Frontend, &key, &mut is_known);
        let rows = rows.map(Option::unwrap_or_default);
        record.is_known = is_known;
        record.found = Some(Found { name: found.to_string(), rows });
        let mut options = Vec::new();
        for name in [name, found] {
            let key = Kind::Options.key(prefix, name);
            options.push((
                name,
                Content::read(next())?.parse::<Fields>(Kind::Options, &key, &mut false),
            ));
        }
        record.set_options(options);
        Ok(record)
    }

    async fn read_by_commands(&self, name: &str) -> Result<HostRecord, StoreError> {
        let prefix = &self.inner.read_prefix;
        let names: Vec<_> = host::lookup_names(name).collect();
        let mut pipe = redis::pipe();
        pipe.ignore_errors();
        let wants_multi = self.inner.reads_in_multi;
        if wants_multi {
            pipe.atomic();
        }
        for name in &names {
            // One more than may be: then there are too many.
            pipe.cmd("LRANGE")
                .arg(Kind::Frontend.key(prefix, name))
                .arg(0)
                .arg(Kind::Frontend.max_items());
        }
        for name in &names {
            pipe.cmd("HGETALL").arg(Kind::Options.key(prefix, name));
        }
        let dead_key = Kind::Dead.key(prefix, name);
        pipe.cmd("SMEMBERS").arg(&dead_key).cmd("PTTL").arg(&dead_key);
        let answers = match self.inner.read.query(&pipe).await {
            Err(StoreError::Command(error)) if wants_multi && error.code() == Some("EXECABORT") => {
                self.inner.read.refused(&error);
                let mut plain = redis::pipe();
                plain.ignore_errors();
                for command in pipe.cmd_iter() {
                    plain.add_command(command.clone());
                }
                self.inner.read.query(&plain).await?
            }
            answers => answers?,
        };
        let mut answers = answers.into_iter();

        let mut record = HostRecord::default();
        for (name, answer) in names.iter().zip(answers.by_ref()) {
            if record.found.is_some() {
                continue;
            }
            let rows = answer.and_then(|value| Ok(Vec::<Vec<u8>>::from_redis_value(value)?));
            let key = Kind::Frontend.key(prefix, name);
            let rows = match rows {
                Ok(rows) if rows.is_empty() => continue,
                Ok(rows) if rows.len() > Kind::Frontend.max_items() => {
                    let detail = too_large(Kind::Frontend, rows.len() as u64, 0);
                    Err(KeyProblem { key, detail })
                }
                Ok(rows) => Ok(rows),
                Err(error) => Err(self.key_problem(Kind::Frontend, key, error)?),
            };
            record.found = Some(Found { name: name.to_string(), rows });
        }
        let found = record.found.as_ref().map(|found| found.name.clone());
        let mut options = Vec::new();
        for (name, answer) in names.iter().zip(answers.by_ref().take(names.len())) {
            let is_own = options.is_empty();
            if !is_own && Some(&**name) != found.as_deref() {
                continue;
            }
            let fields = match answer.and_then(|value| Ok(Fields::from_redis_value(value)?)) {
                Ok(fields) => Ok(Some(fields)),
                Err(_) if found.is_none() => Ok(None),
                Err(error) => {
                    Err(self.key_problem(Kind::Options, Kind::Options.key(prefix, name), error)?)
                }
            };
            options.push((name.as_ref(), fields));
        }
        record.set_options(options);
        let members = answers.next().unwrap_or(Ok(Value::Nil));
        match members.and_then(|value| Ok(Vec::<Vec<u8>>::from_redis_value(value)?)) {
            Ok(members) => record.set_dead(&members),
            Err(error) => {
                record.dead_problem = Some(self.key_problem(Kind::Dead, dead_key, error)?);
            }
        }
        record.set_dead_ttl(answers.next().and_then(Result::ok).unwrap_or(Value::Nil));
        Ok(record)
    }

    /// Sorts what is wrong with one key from what is wrong with Redis: only the former may count
    /// against the host.
    pub(super) fn key_problem(
        &self,
        kind: Kind,
        key: String,
        error: RedisError,
    ) -> Result<KeyProblem, StoreError> {
        let is_wrong_type = error.code() == Some("WRONGTYPE");
        let is_about_the_key = is_wrong_type
            || matches!(error.kind(), ErrorKind::UnexpectedReturnType | ErrorKind::Parse);
        if !is_about_the_key {
            self.inner.read.refused(&error);
            return Err(StoreError::from(error));
        }
        let detail = if is_wrong_type { wrong_type(kind) } else { error.to_string() };
        Ok(KeyProblem { key, detail })
    }
}

impl HostRecord {
    fn set_dead(&mut self, members: &[Vec<u8>]) {
        self.dead = members.iter().filter_map(|member| parse_position(member)).collect();
    }

    fn set_dead_ttl(&mut self, answer: Value) {
        self.dead_ttl = i64::from_redis_value(answer)
            .ok()
            .and_then(|millis| u64::try_from(millis).ok())
            .map(std::time::Duration::from_millis);
    }

    /// The settings that count: the first are the host's own, and their fields come before those of the
    /// list. Without a list nothing counts.
    fn set_options(&mut self, all: Vec<(&str, Result<Option<Fields>, KeyProblem>)>) {
        let Some(found) = &mut self.found else { return };
        for (name, fields) in all {
            match (fields, &mut self.options) {
                (Ok(None), _) => {}
                (Ok(Some(fields)), _) if fields.is_empty() => {}
                (Ok(Some(fields)), None) => {
                    self.options = Some(RawOptions { name: name.to_owned(), fields });
                }
                (Ok(Some(fields)), Some(own)) => {
                    for (field, value) in fields {
                        own.fields.entry(field).or_insert(value);
                    }
                }
                // What was meant may have been a lock on the door: without it nobody gets in.
                (Err(problem), _) => {
                    found.rows = Err(problem);
                    self.options = None;
                    self.is_known = false;
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, too_large};

    #[test]
    fn a_huge_key_is_named_with_its_size_and_the_limit() {
        let rows = too_large(Kind::Frontend, 1_000_000, 0);
        assert!(rows.contains("1000000 items, and at most 10000 are read"), "{rows}");
        let bytes = too_large(Kind::Options, 3, 5_000_000);
        assert!(bytes.contains("5000000 bytes in 3 items, and at most 1048576 bytes"), "{bytes}");
    }
}
