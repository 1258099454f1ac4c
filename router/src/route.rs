//! Pure routing: what one host's Redis record means, and which backend a request gets.
//!
//! No Redis, no HTTP, no clock, no random source: all of that is handed in.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use shared::backend::{BackendHost, BackendUrl, BackendUrlError, Origin};
use shared::store::{HostRecord, KeyProblem, Repair};

pub use crate::clock::{Millis, millis};

pub mod options;
mod saved;
pub mod sticky;
pub mod trust;

use options::Options;
use sticky::Token;

/// Two readings of one expiry differ by less: by the time that the answers were under way.
const SAME_EXPIRY: Millis = 500;
/// How long a dead set without expiry is taken for the same when nobody announces changes.
const SAME_SET: Millis = 5_000;

/// Bytes of an identifier that are shown with each request.
const MAX_SHOWN_IDENTIFIER: usize = 1024;

/// A dead mark that never ends by itself.
const FOREVER: Millis = Millis::MAX;

/// What the look-up for one requested host gave.
#[derive(Debug)]
pub struct Route {
    /// The requested host, whose dead set counts.
    pub host: Box<str>,
    /// What to do with its requests.
    pub target: Target,
    /// What else its operator asks for. Most hosts ask for nothing.
    pub options: Option<Arc<Options>>,
    /// When Redis said so.
    pub loaded_at: Millis,
    /// The dead set could not be read.
    pub has_dead_problem: bool,
    /// A change of the dead set was announced since.
    has_dead_changed: AtomicBool,
    /// Read from a snapshot on disk: good for serving while Redis is away, and for nothing else.
    pub is_from_snapshot: bool,
    marks: Mutex<Marks>,
    /// By position: until when the backend is dead; 0 is alive.
    dead: Box<[AtomicU64]>,
    /// Marks of ours that Redis has not confirmed: they survive a reload of the route.
    unconfirmed: Mutex<Vec<(Origin, Millis)>>,
    has_unconfirmed: AtomicBool,
    /// See [`sticky`]; empty unless somebody asks.
    tokens: OnceLock<Box<[Option<Token>]>>,
}

/// The dead set of a host.
#[derive(Clone, Debug, Default)]
struct Marks {
    /// The positions as Redis holds them, in order.
    in_redis: Vec<u32>,
    /// What they mean for this list: see [`translate`].
    positions: Vec<u32>,
    /// When it expires, if it does.
    until: Option<Millis>,
    /// What Redis holds now may be another set, even if it has the same positions.
    is_outdated: bool,
}

/// What to do with the requests of a host.
#[derive(Debug)]
pub enum Target {
    /// The `frontend:` key cannot be read.
    Broken(KeyProblem),
    /// Forward to one of its backends. Shared by the hosts under one wildcard.
    Frontend(Arc<Frontend>),
    /// No key of the look-up order holds a list.
    Unknown,
}

/// One `frontend:` list.
#[derive(Debug, Eq, PartialEq)]
pub struct Frontend {
    /// The name behind `frontend:` that matched, such as `*.example.com`.
    pub name: Box<str>,
    /// Item 0 of the list.
    pub identifier: Box<str>,
    /// Items 1 to n as they stand there.
    rows: Box<[Box<[u8]>]>,
    /// Items 1 to n; what cannot be parsed keeps its position, so that positions mean the same
    /// to everybody.
    pub backends: Box<[Result<BackendUrl, BackendUrlError>]>,
}

/// Outcome of choosing a backend.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pick {
    /// The backend at this position.
    Backend(usize),
    /// There are backends, but not one of them is a usable URL.
    NoneUsable,
    /// No backends, or all of them dead.
    NoneAlive,
}

impl Route {
    /// Makes the route of `host` from what Redis holds, keeping the unconfirmed marks of the
    /// `previous` route.
    ///
    /// Dead sets hold positions, and an edit of the list by hand shifts them. When the list has
    /// changed and the dead set has not, the positions still mean the old list: they are
    /// translated through it, so that the mark stays with its backend. A mark is not carried to a
    /// backend that the edit leaves alone: the only backend is never marked.
    ///
    /// `share` may put an equal frontend that is in memory already in the place of a new one.
    pub fn new(
        host: &str,
        record: HostRecord,
        previous: Option<&Self>,
        now: Millis,
        share: impl FnOnce(Frontend) -> Arc<Frontend>,
    ) -> Self {
        let rows =
            record.found.as_ref().and_then(|found| Some((&found.name, found.rows.as_ref().ok()?)));
        let frontend = rows.map(|(name, rows)| share(Frontend::new(name, rows)));
        Self::with_frontend(host, record, frontend, previous, now)
    }

