//! The file: a line that names format and version, a checksum, and all routes in `postcard`'s
//! encoding. Pure: bytes in, records out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::store::{Found, HostRecord, RawOptions};

use crate::route::{self, Frontend, Millis, Route};

/// What every snapshot begins with, of whatever format.
pub(super) const MAGIC: &[u8] = b"router-snapshot ";
const VERSION: &[u8] = b"2";
/// Bytes of the checksum (CRC-32, little endian) between the first line and the rest.
const CHECKSUM: usize = 4;

/// Milliseconds since 1970, by the wall clock: all that survives a restart.
pub(super) type UnixMillis = u64;

/// One moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) clock: Millis,
    pub(super) unix: UnixMillis,
}

/// What Redis was last known to hold.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Snapshot<'a> {
    /// The Redis that was read, without credentials.
    pub(super) redis: &'a str,
    pub(super) taken_at: UnixMillis,
    #[serde(borrow)]
    lists: Vec<List<'a>>,
    #[serde(borrow)]
    options: Vec<Options<'a>>,
    #[serde(borrow)]
    hosts: Vec<Host<'a>>,
}

/// A `frontend:` list; hosts under one wildcard have it in common.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
struct List<'a> {
    name: &'a str,
    identifier: &'a str,
    #[serde(borrow)]
    rows: Vec<&'a [u8]>,
}

/// The settings of a host; hosts under one wildcard have them in common.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Options<'a> {
    name: &'a str,
    #[serde(borrow)]
    fields: Vec<(&'a [u8], &'a [u8])>,
}

#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Host<'a> {
    name: &'a str,
    /// Index of its list.
    list: u32,
    /// Index of its settings, if it has any.
    options: Option<u32>,
    /// Dead positions, and when they cease to be; `None` is never.
    dead: Vec<u32>,
    dead_until: Option<UnixMillis>,
}

/// Why a file is no snapshot to be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum FormatError {
    #[error("it is not a snapshot of a router")]
    NotASnapshot,
    #[error("it has format {0}, this router reads format 2")]
    OtherVersion(String),
    #[error("it is damaged or cut off: the checksum does not match")]
    Damaged,
    #[error("it was taken of another Redis, {0}")]
    OtherRedis(String),
}

impl<'a> Snapshot<'a> {
    /// What is known of `routes`, all of which were read from `redis`.
    pub(super) fn of(routes: &'a [Arc<Route>], redis: &'a str, now: Now) -> Self {
        let mut lists = Vec::new();
        let mut seen: HashMap<*const Frontend, u32> = HashMap::new();
        let mut options = Vec::new();
        let mut seen_options: HashMap<*const route::options::Options, u32> = HashMap::new();
        let mut hosts = Vec::with_capacity(routes.len());
        for route in routes {
            let Some(frontend) = route.frontend() else { continue };
            let list = *seen.entry(std::ptr::from_ref(frontend)).or_insert_with(|| {
                lists.push(List {
                    name: &frontend.name,
                    identifier: &frontend.identifier,
                    rows: frontend.rows().collect(),
                });
                // More lists than that do not fit into memory; they would be skipped when read.
                u32::try_from(lists.len() - 1).unwrap_or(u32::MAX)
            });
            let own = route.options.as_deref().and_then(|own| Some((own, own.raw()?)));
            let own = own.map(|(own, RawOptions { name, fields })| {
                *seen_options.entry(std::ptr::from_ref(own)).or_insert_with(|| {
                    let fields = fields.iter().map(|(field, value)| (&**field, &**value));
                    options.push(Options { name, fields: fields.collect() });
                    u32::try_from(options.len() - 1).unwrap_or(u32::MAX)
                })
            });
            let (dead, until) = route.dead_in_redis(now.clock).unwrap_or((Vec::new(), Millis::MAX));
            let left = (until != Millis::MAX).then(|| until.saturating_sub(now.clock));
            let dead_until = left.map(|left| now.unix.saturating_add(left));
            hosts.push(Host { name: &route.host, list, options: own, dead, dead_until });
        }
        Self { redis, taken_at: now.unix, lists, options, hosts }
    }

