//! What passes between the rules and the writer: which backends each host is to have.
//!
//! `rules` makes a [`Plan`] from Marathon's answer, `guard` moves what it does not believe from
//! "gone" to [`Wanted::unsure`], and `routes` makes Redis equal to it.

use std::collections::{BTreeMap, BTreeSet};

/// The wish for every host that an app claims, by normalized host or wildcard (the text behind
/// `frontend:`).
pub type Plan = BTreeMap<String, Wanted>;

/// The wish for one host.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Wanted {
    /// Item 0 of a list that is made anew. The identifier of a list that exists is never changed.
    pub identifier: String,
    /// URLs of live backends, without repeats, in the order in which new ones are appended.
    pub up: Vec<String>,
    /// URLs about which too little is known: they stay where they are listed, and are not added.
    pub unsure: Vec<String>,
    /// Ids of the apps that claim the host, sorted.
    pub apps: Vec<String>,
    /// What of `up` and `unsure` each of several apps has; empty while one app claims the host alone.
    pub shares: BTreeMap<String, BTreeSet<String>>,
    /// An app whose tasks are not shown claims the host, and nothing is known of its past: whatever
    /// is listed may be its.
    pub keeps_listed: bool,
    /// What is neither wanted nor noted as ours stays where it is listed, and is not noted: not all is
    /// known of what an app of the host wants, or no app claims it any more.
    pub keeps_others: bool,
    /// Rows of that kind that stay also where others of it would go: the guard holds them.
    pub others: Vec<Vec<u8>>,
    /// Such rows that Redis has lost: they are listed again.
    pub again: Vec<String>,
}
