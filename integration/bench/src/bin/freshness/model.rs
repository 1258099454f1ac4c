//! What the keys in Redis mean, and random edits of them.
//!
//! A second, slow and simple implementation of the rules in `docs/redis-schema.md`; the judge
//! measures the router against it.
//!
//! Dead positions are set for hosts of their own kind only, whose lists always are a beginning of
//! the same list: the router translates positions after an edit that shifts rows, by what it last
//! saw, so that for other lists the right answer would depend on when it looked.

use std::collections::{BTreeMap, BTreeSet};

/// The answers that are allowed, as bits: one a backend, and those below.
pub(crate) type Answers = u64;

/// 400: no list for the host.
pub(crate) const UNKNOWN: Answers = 1 << 62;
/// 502: a list, but no backend in it that is alive.
pub(crate) const NONE_ALIVE: Answers = 1 << 63;

/// Rows of a list at most.
const MAX_ROWS: usize = 5;

/// A small generator of random numbers (`SplitMix64`), the same sequence for the same seed.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is small.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap_or(0)
    }

    pub(crate) fn choose<'a, T>(&mut self, values: &'a [T]) -> Option<&'a T> {
        values.get(self.below(values.len()))
    }
}

/// One command for Redis; several of one write go into one `MULTI`.
pub(crate) type Command = Vec<String>;

/// A write and what it is called in the report.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) kind: &'static str,
    pub(crate) commands: Vec<Command>,
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    /// Every host that is asked for.
    pub(crate) hosts: Vec<String>,
    urls: Vec<String>,
    /// Backends of each list by number; the identifier is not in it.
    lists: BTreeMap<String, Vec<usize>>,
    dead: BTreeMap<String, BTreeSet<usize>>,
    /// Names of lists that are edited at will.
    plain: Vec<String>,
    wildcards: Vec<String>,
    /// Hosts with dead sets.
    marked: Vec<String>,
}

impl Model {
    /// Nothing in Redis yet; `urls` are those of the backends.
    pub(crate) fn new(urls: Vec<String>) -> Self {
        let mut plain: Vec<String> = (0..24).map(|n| format!("l{n}.list.test")).collect();
        let marked: Vec<String> = (0..16).map(|n| format!("d{n}.dead.test")).collect();
        let mut wildcards = Vec::new();
        for group in 0..6 {
            wildcards.push(format!("*.b.g{group}.wild"));
            wildcards.push(format!("*.g{group}.wild"));
            plain.extend((0..3).map(|n| format!("h{n}.b.g{group}.wild")));
        }
        let hosts = plain.iter().chain(&marked).cloned().collect();
        let (lists, dead) = (BTreeMap::new(), BTreeMap::new());
        Self { hosts, urls, lists, dead, plain, wildcards, marked }
    }

    /// What a request for `host` may be answered with.
    pub(crate) fn allowed(&self, host: &str) -> Answers {
        let Some(rows) = lookup_names(host).find_map(|name| self.lists.get(&name)) else {
            return UNKNOWN;
        };
        let dead = self.dead.get(host);
        let is_alive = |position: &usize| dead.is_none_or(|dead| !dead.contains(position));
        let alive = rows.iter().enumerate().filter(|(position, _)| is_alive(position));
        match alive.fold(0, |bits, (_, backend)| bits | (1 << backend)) {
            0 => NONE_ALIVE,
            bits => bits,
        }
    }

    /// Makes up a write, and changes the model as it will change Redis.
    pub(crate) fn write(&mut self, random: &mut Random) -> Write {
        let names = match random.below(100) {
            0 => return self.edit_list("*", random),
            1..=2 => return self.edit_list("*.wild", random),
            3..=20 => &self.wildcards,
            21..=50 => {
                let host = random.choose(&self.marked).cloned().unwrap_or_default();
                return self.edit_marks(&host, random);
            }
            _ => &self.plain,
        };
        let name = random.choose(names).cloned().unwrap_or_default();
        self.edit_list(&name, random)
    }