    /// The same with the list of the record parsed already; `None` when it cannot be read.
    pub fn with_frontend(
        host: &str,
        record: HostRecord,
        frontend: Option<Arc<Frontend>>,
        previous: Option<&Self>,
        now: Millis,
    ) -> Self {
        let target = match record.found {
            None => Target::Unknown,
            Some(found) => match (found.rows, frontend) {
                (Err(problem), _) => Target::Broken(problem),
                (Ok(_), Some(frontend)) => Target::Frontend(frontend),
                (Ok(rows), None) => Target::Frontend(Arc::new(Frontend::new(&found.name, &rows))),
            },
        };
        let count = match &target {
            Target::Frontend(frontend) => frontend.backends.len(),
            Target::Broken(_) | Target::Unknown => 0,
        };
        let until = record.dead_ttl.map_or(FOREVER, |ttl| now.saturating_add(millis(ttl)));
        let dead: Box<[AtomicU64]> = (0..count).map(|_| AtomicU64::new(0)).collect();
        let mut in_redis = record.dead;
        in_redis.sort_unstable();
        let positions = previous
            .and_then(|previous| previous.translated(&in_redis, &target))
            .unwrap_or_else(|| in_redis.clone());
        for position in &positions {
            if let Some(slot) = dead.get(*position as usize) {
                slot.store(until, Ordering::Relaxed);
            }
        }
        let route = Self {
            host: host.into(),
            target,
            options: record.options.map(|raw| {
                let known = previous.and_then(|previous| previous.options.as_ref());
                // Where Redis announces nothing, this is asked for every request.
                match known.filter(|known| known.raw() == Some(&raw)) {
                    Some(known) => Arc::clone(known),
                    None => Arc::new(Options::parse(raw)),
                }
            }),
            loaded_at: now,
            has_dead_problem: record.dead_problem.is_some(),
            has_dead_changed: AtomicBool::new(false),
            is_from_snapshot: false,
            marks: Mutex::new(Marks {
                in_redis,
                positions,
                until: record.dead_ttl.map(|_| until),
                is_outdated: false,
            }),
            dead,
            unconfirmed: Mutex::default(),
            has_unconfirmed: AtomicBool::new(false),
            tokens: OnceLock::new(),
        };
        if let Some(previous) = previous {
            route.adopt_unconfirmed(previous, now);
        }
        route
    }

    /// The frontend, when requests can be forwarded.
    pub fn frontend(&self) -> Option<&Frontend> {
        match &self.target {
            Target::Frontend(frontend) => Some(frontend),
            Target::Broken(_) | Target::Unknown => None,
        }
    }

    /// The URL at `position`, if it is one.
    pub fn backend(&self, position: usize) -> Option<&BackendUrl> {
        self.frontend()?.backends.get(position)?.as_ref().ok()
    }

    /// Chooses uniformly among the positions that are not dead (Hipache's rule: a URL listed
    /// twice gets twice the traffic). Positions of `tried` origins come only when nothing else
    /// is left. `random(n)` gives a number below `n`.
    pub fn pick(&self, now: Millis, tried: &[usize], random: impl FnOnce(usize) -> usize) -> Pick {
        let Some(frontend) = self.frontend() else {
            return Pick::NoneAlive;
        };
        let backends = &frontend.backends;
        let is_alive = |position: usize| {
            backends.get(position).is_some_and(Result::is_ok) && !self.is_dead(position, now)
        };
        let was_tried = |position: usize| {
            let origin = |position: usize| self.backend(position).map(|url| &url.origin);
            tried.iter().any(|tried| origin(*tried) == origin(position))
        };
        let choose = |is_candidate: &dyn Fn(usize) -> bool,
                      random: &mut dyn FnMut(usize) -> usize| {
            let count = (0..backends.len()).filter(|position| is_candidate(*position)).count();
            if count == 0 {
                return None;
            }
            let wanted = random(count);
            debug_assert!(wanted < count);
            (0..backends.len()).filter(|position| is_candidate(*position)).nth(wanted)
        };
        let mut random = Some(random);
        let mut draw = |count: usize| random.take().map_or(0, |random| random(count));
        let fresh = if tried.is_empty() {
            choose(&is_alive, &mut draw)
        } else {
            choose(&|position| is_alive(position) && !was_tried(position), &mut draw)
                .or_else(|| choose(&is_alive, &mut draw))
        };
        match fresh {
            Some(position) => Pick::Backend(position),
            None if !backends.is_empty() && backends.iter().all(Result::is_err) => Pick::NoneUsable,
            None => Pick::NoneAlive,
        }
    }

