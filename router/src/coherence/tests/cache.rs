//! One thread: dependencies, epochs, time to live, bounds, and what goes on when Redis comes back empty.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use proptest::prelude::*;
use shared::host::lookup_names;
use shared::keys::Kind;

use super::super::{Cache, Lookup};
use super::{LIMITS, Ordering, Value, cache};

const HOST: &str = "a.w.test";

fn put(cache: &Cache<Value>, host: &str, rank: Option<usize>) -> bool {
    cache.insert(host, Value::new(0, rank), &cache.begin(host))
}

fn is_hit(cache: &Cache<Value>, host: &str) -> bool {
    matches!(cache.get(host, 0), Lookup::Hit(_))
}

#[test]
fn value_is_hit_until_one_of_its_names_changes() {
    for changed in [HOST, "*.w.test", "*.test", "*"] {
        let cache = cache(true, None);
        put(&cache, HOST, Some(2));
        for unrelated in ["b.w.test", "*.a.w.test", "w.test"] {
            cache.invalidate(Kind::Frontend, unrelated);
        }
        cache.invalidate(Kind::Options, changed);
        assert!(is_hit(&cache, HOST), "{changed}: nothing that it depends on");
        cache.invalidate(Kind::Frontend, changed);
        assert!(matches!(cache.get(HOST, 0), Lookup::Unverified(_)), "{changed}");
        assert!(cache.last_known(HOST).is_some(), "{changed}: it is kept");
        put(&cache, HOST, Some(2));
        assert!(is_hit(&cache, HOST), "{changed}");
    }
}

#[test]
fn absence_of_a_record_is_remembered_until_one_appears() {
    let cache = cache(true, None);
    put(&cache, HOST, None);
    assert!(is_hit(&cache, HOST));
    cache.invalidate(Kind::Frontend, HOST);
    assert!(!is_hit(&cache, HOST));
    put(&cache, HOST, Some(0));
    assert!(is_hit(&cache, HOST) && cache.len() == 1, "it is in one segment");
}

#[test]
fn state_changes_reach_the_value_of_their_host_only() {
    let cache = cache(true, None);
    put(&cache, HOST, Some(0));
    cache.invalidate(Kind::Dead, "b.w.test");
    cache.invalidate(Kind::Frontend, HOST);
    let changes = || cache.last_known(HOST).map(|v| v.state_changes.load(Ordering::Relaxed));
    assert_eq!(changes(), Some(0));
    cache.invalidate(Kind::Dead, HOST);
    assert_eq!(changes(), Some(1));
}

#[test]
fn edits_of_hosts_never_touch_other_hosts() {
    let cache = cache(true, None);
    put(&cache, HOST, Some(1));
    for number in 0..100_000 {
        cache.invalidate(Kind::Frontend, &format!("edited{number}.w.test"));
    }
    assert!(is_hit(&cache, HOST));
}

/// The race that Redis' documentation of client-side caching warns of.
#[test]
fn overtaken_answer_is_last_known_only() {
    for (kind, changed) in
        [(Kind::Frontend, HOST), (Kind::Dead, HOST), (Kind::Frontend, "*.w.test")]
    {
        let cache = cache(true, None);
        let ticket = cache.begin(HOST);
        cache.invalidate(kind, changed);
        assert!(!cache.insert(HOST, Value::new(0, Some(0)), &ticket));
        assert!(matches!(cache.get(HOST, 0), Lookup::Unverified(_)), "{changed}");
        // What was perhaps deleted while its server was running is not held; what has another state is.
        let is_held = cache.held(HOST, 1, None).is_some();
        assert_eq!(is_held, (kind, changed) != (Kind::Frontend, HOST), "{changed}");
    }
}

#[test]
fn lost_connection_new_connection_and_flush_unverify_everything() {
    let cache = cache(true, None);
    type Apply = fn(&Cache<Value>);
    let steps: [(&str, Apply); 4] = [
        ("lost", |cache| cache.begin_epoch(false)),
        ("new", |cache| cache.begin_epoch(true)),
        ("another", |cache| cache.begin_epoch(true)),
        ("flush", Cache::invalidate_all),
    ];
    for (step, apply) in steps {
        put(&cache, HOST, Some(0));
        let ticket = cache.begin("b.test");
        apply(&cache);
        assert!(!is_hit(&cache, HOST), "{step}");
        let is_kept = cache.insert("b.test", Value::new(0, None), &ticket);
        assert!(!is_hit(&cache, "b.test"), "{step}");
        assert_eq!(is_kept, step == "lost", "{step}: asked for again where changes are announced");
    }
}