    fn edit_list(&mut self, name: &str, random: &mut Random) -> Write {
        let key = format!("frontend:{name}");
        let is_wildcard = name.starts_with('*');
        let label = |plain, wildcard| if is_wildcard { wildcard } else { plain };
        let backend = random.below(self.urls.len());
        let url = self.urls[backend].clone();
        let Some(rows) = self.lists.get_mut(name) else {
            let rows: Vec<usize> =
                (0..=random.below(2)).map(|_| random.below(self.urls.len())).collect();
            let command = rpush(&key, Some("id"), rows.iter().map(|row| self.urls[*row].clone()));
            self.lists.insert(name.to_owned(), rows);
            return one(label("RPUSH (new list)", "wildcard: new list"), command);
        };
        match random.below(if is_wildcard { 6 } else { 5 }) {
            0 if rows.len() < MAX_ROWS => {
                rows.push(backend);
                one(label("RPUSH", "wildcard: RPUSH"), rpush(&key, None, [url]))
            }
            1 if !rows.is_empty() => {
                let row = rows[random.below(rows.len())];
                rows.retain(|other| *other != row);
                let url = self.urls[row].clone();
                one(label("LREM", "wildcard: LREM"), words(["LREM", &key, "0", &url]))
            }
            2 | 3 if !rows.is_empty() => {
                let position = random.below(rows.len());
                rows[position] = backend;
                let index = (position + 1).to_string();
                one(label("LSET", "wildcard: LSET"), words(["LSET", &key, &index, &url]))
            }
            4 if rows.len() < MAX_ROWS => {
                // The way of a deploy: the old list goes and the new one comes at once.
                *rows = vec![backend];
                let commands = vec![words(["DEL", &key]), rpush(&key, Some("id"), [url])];
                Write { kind: label("DEL + RPUSH", "wildcard: DEL + RPUSH"), commands }
            }
            _ => {
                self.lists.remove(name);
                one(label("DEL", "wildcard: DEL"), words(["DEL", &key]))
            }
        }
    }

    fn edit_marks(&mut self, host: &str, random: &mut Random) -> Write {
        let (key, dead_key) = (format!("frontend:{host}"), format!("dead:{host}"));
        let dead = self.dead.entry(host.to_owned()).or_default();
        let Some(rows) = self.lists.get_mut(host) else {
            let rows: Vec<usize> = (0..2 + random.below(2)).collect();
            let command = rpush(&key, Some("id"), rows.iter().map(|row| self.urls[*row].clone()));
            self.lists.insert(host.to_owned(), rows);
            return one("RPUSH (new list)", command);
        };
        let position = random.below(rows.len());
        match random.below(16) {
            0 => {
                self.lists.remove(host);
                dead.clear();
                let commands = vec![words(["DEL", &key]), words(["DEL", &dead_key])];
                Write { kind: "DEL list and dead set", commands }
            }
            1..=2 if rows.len() < MAX_ROWS.min(self.urls.len()) => {
                let backend = rows.len();
                rows.push(backend);
                one("RPUSH", rpush(&key, None, [self.urls[backend].clone()]))
            }
            3 if !dead.is_empty() => {
                dead.clear();
                one("DEL dead set", words(["DEL", &dead_key]))
            }
            _ if dead.remove(&position) => {
                one("SREM", words(["SREM", &dead_key, &position.to_string()]))
            }
            _ => {
                dead.insert(position);
                one("SADD", words(["SADD", &dead_key, &position.to_string()]))
            }
        }
    }
}

fn one(kind: &'static str, command: Command) -> Write {
    Write { kind, commands: vec![command] }
}

fn words<const N: usize>(words: [&str; N]) -> Command {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn rpush(key: &str, identifier: Option<&str>, rows: impl IntoIterator<Item = String>) -> Command {
    let mut command = words(["RPUSH", key]);
    command.extend(identifier.map(str::to_owned));
    command.extend(rows);
    command
}

/// The host, the wildcards above it from near to far, and `*`.
fn lookup_names(host: &str) -> impl Iterator<Item = String> {
    let wildcards = host.match_indices('.').map(|(at, _)| format!("*{}", host.split_at(at).1));
    std::iter::once(host.to_owned()).chain(wildcards).chain(std::iter::once("*".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_list_counts_without_its_dead_rows() {
        let mut model = Model::new((0..4).map(|n| n.to_string()).collect());
        assert_eq!(model.allowed("a.b.test"), UNKNOWN);
        model.lists.insert("*.test".to_owned(), vec![0]);
        model.lists.insert("*".to_owned(), vec![3]);
        assert_eq!(model.allowed("a.b.test"), 1);
        assert_eq!(model.allowed("test"), 1 << 3);
        model.lists.insert("a.b.test".to_owned(), vec![1, 2]);
        assert_eq!(model.allowed("a.b.test"), 0b110);
        model.dead.entry("a.b.test".to_owned()).or_default().insert(0);
        assert_eq!(model.allowed("a.b.test"), 0b100);
        model.lists.insert("a.b.test".to_owned(), vec![]);
        assert_eq!(model.allowed("a.b.test"), NONE_ALIVE);
    }

    #[test]
    fn the_same_seed_writes_the_same() {
        let writes = |seed| {
            let mut model = Model::new((0..8).map(|n| n.to_string()).collect());
            let mut random = Random(seed);
            (0..500).map(|_| model.write(&mut random).commands).collect::<Vec<_>>()
        };
        assert_eq!(writes(1), writes(1));
        assert_ne!(writes(1), writes(2));
    }
}