    /// Whether the backend at `position` is dead at `now`.
    pub fn is_dead(&self, position: usize, now: Millis) -> bool {
        self.dead.get(position).is_some_and(|until| until.load(Ordering::Relaxed) > now)
    }

    /// Marks the backend at `position` dead until `until`, and with it every position that has
    /// the same origin. Returns whether it was alive before. The mark survives reloads until
    /// [`Route::confirm`].
    pub fn mark_dead(&self, position: usize, now: Millis, until: Millis) -> bool {
        let Some(origin) = self.backend(position).map(|url| &url.origin) else {
            return false;
        };
        let was_alive = !self.is_dead(position, now);
        self.set_dead(origin, until);
        if was_alive {
            let mut unconfirmed = self.unconfirmed.lock().unwrap_or_else(PoisonError::into_inner);
            unconfirmed.retain(|(other, _)| other != origin);
            unconfirmed.push((origin.clone(), until));
            self.has_unconfirmed.store(true, Ordering::Release);
        }
        was_alive
    }

    /// What has to be written for the dead set to mean the list that is there now.
    pub fn repair(&self) -> Option<Repair> {
        let frontend = self.frontend()?;
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        // One position of a URL that is listed twice says what all of them say.
        let meant = |positions: &[u32]| spread(positions, &frontend.rows);
        if meant(&marks.in_redis) == meant(&marks.positions) {
            return None;
        }
        Some(Repair {
            host: self.host.to_string(),
            frontend: frontend.name.to_string(),
            from: marks.in_redis.clone(),
            to: marks.positions.clone(),
            rows: frontend.rows.iter().map(|row| row.to_vec()).collect(),
        })
    }

    /// The row of the list that the backend at `position` stands in.
    pub fn row(&self, position: usize) -> Option<&[u8]> {
        self.frontend()?.rows.get(position).map(|row| &**row)
    }

    /// About how much memory the route takes.
    pub fn bytes(&self) -> usize {
        /// What the parts of a row take besides their text.
        const ROW: usize = 160;
        let lists = self.frontend().map_or(0, |frontend| {
            let rows: usize = frontend.rows.iter().map(|row| 3 * row.len() + ROW).sum();
            frontend.name.len() + frontend.identifier.len() + rows
        });
        let options = self.options.as_ref().map_or(0, |options| options.bytes());
        size_of::<Self>() + 2 * self.host.len() + 128 + lists + options
    }

    /// Says that a change of the dead set was announced.
    pub fn note_dead_change(&self) {
        self.has_dead_changed.store(true, Ordering::Release);
    }