#[test]
fn without_announcements_time_decides() {
    let cases = [(None, 0, false), (Some(60), 59_999, true), (Some(60), 60_000, false)];
    for (ttl, now, expected) in cases {
        let cache = cache(false, ttl.map(Duration::from_secs));
        put(&cache, HOST, Some(0));
        assert_eq!(matches!(cache.get(HOST, now), Lookup::Hit(_)), expected, "{ttl:?} {now}");
        assert_eq!(cache.shares_answers(), ttl.is_some());
    }
    // A connection that announces changes takes over from the clock.
    let cache = cache(true, Some(Duration::from_secs(60)));
    put(&cache, HOST, Some(0));
    assert!(matches!(cache.get(HOST, 1_000_000), Lookup::Hit(_)));
}

#[test]
fn unverified_value_is_usable_only_while_redis_is_away() {
    let cache = cache(true, None);
    assert!(cache.usable(HOST, 0, || false).is_none());
    put(&cache, HOST, Some(0));
    assert!(cache.usable(HOST, 0, || unreachable!("a hit asks for nothing")).is_some());
    cache.begin_epoch(false);
    assert!(cache.usable(HOST, 0, || false).is_some());
    assert!(cache.usable(HOST, 0, || true).is_none());
}

#[test]
fn restored_value_is_never_hit() {
    for (is_tracked, ttl) in [(true, None), (false, Some(Duration::from_secs(60)))] {
        let cache = cache(is_tracked, ttl);
        let restored = Value { is_verified: false, ..Value::new(0, Some(0)) };
        assert!(cache.insert(HOST, restored, &cache.begin(HOST)), "nothing has overtaken it");
        assert!(matches!(cache.get(HOST, 0), Lookup::Unverified(_)));
        put(&cache, HOST, Some(0));
        assert!(is_hit(&cache, HOST));
    }
}

#[test]
fn values_of_before_are_held_where_their_record_or_a_nearer_one_is_missing() {
    let cache = cache(true, None);
    for (rank, new, expected) in [
        (Some(0), None, true),
        (Some(0), Some(1), true),
        (Some(1), Some(2), true),
        (Some(1), Some(1), false),
        (Some(1), Some(0), false),
        (None, None, false),
    ] {
        put(&cache, HOST, rank);
        assert_eq!(cache.held(HOST, 1, new).is_some(), expected, "{rank:?} {new:?}");
        assert!(cache.held(HOST, 0, new).is_none(), "read from the new server");
    }
    assert!(cache.held("unknown.test", 1, None).is_none());
}

#[test]
fn only_changes_of_its_own_record_withdraw_a_value() {
    let cache = cache(true, None);
    let is_held = |host: &str| cache.held(host, 1, None).is_some();
    let fill = || {
        put(&cache, "a.w.test", Some(1));
        put(&cache, "own.w.test", Some(0));
        put(&cache, "none.w.test", None);
    };
    fill();
    cache.invalidate(Kind::Frontend, "*");
    cache.invalidate(Kind::Dead, "a.w.test");
    cache.invalidate(Kind::Dead, "own.w.test");
    cache.begin_epoch(false);
    cache.begin_epoch(true);
    cache.invalidate_all();
    assert!(is_held("a.w.test") && is_held("own.w.test"));
    assert_eq!(cache.values_before(1).count(), 2);
    cache.invalidate(Kind::Frontend, "*.w.test");
    assert!(!is_held("a.w.test") && is_held("own.w.test"));
    cache.invalidate(Kind::Frontend, "own.w.test");
    assert!(!is_held("own.w.test"));
    assert_eq!(cache.values_before(1).count(), 0);
    fill();
    assert_eq!(cache.values_before(1).count(), 2);
    cache.withdraw_all(0);
    assert_eq!(cache.values_before(1).count(), 0);
}

#[test]
fn invented_hosts_evict_each_other_only() {
    let cache = cache(true, None);
    for number in 0..100 {
        put(&cache, &format!("real{number}.test"), Some(0));
    }
    for number in 0..50_000 {
        put(&cache, &format!("x{number}.test"), Some(1));
        put(&cache, &format!("y{number}.example"), None);
    }
    for number in 0..100 {
        assert!(is_hit(&cache, &format!("real{number}.test")), "{number}");
    }
    assert!(cache.len() as u64 <= 100 + LIMITS.others / 64, "{}", cache.len());
}

