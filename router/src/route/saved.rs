//! What a snapshot on disk holds of a route, and a route made from it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use shared::store::HostRecord;

use super::{Frontend, Millis, Route};

/// Two readings of one expiry differ by the time that the answers were under way.
const SAME_EXPIRY: Millis = 1000;

impl Route {
    /// A route that was read from a snapshot, not from Redis: see [`Route::is_from_snapshot`].
    pub fn restored(
        host: &str,
        record: HostRecord,
        now: Millis,
        share: impl FnOnce(Frontend) -> Arc<Frontend>,
    ) -> Self {
        Self { is_from_snapshot: true, ..Self::new(host, record, None, now, share) }
    }

    /// The positions that Redis holds as dead at `now`, and until when; [`Millis::MAX`] is for ever.
    pub fn dead_in_redis(&self, now: Millis) -> Option<(Vec<u32>, Millis)> {
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let slots = marks.positions.iter().filter_map(|position| self.dead.get(*position as usize));
        let until = slots.map(|slot| slot.load(Ordering::Relaxed)).max()?;
        (until > now).then(|| (marks.positions.clone(), until))
    }

    /// Whether a snapshot of this route would say at `now` what one of the `previous` route says.
    pub fn is_saved_like(&self, previous: Option<&Self>, now: Millis) -> bool {
        let (new, old) = (self.frontend(), previous.and_then(Self::frontend));
        let options = previous.and_then(|previous| previous.options.as_ref());
        if new != old || new.is_some() && self.options.as_ref() != options {
            return false;
        }
        let old = previous.and_then(|previous| previous.dead_in_redis(now));
        match (self.dead_in_redis(now), old) {
            (None, None) => true,
            (Some((new, until)), Some((old, old_until))) => {
                new == old && until.abs_diff(old_until) <= SAME_EXPIRY
            }
            _ => false,
        }
    }
}

impl Frontend {
    /// Items 1 to n of the list as they stand there.
    pub fn rows(&self) -> impl Iterator<Item = &[u8]> {
        self.rows.iter().map(|row| &**row)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::store::{Found, HostRecord};

    use super::{Arc, Route};

    fn record(rows: &[&str], dead: &[u32], ttl: Option<u64>) -> HostRecord {
        let rows = rows.iter().map(|row| row.as_bytes().to_vec()).collect();
        HostRecord {
            found: Some(Found { name: "a.test".to_owned(), rows: Ok(rows) }),
            dead: dead.to_vec(),
            dead_ttl: ttl.map(Duration::from_millis),
            ..HostRecord::default()
        }
    }

    fn route(rows: &[&str], dead: &[u32], ttl: Option<u64>) -> Route {
        Route::new("a.test", record(rows, dead, ttl), None, 1000, Arc::new)
    }

    /// The set may have been written anew for the list of now while nobody watched.
    #[test]
    fn no_dead_set_is_translated_through_a_snapshot() {
        let old = record(&["id", "http://a", "http://b"], &[1], None);
        let old = Route::restored("a.test", old, 1000, Arc::new);
        let new = record(&["id", "http://b", "http://c"], &[1], None);
        let new = Route::new("a.test", new, Some(&old), 1000, Arc::new);
        assert!(new.is_dead(1, 1000) && !new.is_dead(0, 1000));
        assert_eq!(new.repair(), None);
    }

    #[test]
    fn only_what_a_snapshot_holds_makes_a_difference_to_it() {
        let rows = &["id", "http://a", "http://b"][..];
        let base = || route(rows, &[1], Some(5000));
        for (other, is_same) in [
            (base(), true),
            (route(rows, &[1], Some(5900)), true),
            (route(rows, &[1], Some(9000)), false),
            (route(rows, &[1], None), false),
            (route(rows, &[0], Some(5000)), false),
            (route(rows, &[], None), false),
            (route(&["new id", "http://a", "http://b"], &[1], Some(5000)), false),
            (route(&["id", "http://a"], &[], None), false),
        ] {
            assert_eq!(other.is_saved_like(Some(&base()), 1000), is_same, "{other:?}");
        }
        let nothing = HostRecord { found: None, ..record(&[], &[], None) };
        let nothing = Route::new("a.test", nothing, None, 1000, Arc::new);
        assert!(nothing.is_saved_like(None, 1000), "hosts without a list are not stored");
        assert!(!nothing.is_saved_like(Some(&base()), 1000) && !base().is_saved_like(None, 1000));
    }
}