    /// Compares the dead set that was read here with the one of `record`, which was read at `now`.
    /// A set that was made anew means the list of now, and must not be translated through ours
    /// although it has the same positions. `is_followed`: every change since would have been
    /// announced.
    pub fn compare_dead(&self, record: &HostRecord, now: Millis, is_followed: bool) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let until = record.dead_ttl.map(|ttl| now.saturating_add(millis(ttl)));
        let is_same = match (marks.until, until) {
            // Whoever makes it anew sets its time anew.
            (Some(old), Some(new)) => old.abs_diff(new) <= SAME_EXPIRY,
            (None, None) if self.has_dead_changed.load(Ordering::Acquire) => false,
            (None, None) => is_followed || now.saturating_sub(self.loaded_at) <= SAME_SET,
            (Some(_), None) | (None, Some(_)) => false,
        };
        marks.is_outdated = !is_same;
    }

    /// What the dead set `in_redis` means for the list of `target`, if that list or none replaces
    /// ours and the set is the one that we know.
    fn translated(&self, in_redis: &[u32], target: &Target) -> Option<Vec<u32>> {
        let (Some(old), Target::Frontend(new)) = (self.frontend(), target) else { return None };
        // Nobody followed the changes since a snapshot was taken: the set may have been written anew
        // for the new list.
        if self.is_from_snapshot {
            return None;
        }
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        if marks.is_outdated || marks.in_redis != in_redis {
            return None;
        }
        Some(match old.rows == new.rows {
            true => marks.positions.clone(),
            false => translate(&marks.positions, &old.rows, &new.rows),
        })
    }

    /// Says that Redis holds our mark of the backend at `position` of the list of `marked`, which
    /// may be an older route of this host. From the next reload on Redis decides, so that whoever
    /// removes the mark there (an external checker, a person) is obeyed. `until`: when the set, all of
    /// it, expires now, if that has changed.
    pub fn confirm(&self, marked: &Self, position: usize, until: Option<Millis>) {
        let (Some(frontend), Some(old)) = (self.frontend(), marked.frontend()) else { return };
        let Some(origin) = marked.backend(position).map(|url| &url.origin) else { return };
        if let Ok(position) = u32::try_from(position) {
            let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
            let found = marks.in_redis.binary_search(&position);
            if let Err(at) = found {
                marks.in_redis.insert(at, position);
            }
            // What was read between mark and answer knows the position, but not that the other ones
            // of its URL count, too. After an edit it may be another's.
            if found.is_err() || old.rows == frontend.rows {
                marks.positions.extend(translate(&[position], &old.rows, &frontend.rows));
                marks.positions.sort_unstable();
                marks.positions.dedup();
            }
            marks.until = until.or(marks.until);
        }
        let mut unconfirmed = self.unconfirmed.lock().unwrap_or_else(PoisonError::into_inner);
        unconfirmed.retain(|(other, _)| other != origin);
        self.has_unconfirmed.store(!unconfirmed.is_empty(), Ordering::Release);
    }

    /// Takes our mark of the backend at `position` of the list of `marked` back: the dead set turned
    /// out to be the business of an external checker.
    pub fn withdraw(&self, marked: &Self, position: usize) {
        let Some(origin) = marked.backend(position).map(|url| &url.origin) else { return };
        let mut unconfirmed = self.unconfirmed.lock().unwrap_or_else(PoisonError::into_inner);
        unconfirmed.retain(|(other, _)| other != origin);
        self.has_unconfirmed.store(!unconfirmed.is_empty(), Ordering::Release);
        let Some(frontend) = self.frontend() else { return };
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, (backend, slot)) in frontend.backends.iter().zip(&self.dead).enumerate() {
            let is_marked = marks.positions.iter().any(|position| *position as usize == index);
            if !is_marked && backend.as_ref().is_ok_and(|url| url.origin == *origin) {
                slot.store(0, Ordering::Relaxed);
            }
        }
    }

    fn adopt_unconfirmed(&self, previous: &Self, now: Millis) {
        if !previous.has_unconfirmed.load(Ordering::Acquire) {
            return;
        }
        if self.frontend().is_some_and(|frontend| frontend.rows.len() < 2) {
            return;
        }
        let marks = previous.unconfirmed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut unconfirmed = self.unconfirmed.lock().unwrap_or_else(PoisonError::into_inner);
        for (origin, until) in marks.into_iter().filter(|(_, until)| *until > now) {
            self.set_dead(&origin, until);
            unconfirmed.push((origin, until));
        }
        self.has_unconfirmed.store(!unconfirmed.is_empty(), Ordering::Release);
    }

    fn set_dead(&self, origin: &Origin, until: Millis) {
        let Some(frontend) = self.frontend() else {
            return;
        };
        for (backend, slot) in frontend.backends.iter().zip(&self.dead) {
            if backend.as_ref().is_ok_and(|url| url.origin == *origin) {
                slot.fetch_max(until, Ordering::Relaxed);
            }
        }
    }
}

impl Frontend {
    /// Parses a list.
    pub fn new(name: &str, rows: &[Vec<u8>]) -> Self {
        let (identifier, backends) = match rows.split_first() {
            Some((identifier, backends)) => (String::from_utf8_lossy(identifier), backends),
            None => (std::borrow::Cow::Borrowed(""), &[][..]),
        };
        Self {
            name: name.into(),
            identifier: identifier.into(),
            rows: backends.iter().map(|row| row.as_slice().into()).collect(),
            backends: backends.iter().map(|row| BackendUrl::parse(row)).collect(),
        }
    }

    /// Whether a backend was probably written in the place of the identifier.
    pub fn has_url_as_identifier(&self) -> bool {
        let is_address = |url: &BackendUrl| matches!(url.origin.host, BackendHost::Ip(_));
        BackendUrl::parse(self.identifier.as_bytes())
            .is_ok_and(|url| self.identifier.contains("://") || is_address(&url))
    }

    /// The identifier for logs and headers: of a very long one the beginning, with a mark behind.
    pub fn shown_identifier(&self) -> (&str, &'static str) {
        if self.identifier.len() <= MAX_SHOWN_IDENTIFIER {
            return (&self.identifier, "");
        }
        let end = self.identifier.floor_char_boundary(MAX_SHOWN_IDENTIFIER);
        (self.identifier.get(..end).unwrap_or_default(), "[cut]")
    }
}