/// What may happen to a cache that announcements keep fresh.
#[derive(Clone, Debug)]
enum Step {
    Put { host: usize, rank: usize, weight: u64 },
    Change { kind: Kind, name: String },
    Reconnect,
    Flush,
}

const HOSTS: [&str; 6] = ["a.w.test", "b.w.test", "w.test", "c.test", "d", "a.b.c.d.e.f.g.test"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let names: Vec<_> = HOSTS.iter().flat_map(|host| lookup_names(host)).collect();
    let names: HashSet<_> = names.into_iter().map(String::from).collect();
    let mut names: Vec<_> = names.into_iter().collect();
    names.sort();
    let change = (prop::sample::select(vec![Kind::Frontend, Kind::Dead, Kind::Options]), {
        prop::sample::select(names)
    });
    let step = prop_oneof![
        6 => (0..HOSTS.len(), 0_usize..3, 1_u64..40_000)
            .prop_map(|(host, rank, weight)| Step::Put { host, rank, weight }),
        6 => change.prop_map(|(kind, name)| Step::Change { kind, name }),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Flush),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    /// Against a model that knows nothing of counters: a value is fresh if nothing that its host depends on has
    /// changed since it was stored. Evicted values are missing, and collisions of counters are rare but allowed;
    /// neither may make a value fresh that is not.
    #[test]
    fn hits_are_those_that_nothing_has_changed_for(steps in steps()) {
        let cache = cache(true, None);
        let mut fresh: HashMap<usize, u32> = HashMap::new();
        for (number, step) in (0_u32..).zip(steps) {
            match step {
                Step::Put { host, rank, weight } => {
                    let name = HOSTS[host];
                    let rank = rank % lookup_names(name).count();
                    let value = Value { weight, ..Value::new(number, Some(rank)) };
                    prop_assert!(cache.insert(name, value, &cache.begin(name)));
                    fresh.insert(host, number);
                }
                Step::Change { kind, name } => {
                    cache.invalidate(kind, &name);
                    let depends = |host: &str| {
                        let is_dependency = lookup_names(host).any(|other| *other == *name);
                        // Wildcards have no state; taking it for a change of their records is harmless.
                        is_dependency && matches!(kind, Kind::Frontend | Kind::Dead)
                    };
                    fresh.retain(|host, _| !depends(HOSTS[*host]));
                }
                Step::Reconnect => {
                    cache.begin_epoch(false);
                    cache.begin_epoch(true);
                    fresh.clear();
                }
                Step::Flush => {
                    cache.invalidate_all();
                    fresh.clear();
                }
            }
            for (index, host) in HOSTS.iter().enumerate() {
                let expected = fresh.get(&index);
                match cache.get(host, 0) {
                    Lookup::Hit(value) => prop_assert_eq!(Some(&value.content), expected),
                    Lookup::Unverified(_) => prop_assert_eq!(expected, None),
                    // Never stored, or evicted.
                    Lookup::Miss => {}
                }
            }
        }
    }

    #[test]
    fn weight_is_bounded(
        entries in prop::collection::vec((0_u32..200, prop::option::of(0_usize..2), 1_u64..20_000), 0..400),
    ) {
        let cache = cache(true, None);
        let mut stored = HashMap::new();
        for (host, rank, weight) in entries {
            let host = format!("h{host}.test");
            let value = Value { weight, ..Value::new(0, rank) };
            cache.insert(&host, value, &cache.begin(&host));
            stored.insert(host, (rank, weight));
            let mut sums = [0, 0];
            for (host, (rank, weight)) in &stored {
                if cache.last_known(host).is_some() {
                    sums[usize::from(*rank != Some(0))] += weight;
                }
            }
            prop_assert!(sums[0] <= LIMITS.own && sums[1] <= LIMITS.others, "{sums:?}");
        }
    }

    #[test]
    fn time_to_live_is_exact(ttl in 1_u64..100_000, loaded_at in 0_u64..1_000_000, later in 0_u64..200_000) {
        let cache = cache(false, Some(Duration::from_millis(ttl)));
        let value = Value { loaded_at, ..Value::new(0, Some(0)) };
        cache.insert(HOST, value, &cache.begin(HOST));
        let is_hit = matches!(cache.get(HOST, loaded_at + later), Lookup::Hit(_));
        prop_assert_eq!(is_hit, later < ttl);
    }
}
