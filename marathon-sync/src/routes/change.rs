//! One list that is to change.

use std::fmt;

use super::owned::Owned;

/// What happens to a list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// The list stays as it is; only the note about it is written.
    Adopt,
    /// A list is made.
    Create,
    /// No app claims the host any more; the list that we made goes.
    Delete,
    /// No app claims the host any more, and somebody else deleted the list: the note goes.
    Forget,
    /// No app claims the host any more; what is not ours stays.
    Release,
    /// Backends come and go.
    Update,
}

impl Action {
    /// A word for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Adopt => "adopt",
            Self::Create => "create",
            Self::Delete => "delete",
            Self::Forget => "forget",
            Self::Release => "release",
            Self::Update => "update",
        }
    }
}

/// A backend that leaves a list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Removed {
    /// The row as it stands.
    pub row: Vec<u8>,
    /// Whether it was put there by somebody else. An app claims the host, so it goes all the same,
    /// as with the bridge; whoever put it there wants to know.
    pub by_hand: bool,
}

/// How one list is to change: made from the list as it was seen, and carried out only while it still
/// stands like that.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// The text behind `frontend:`.
    pub host: String,
    /// What happens.
    pub action: Action,
    /// The whole list as it was seen; empty when there was none.
    pub seen: Vec<Vec<u8>>,
    /// Item 0 of the list afterwards.
    pub identifier: Vec<u8>,
    /// Positions of the backends that stay, ascending; the first backend, item 1, is 0.
    pub kept: Vec<usize>,
    /// Backends to append, in their order.
    pub added: Vec<String>,
    /// Backends that go, in their order.
    pub removed: Vec<Removed>,
    /// The note about the list afterwards; `None` when it is not ours any more.
    pub owned: Option<Owned>,
    /// Each other instance, with its note about the host as it was seen; empty when there was none. The
    /// change is carried out only while they stand like that.
    pub records: Vec<(String, Vec<u8>)>,
}

impl Change {
    /// The whole list afterwards; empty when there is to be none.
    pub fn after(&self) -> Vec<Vec<u8>> {
        if matches!(self.action, Action::Delete | Action::Forget) {
            return Vec::new();
        }
        let kept = self.kept.iter().filter_map(|position| backends(&self.seen).get(*position));
        let added = self.added.iter().map(String::as_bytes);
        std::iter::once(&*self.identifier)
            .chain(kept.map(Vec::as_slice))
            .chain(added)
            .map(<[u8]>::to_vec)
            .collect()
    }

    /// Whether readers of the list see a difference; else only our note about it changes.
    pub fn is_visible(&self) -> bool {
        !matches!(self.action, Action::Adopt | Action::Forget)
            && (self.action != Action::Release || !self.removed.is_empty())
    }
}

/// `www.example.com: update, +http://10.0.0.1:80 -http://10.0.0.2:80 (added by hand)`.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.host, self.action.as_str())?;
        let mut separator = ", ";
        for row in &self.added {
            write!(f, "{separator}+{row}")?;
            separator = " ";
        }
        for removed in &self.removed {
            write!(f, "{separator}-{}", removed.row.escape_ascii())?;
            if removed.by_hand {
                f.write_str(" (added by hand)")?;
            }
            separator = " ";
        }
        Ok(())
    }
}

/// Items 1 to n of a list.
pub fn backends(list: &[Vec<u8>]) -> &[Vec<u8>] {
    list.split_first().map_or(&[], |(_identifier, backends)| backends)
}