/// Finds the backends at `positions` of the `old` list in the `new` one. A URL that stands there
/// more than once is one backend: all its positions count. One that is gone counts no more, nor does
/// one that the edit left alone: trying it is better than no backend at all.
fn translate(positions: &[u32], old: &[Box<[u8]>], new: &[Box<[u8]>]) -> Vec<u32> {
    if new.len() < 2 && old != new {
        return Vec::new();
    }
    let dead = |row: &[u8]| {
        positions.iter().any(|position| old.get(*position as usize).is_some_and(|o| **o == *row))
    };
    (0_u32..).zip(new).filter_map(|(position, row)| dead(row).then_some(position)).collect()
}

/// `positions` with all others of the same URLs in `rows`. Those beyond the list stay.
fn spread(positions: &[u32], rows: &[Box<[u8]>]) -> Vec<u32> {
    let mut all = translate(positions, rows, rows);
    all.extend(positions.iter().filter(|position| rows.get(**position as usize).is_none()));
    all
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use shared::store::{Found, HostRecord};

    use super::{Arc, Frontend, Pick, Route};

    fn record(rows: &[&str], dead: &[u32], dead_ttl: Option<u64>) -> HostRecord {
        let rows = rows.iter().map(|row| row.as_bytes().to_vec()).collect::<Vec<_>>();
        HostRecord {
            found: Some(Found { name: "a.test".to_owned(), rows: Ok(rows) }),
            dead: dead.to_vec(),
            dead_ttl: dead_ttl.map(Duration::from_millis),
            ..HostRecord::default()
        }
    }

    fn new_route(host: &str, record: HostRecord, previous: Option<&Route>, now: u64) -> Route {
        Route::new(host, record, previous, now, Arc::new)
    }

    fn route(rows: &[&str], dead: &[u32], dead_ttl: Option<u64>) -> Route {
        new_route("a.test", record(rows, dead, dead_ttl), None, 1000)
    }

    #[test]
    fn a_url_in_the_place_of_the_identifier_is_noticed() {
        for (identifier, expected) in [
            ("http://10.0.0.1:80", true),
            ("https://a.test", true),
            ("10.0.0.1:8080", true),
            ("[::1]:80", true),
            ("mysite", false),
            ("mysite:80", false),
            ("/shop/web", false),
            ("", false),
        ] {
            let frontend = Frontend::new("a", &[identifier.as_bytes().to_vec()]);
            assert_eq!(frontend.has_url_as_identifier(), expected, "{identifier}");
        }
    }

    #[test]
    fn long_identifiers_are_cut_where_they_are_shown() {
        let shown = |identifier: &str| {
            let frontend = Frontend::new("a", &[identifier.as_bytes().to_vec()]);
            let (text, mark) = frontend.shown_identifier();
            format!("{text}{mark}")
        };
        assert_eq!(shown("id"), "id");
        assert_eq!(shown(&"x".repeat(1024)), "x".repeat(1024));
        assert_eq!(shown(&"x".repeat(1_000_000)), format!("{}[cut]", "x".repeat(1024)));
        // 1023 bytes, and then one character of two.
        let odd = format!("{}\u{fc}\u{fc}", "x".repeat(1023));
        assert_eq!(shown(&odd), format!("{}[cut]", "x".repeat(1023)));
    }

    /// hipache-contract 1, "Pick: uniformly random among the positions not dead".
    #[test]
    fn every_live_position_is_drawn_and_no_dead_one() {
        let route = route(&["id", "http://a", "http://b", "http://a", "http://c"], &[1], None);
        let picks: Vec<_> = (0..3)
            .map(|wanted| {
                route.pick(1000, &[], |count| {
                    assert_eq!(count, 3);
                    wanted
                })
            })
            .collect();
        assert_eq!(picks, [Pick::Backend(0), Pick::Backend(2), Pick::Backend(3)]);
    }

    #[test]
    fn a_retry_takes_another_origin_while_there_is_one() {
        let route = route(&["id", "http://a", "http://a/", "http://b"], &[], None);
        assert_eq!(route.pick(0, &[0], |_| 0), Pick::Backend(2));
        // Nothing else is left: Hipache's fresh pick may take the same again.
        assert_eq!(route.pick(0, &[0, 2], |_| 0), Pick::Backend(0));
    }

    /// hipache-contract 2, the rows of 502.
    #[test]
    fn without_a_usable_backend_the_reason_is_told_apart() {
        for (rows, dead, pick) in [
            (&["id"][..], &[][..], Pick::NoneAlive),
            (&["id", "http://a", "http://b"], &[0, 1], Pick::NoneAlive),
            (&["id", "garbage", "http://"], &[], Pick::NoneUsable),
            (&["id", "garbage", "http://a"], &[1], Pick::NoneAlive),
            (&["id", "garbage", "http://a"], &[0], Pick::Backend(1)),
            // Positions beyond the list mark nothing.
            (&["id", "http://a"], &[7], Pick::Backend(0)),
        ] {
            assert_eq!(route(rows, dead, None).pick(1000, &[], |_| 0), pick, "{rows:?} {dead:?}");
        }
        let unknown = HostRecord::default();
        assert_eq!(new_route("x", unknown, None, 0).pick(0, &[], |_| 0), Pick::NoneAlive);
    }

    #[test]
    fn marks_of_redis_end_with_its_ttl() {
        let route = route(&["id", "http://a"], &[0], Some(500));
        assert!(route.is_dead(0, 1499));
        assert!(!route.is_dead(0, 1500));
    }

    #[test]
    fn our_marks_count_for_the_same_origin_and_survive_a_reload_until_confirmed() {
        let rows = ["id", "http://a", "http://b", "http://a"];
        let old = route(&rows, &[], None);
        assert!(old.mark_dead(0, 1000, 5000));
        assert!(!old.mark_dead(2, 1000, 5000), "the same origin is dead already");
        assert!(old.is_dead(2, 1000) && !old.is_dead(1, 1000));

        // The list was edited meanwhile: the mark follows its backend.
        let edited = new_route(
            "a.test",
            record(&["id", "http://b", "http://a"], &[], None),
            Some(&old),
            2000,
        );
        assert!(edited.is_dead(1, 2000) && !edited.is_dead(0, 2000));
        assert!(!edited.is_dead(1, 5000));

        edited.confirm(&old, 0, None);
        let revived = new_route("a.test", record(&rows, &[], None), Some(&edited), 2000);
        assert!(!revived.is_dead(0, 2000), "Redis decides once it has the mark");
        // The mark was written for the old list, of which Redis still holds the position.
        let known = new_route(
            "a.test",
            record(&["id", "http://b", "http://a"], &[0], None),
            Some(&edited),
            2000,
        );
        assert!(known.is_dead(1, 2000) && !known.is_dead(0, 2000));
    }

    #[test]
    fn a_mark_that_is_withdrawn_leaves_those_of_redis() {
        let route = route(&["id", "http://a", "http://b"], &[1], None);
        assert!(route.mark_dead(0, 1000, 5000));
        route.withdraw(&route, 0);
        assert!(!route.is_dead(0, 1000) && route.is_dead(1, 1000));
        let reloaded =
            new_route("a.test", record(&["id", "http://a"], &[], None), Some(&route), 1000);
        assert!(!reloaded.is_dead(0, 1000));
    }

    /// A set that expired, or was deleted with the list, and was made anew for the new list has the
    /// same positions and means others.
    #[test]
    fn a_dead_set_that_was_made_anew_is_taken_as_it_is() {
        let rows = ["id", "http://a", "http://b", "http://c"];
        let swapped = ["id", "http://b", "http://c", "http://a"];
        // When each was read, its time to live, whether changes are followed or announced.
        for (old_ttl, read_at, new_ttl, is_followed, is_announced, is_same) in [
            (Some(5000), 2000, Some(4000), false, false, true),
            (Some(5000), 2300, Some(4000), false, true, true),
            (Some(5000), 9000, Some(5000), true, false, false),
            (Some(5000), 9000, None, true, false, false),
            (None, 9000, Some(5000), true, false, false),
            (None, 5000, None, false, false, true),
            (None, 9000, None, false, false, false),
            (None, 9000, None, true, false, true),
            (None, 2000, None, true, true, false),
        ] {
            let old = route(&rows, &[0], old_ttl);
            if is_announced {
                old.note_dead_change();
            }
            let record = record(&swapped, &[0], new_ttl);
            old.compare_dead(&record, read_at, is_followed);
            let new = new_route("a.test", record, Some(&old), read_at);
            let case = (old_ttl, read_at, new_ttl, is_followed, is_announced);
            assert_eq!(new.is_dead(2, read_at), is_same, "{case:?}");
            assert_eq!(new.is_dead(0, read_at), !is_same, "{case:?}");
            assert_eq!(new.repair().is_some(), is_same, "{case:?}");
        }
    }

    #[test]
    fn marks_in_any_order_need_no_repair() {
        let old = route(&["id", "http://a", "http://b", "http://c"], &[], None);
        old.confirm(&old, 2, Some(31_000));
        old.confirm(&old, 0, Some(31_000));
        assert_eq!(old.repair(), None);
    }

    /// hipache-contract 5, "a list edit never makes a live backend look dead".
    #[test]
    fn marks_stay_with_their_backend_through_edits_of_the_list() {
        let dead = |route: &Route| -> Vec<usize> {
            (0..route.frontend().unwrap().backends.len())
                .filter(|p| route.is_dead(*p, 1000))
                .collect()
        };
        let edit = |old: &Route, rows: &[&str], dead: &[u32]| {
            new_route("a.test", record(rows, dead, None), Some(old), 1000)
        };
        let first = route(&["id", "http://a", "http://b", "http://c"], &[1], None);
        // LREM of the first: b moved to 0, and stays dead there while the set says 1.
        let removed = edit(&first, &["id", "http://b", "http://c"], &[1]);
        assert_eq!(dead(&removed), [0]);
        let again = edit(&removed, &["id", "http://b", "http://c"], &[1]);
        assert_eq!(dead(&again), [0], "also when nothing changed since");
        // LPUSH of another identifier and backend order.
        assert_eq!(dead(&edit(&again, &["id", "http://c", "http://x", "http://b"], &[1])), [2]);
        // LREM of the dead one itself: nobody is dead.
        assert_eq!(dead(&edit(&first, &["id", "http://a", "http://c"], &[1])), Vec::<usize>::new());
        // RENAME: another list altogether.
        assert_eq!(dead(&edit(&first, &["id", "http://x", "http://y"], &[1])), Vec::<usize>::new());
        // The set changed, too: whoever changed it meant the list that is there now.
        assert_eq!(dead(&edit(&first, &["id", "http://b", "http://c"], &[0, 1])), [0, 1]);
        assert_eq!(dead(&edit(&again, &["id", "http://b", "http://c"], &[])), Vec::<usize>::new());
    }

    /// "The frontend has one backend only: never marked" holds for marks that an edit carries there,
    /// too. What somebody wrote for that very list is obeyed.
    #[test]
    fn no_mark_is_carried_to_a_backend_that_an_edit_leaves_alone() {
        const A: &str = "http://a";
        const B: &str = "http://b";
        for (before, dead, after, dead_after, is_dead) in [
            (&["id", A, B][..], &[1][..], &["id", B][..], &[1][..], false),
            (&["id", A, B], &[0], &["id", A], &[0], false),
            (&["id", A, B], &[0, 1], &["id", A], &[0, 1], false),
            (&["id", A, B, A], &[0, 2], &["new id", A], &[0, 2], false),
            // Changed with the list, or not edited: it means the list of now.
            (&["id", A, B], &[1], &["id", B], &[0], true),
            (&["id", B], &[0], &["new id", B], &[0], true),
            // Two positions are a list that Hipache marks in.
            (&["id", A, B, B], &[1], &["id", B, B], &[1], true),
        ] {
            let case = (before, dead, after, dead_after);
            let first = route(before, dead, None);
            let edited = new_route("a.test", record(after, dead_after, None), Some(&first), 1000);
            assert_eq!(edited.is_dead(0, 1000), is_dead, "{case:?}");
            if !is_dead {
                assert_eq!(edited.repair().map(|repair| repair.to), Some(Vec::new()), "{case:?}");
            }
            // An external checker owns the set, so that nothing is repaired.
            let again = new_route("a.test", record(after, dead_after, None), Some(&edited), 1000);
            assert_eq!(again.is_dead(0, 1000), is_dead, "{case:?}, read again");
            let grown = [after, &["http://x"]].concat();
            let grown = new_route("a.test", record(&grown, dead_after, None), Some(&again), 1000);
            assert!(!grown.is_dead(after.len() - 1, 1000), "{case:?}, a new backend");
        }
    }

    #[test]
    fn a_mark_that_redis_has_not_confirmed_is_not_carried_to_the_only_backend_either() {
        let old = route(&["id", "http://a", "http://b"], &[], None);
        assert!(old.mark_dead(1, 1000, 5000));
        let edited = new_route("a.test", record(&["id", "http://b"], &[], None), Some(&old), 1000);
        assert!(!edited.is_dead(0, 1000));
        edited.confirm(&old, 1, None);
        let again =
            new_route("a.test", record(&["id", "http://b"], &[1], None), Some(&edited), 1000);
        assert!(!again.is_dead(0, 1000));
        assert_eq!(again.repair().map(|repair| repair.to), Some(Vec::new()));
    }

    /// docs/migrating-from-hipache.md: "all its positions are left out at once; the drawn one is
    /// marked in Redis".
    #[test]
    fn one_mark_of_a_url_that_is_listed_twice_needs_no_repair() {
        let rows = ["id", "http://b", "http://a", "http://b", "http://a"];
        let dead = |route: &Route| [0, 1, 2, 3].map(|position| route.is_dead(position, 1000));
        let marked = route(&rows, &[], None);
        assert!(marked.mark_dead(0, 1000, 5000));
        // Read between the mark and its confirmation.
        let early = new_route("a.test", record(&rows, &[0], None), Some(&marked), 1000);
        for first in [marked, early] {
            first.confirm(&first, 0, None);
            let again = new_route("a.test", record(&rows, &[0], None), Some(&first), 1000);
            assert_eq!(dead(&again), [true, false, true, false]);
            assert_eq!(again.repair(), None);
            // Nothing is shifted.
            let pushed = [&rows[..], &["http://c"]].concat();
            let pushed = new_route("a.test", record(&pushed, &[0], None), Some(&again), 1000);
            assert_eq!(dead(&pushed), [true, false, true, false]);
            assert_eq!(pushed.repair(), None);
            let shifted = ["id", "http://a", "http://b", "http://a", "http://b"];
            let shifted = new_route("a.test", record(&shifted, &[0], None), Some(&again), 1000);
            assert_eq!(dead(&shifted), [false, true, false, true]);
            assert_eq!(shifted.repair().map(|repair| repair.to), Some(vec![1, 3]));
        }
    }

    proptest! {
        #[test]
        fn an_edit_carries_marks_with_their_rows_and_never_to_the_last_one(
            before in proptest::collection::vec("http://[a-d]", 0..6),
            after in proptest::collection::vec("http://[a-d]", 0..6),
            dead in proptest::collection::btree_set(0_u32..8, 0..4),
        ) {
            let list = |rows: &[String]| -> Vec<String> {
                std::iter::once("id".to_owned()).chain(rows.iter().cloned()).collect()
            };
            let (before, after) = (list(&before), list(&after));
            let dead: Vec<u32> = dead.into_iter().collect();
            let old_rows: Vec<&str> = before.iter().map(String::as_str).collect();
            let new_rows: Vec<&str> = after.iter().map(String::as_str).collect();
            let old = route(&old_rows, &dead, None);
            let new = new_route("a.test", record(&new_rows, &dead, None), Some(&old), 1000);
            let was_dead = |row: &str| {
                old_rows[1..].iter().zip(0..).any(|(old, at)| *old == row && dead.contains(&at))
            };
            let is_edited = old_rows != new_rows;
            for (position, row) in new_rows[1..].iter().enumerate() {
                let expected = match is_edited {
                    true => new_rows.len() > 2 && was_dead(row),
                    false => dead.contains(&u32::try_from(position).unwrap()),
                };
                prop_assert_eq!(new.is_dead(position, 1000), expected, "{}", position);
            }
            match new.repair() {
                Some(repair) => {
                    prop_assert!(is_edited);
                    // Read anew by somebody who does not know the old list, it says the same.
                    let anew = new_route("a.test", record(&new_rows, &repair.to, None), None, 1000);
                    for position in 0..new_rows.len() {
                        prop_assert_eq!(anew.is_dead(position, 1000), new.is_dead(position, 1000));
                    }
                    prop_assert_eq!(anew.repair(), None);
                }
                None => {
                    // Whoever reads the set as it is finds the same rows dead.
                    for (position, row) in new_rows[1..].iter().enumerate() {
                        let is_meant = new_rows[1..].iter().zip(0..).any(|(other, at)| other == row && dead.contains(&at));
                        prop_assert!(!is_edited || new.is_dead(position, 1000) == is_meant);
                    }
                }
            }
        }

        #[test]
        fn a_dead_or_broken_backend_is_never_picked(
            rows in proptest::collection::vec(prop_oneof!["http://[a-c]", "garbage"], 0..8),
            dead in proptest::collection::vec(0_u32..10, 0..8),
            tried in proptest::collection::vec(0_usize..8, 0..3),
            draw in any::<usize>(),
        ) {
            let mut list = vec!["id"];
            list.extend(rows.iter().map(String::as_str));
            let route = route(&list, &dead, None);
            match route.pick(1000, &tried, |count| draw % count) {
                Pick::Backend(position) => {
                    prop_assert!(route.backend(position).is_some());
                    prop_assert!(!dead.contains(&u32::try_from(position).unwrap()));
                }
                Pick::NoneUsable => prop_assert!(rows.iter().all(|row| row == "garbage")),
                Pick::NoneAlive => {
                    let is_out = |position| {
                        route.backend(position).is_none()
                            || dead.contains(&u32::try_from(position).unwrap())
                    };
                    prop_assert!((0..rows.len()).all(is_out));
                }
            }
        }
    }
}