    /// The whole file.
    pub(super) fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        let head = [MAGIC, VERSION, b"\n", &[0; CHECKSUM]].concat();
        let body = head.len();
        let mut bytes = postcard::to_extend(self, head)?;
        let checksum = crc32fast::hash(bytes.get(body..).unwrap_or_default());
        if let Some(slot) = bytes.get_mut(body - CHECKSUM..body) {
            slot.copy_from_slice(&checksum.to_le_bytes());
        }
        Ok(bytes)
    }

    /// Reads a file, which has to be of `redis`. Nothing of a file with any mistake is used.
    pub(super) fn decode(bytes: &'a [u8], redis: &str) -> Result<Self, FormatError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(FormatError::NotASnapshot)?;
        let mut parts = rest.splitn(2, |byte| *byte == b'\n');
        let (Some(version), Some(rest)) = (parts.next(), parts.next()) else {
            return Err(FormatError::Damaged);
        };
        if version != VERSION {
            let shown = version.get(..version.len().min(8)).unwrap_or_default();
            return Err(FormatError::OtherVersion(shown.escape_ascii().to_string()));
        }
        let (checksum, body) = rest.split_first_chunk().ok_or(FormatError::Damaged)?;
        if u32::from_le_bytes(*checksum) != crc32fast::hash(body) {
            return Err(FormatError::Damaged);
        }
        let snapshot: Self = postcard::from_bytes(body).map_err(|_other| FormatError::Damaged)?;
        if snapshot.redis != redis {
            return Err(FormatError::OtherRedis(snapshot.redis.to_owned()));
        }
        Ok(snapshot)
    }

    pub(super) fn len(&self) -> usize {
        self.hosts.len()
    }

    /// The hosts.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.hosts.iter().map(|host| host.name)
    }

    /// How long ago it was taken; nothing when the wall clock went back.
    pub(super) fn age(&self, now: UnixMillis) -> Duration {
        Duration::from_millis(now.saturating_sub(self.taken_at))
    }

    /// What each host is known to have, as Redis would say it at `now`.
    pub(super) fn records(&self, now: UnixMillis) -> impl Iterator<Item = (&'a str, HostRecord)> {
        self.hosts.iter().filter_map(move |host| {
            let list = self.lists.get(host.list as usize)?;
            let rows = std::iter::once(list.identifier.as_bytes()).chain(list.rows.iter().copied());
            let found =
                Found { name: list.name.to_owned(), rows: Ok(rows.map(<[u8]>::to_vec).collect()) };
            // Without settings that it is known to have, a host would perhaps stand open.
            let options = match host.options {
                Some(index) => Some(self.options.get(index as usize)?),
                None => None,
            };
            // A wall clock that was put back must not make a mark last longer than it ever did.
            let left = host.dead_until.map(|until| until.saturating_sub(now.max(self.taken_at)));
            let has_expired = left == Some(0);
            let record = HostRecord {
                found: Some(found),
                options: options.map(Options::raw),
                dead: if has_expired { Vec::new() } else { host.dead.clone() },
                dead_ttl: left.map(Duration::from_millis),
                ..HostRecord::default()
            };
            Some((host.name, record))
        })
    }
}

