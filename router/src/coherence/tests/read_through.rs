//! Reads: the overtaken rule, and what happens when Redis gives no answer.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use shared::keys::Kind;
use shared::store::StoreError;
use tokio::runtime::Handle;

use super::super::{Cache, Lookup, Reads, Source, join, load};
use super::{AtomicUsize, Ordering, Value, cache};

const HOST: &str = "a.test";

/// A Redis whose record changes while it is read.
struct Changing {
    cache: Cache<Value>,
    reads: Reads<Value>,
    /// Reads that are yet to be overtaken.
    overtakes: AtomicUsize,
    asked: AtomicUsize,
    is_away: AtomicBool,
    stored: AtomicUsize,
}

impl Changing {
    fn new(overtakes: usize, is_tracked: bool) -> Arc<Self> {
        Arc::new(Self {
            cache: cache(is_tracked, None),
            reads: Reads::new(Handle::current()),
            overtakes: AtomicUsize::new(overtakes),
            asked: AtomicUsize::new(0),
            is_away: AtomicBool::new(false),
            stored: AtomicUsize::new(0),
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Source for Changing {
    type Value = Value;

    fn cache(&self) -> &Cache<Value> {
        &self.cache
    }

    fn reads(&self) -> &Reads<Value> {
        &self.reads
    }

    async fn fetch(self: &Arc<Self>, host: &str) -> Result<Value, StoreError> {
        if self.is_away.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable);
        }
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        if asked < self.overtakes.load(Ordering::Relaxed) {
            self.cache.invalidate(Kind::Frontend, host);
        }
        Ok(Value::new(u32::try_from(asked).unwrap(), Some(0)))
    }

    fn note_stored(&self, _previous: Option<&Value>, _value: &Value) {
        self.stored.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn overtaken_answers_are_asked_for_again_within_a_bound() {
    for (overtakes, asked, is_fresh) in [(0, 1, true), (1, 2, true), (3, 4, true), (9, 4, false)] {
        let source = Changing::new(overtakes, true);
        let value = load(&source, HOST).await.unwrap();
        assert_eq!((source.asked(), value.content + 1), (asked, u32::try_from(asked).unwrap()));
        assert_eq!(matches!(source.cache.get(HOST, 0), Lookup::Hit(_)), is_fresh, "{overtakes}");
        assert_eq!(source.stored.load(Ordering::Relaxed), asked);
    }
}

#[tokio::test]
async fn last_known_answer_is_loaded_while_redis_is_away() {
    for is_tracked in [true, false] {
        let source = Changing::new(0, is_tracked);
        source.is_away.store(true, Ordering::Relaxed);
        assert!(load(&source, HOST).await.is_err(), "never known");
        source.is_away.store(false, Ordering::Relaxed);
        load(&source, HOST).await.unwrap();
        source.is_away.store(true, Ordering::Relaxed);
        assert_eq!(load(&source, HOST).await.unwrap().content, 0);
        assert!(join(&source, HOST).await.is_err(), "asks Redis alone");
    }
}

#[tokio::test]
async fn each_request_has_a_read_of_its_own_where_changes_are_not_announced() {
    for (is_tracked, asked) in [(true, 1), (false, 2)] {
        let source = Changing::new(0, is_tracked);
        let (one, two) = tokio::join!(load(&source, HOST), load(&source, HOST));
        assert!(one.is_ok() && two.is_ok());
        assert_eq!(source.asked(), asked);
    }
}
