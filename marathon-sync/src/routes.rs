//! Makes the lists in Redis equal to a [`Plan`](crate::plan::Plan).
//!
//! [`snapshot`] reads what stands there, [`diff`](mod@diff) (pure) says what is to change, [`apply`]
//! writes it, one script a key, while [`lease`] says that this process is the one to write.
//! [`render`] and [`verify`] show a difference instead of writing it.

use shared::store::Client;

pub mod apply;
pub mod backend;
pub mod change;
pub mod diff;
pub mod lease;
pub mod owned;
pub mod render;
pub mod scripts;
pub mod snapshot;
pub mod verify;

mod election;

/// The routes of one marathon-sync in Redis. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Routes {
    client: Client,
    instance: String,
}

impl Routes {
    /// `instance` is the name under which this marathon-sync, all its processes together, notes
    /// what it owns.
    pub fn new(client: Client, instance: &str) -> Self {
        Self { client, instance: instance.to_owned() }
    }

    /// The `redis-cli` lines that `change` stands for: see [`render`](mod@render).
    pub fn render(&self, change: &change::Change) -> Vec<String> {
        render::render(change, self.client.prefix(), &self.instance)
    }
}