impl Options<'_> {
    fn raw(&self) -> RawOptions {
        let fields = self.fields.iter().map(|(field, value)| (field.to_vec(), value.to_vec()));
        RawOptions { name: self.name.to_owned(), fields: fields.collect() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use proptest::prelude::*;
    use shared::store::{Found, HostRecord, RawOptions};

    use super::{FormatError, Now, Snapshot};
    use crate::route::{Millis, Route};

    const NOW: Now = Now { clock: 5_000, unix: 1_700_000_000_000 };

    fn route(host: &str, name: &str, rows: &[&[u8]], dead: &[u32], ttl: Option<u64>) -> Arc<Route> {
        let rows = rows.iter().map(|row| row.to_vec()).collect();
        let record = HostRecord {
            found: Some(Found { name: name.to_owned(), rows: Ok(rows) }),
            dead: dead.to_vec(),
            dead_ttl: ttl.map(Duration::from_millis),
            ..HostRecord::default()
        };
        Arc::new(Route::new(host, record, None, NOW.clock, Arc::new))
    }

    fn sample() -> Vec<u8> {
        let one = route("a.test", "a.test", &[b"id", b"http://a", b"\xff"], &[0], Some(700));
        Snapshot::of(&[one], "redis://r:1/0", NOW).encode().unwrap()
    }

    #[test]
    fn a_mark_lasts_as_long_as_redis_said_and_never_longer() {
        let marked = |ttl| {
            Snapshot::of(&[route("a", "a", &[b"id", b"http://a"], &[0], ttl)], "r", NOW)
                .encode()
                .unwrap()
        };
        // What Redis said, when the file is read after that, and what is left then.
        for (ttl, later, left) in [
            (Some(700), 0, Some(Some(700))),
            (Some(700), 699, Some(Some(1))),
            (Some(700), 700, None),
            (Some(700), 100_000, None),
            (Some(700), -100_000, Some(Some(700))),
            (None, 100_000, Some(None)),
        ] {
            let bytes = marked(ttl);
            let snapshot = Snapshot::decode(&bytes, "r").unwrap();
            let (_, record) =
                snapshot.records(NOW.unix.saturating_add_signed(later)).next().unwrap();
            assert_eq!(!record.dead.is_empty(), left.is_some(), "{ttl:?} {later}");
            if let Some(left) = left {
                assert_eq!(record.dead_ttl, left.map(Duration::from_millis), "{ttl:?} {later}");
            }
        }
    }

    #[test]
    fn marks_that_redis_does_not_hold_are_not_stored() {
        let route = route("a", "a", &[b"id", b"http://a", b"http://b"], &[1], Some(9000));
        assert!(route.mark_dead(0, NOW.clock, Millis::MAX));
        let routes = [route];
        let snapshot = Snapshot::of(&routes, "r", NOW);
        let (_, record) = snapshot.records(NOW.unix).next().unwrap();
        assert_eq!((record.dead, record.dead_ttl), (vec![1], Some(Duration::from_secs(9))));
    }

    #[test]
    fn a_wildcards_list_is_stored_once() {
        let one = route("a.test", "*.test", &[b"id", b"http://a"], &[], None);
        let frontend = match &one.target {
            crate::route::Target::Frontend(frontend) => Arc::clone(frontend),
            other => panic!("{other:?}"),
        };
        let (_, record) = Snapshot::of(&[Arc::clone(&one)], "r", NOW).records(0).next().unwrap();
        let two = Arc::new(Route::new("b.test", record, None, 0, |_| frontend));
        let routes = [one, two];
        let snapshot = Snapshot::of(&routes, "r", NOW);
        assert_eq!((snapshot.lists.len(), snapshot.len()), (1, 2));
    }

    /// Or `basic-auth` and `allow` would be off while Redis is away.
    #[test]
    fn the_settings_of_a_host_are_stored() {
        let raw = |value: &[u8]| RawOptions {
            name: "a".to_owned(),
            fields: [(b"allow".to_vec(), value.to_vec())].into(),
        };
        let route = |value: &[u8]| {
            let rows = Ok(vec![b"id".to_vec(), b"http://a".to_vec()]);
            let found = Some(Found { name: "a".to_owned(), rows });
            let options = Some(raw(value));
            let record = HostRecord { found, options, ..HostRecord::default() };
            Arc::new(Route::new("a", record, None, NOW.clock, Arc::new))
        };
        let bytes = Snapshot::of(&[route(b"10.0.0.1")], "r", NOW).encode().unwrap();
        let snapshot = Snapshot::decode(&bytes, "r").unwrap();
        let (_, record) = snapshot.records(NOW.unix).next().unwrap();
        assert_eq!(record.options, Some(raw(b"10.0.0.1")));
        let restored = Route::restored("a", record, NOW.clock, Arc::new);
        assert!(restored.is_saved_like(Some(&route(b"10.0.0.1")), NOW.clock));
        assert!(!restored.is_saved_like(Some(&route(b"10.0.0.2")), NOW.clock));
    }

    #[test]
    fn another_file_version_or_redis_is_refused() {
        let good = sample();
        let mut later = good.clone();
        later.splice(16..17, *b"23");
        for (bytes, redis, error) in [
            (&b""[..], "r", FormatError::NotASnapshot),
            (b"{\"json\": 1}", "r", FormatError::NotASnapshot),
            (b"router-snapshot 2", "r", FormatError::Damaged),
            (b"router-snapshot 2\nabc", "r", FormatError::Damaged),
            (&later, "redis://r:1/0", FormatError::OtherVersion("23".to_owned())),
            (&good, "redis://s:1/0", FormatError::OtherRedis("redis://r:1/0".to_owned())),
        ] {
            assert_eq!(Snapshot::decode(bytes, redis).unwrap_err(), error);
        }
    }

    #[test]
    fn a_file_that_is_cut_off_or_differs_in_a_bit_is_refused() {
        let good = sample();
        assert!(Snapshot::decode(&good, "redis://r:1/0").is_ok());
        for length in 0..good.len() {
            assert!(Snapshot::decode(&good[..length], "redis://r:1/0").is_err(), "{length}");
        }
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Snapshot::decode(&bad, "redis://r:1/0").is_err(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            hosts in proptest::collection::vec(
                (
                    "[a-z*.]{0,12}",
                    proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..5),
                    proptest::collection::vec(0_u32..6, 0..3),
                    proptest::option::of(1_u64..100_000),
                ),
                0..8,
            ),
        ) {
            let routes: Vec<_> = hosts.iter().map(|(name, rows, dead, ttl)| {
                let mut list = vec![&b"id"[..]];
                list.extend(rows.iter().map(Vec::as_slice));
                route(name, name, &list, dead, *ttl)
            }).collect();
            let snapshot = Snapshot::of(&routes, "r", NOW);
            let bytes = snapshot.encode().unwrap();
            let read = Snapshot::decode(&bytes, "r").unwrap();
            prop_assert_eq!(&read, &snapshot);
            for ((host, record), route) in read.records(NOW.unix).zip(&routes) {
                let restored = Route::restored(host, record, NOW.clock, Arc::new);
                prop_assert_eq!(restored.frontend(), route.frontend());
                for position in 0..6 {
                    for now in [NOW.clock, NOW.clock + 50_000] {
                        prop_assert_eq!(restored.is_dead(position, now), route.is_dead(position, now));
                    }
                }
                prop_assert!(restored.is_saved_like(Some(route), NOW.clock));
            }
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let body = [b"router-snapshot 2\n", &crc32fast::hash(&bytes).to_le_bytes()[..], &bytes].concat();
            for bytes in [&bytes, &body] {
                if let Ok(snapshot) = Snapshot::decode(bytes, "") {
                    prop_assert!(snapshot.records(0).count() <= snapshot.len());
                }
            }
        }
    }
}
