//! What a request takes while it is under way, lent by the worker and used again.

use std::sync::Mutex;

use shared::lock::lock;

use super::download::Download;
use super::upload::Upload;
use crate::buffers::SMALL;
use crate::http1::head::{RequestHead, ResponseHead};

/// Sets that are kept while nobody needs them, with 8 KiB each.
const MAX_FREE: usize = 64;

/// The heads of a request and its response, and the state of both bodies. A connection has it only while its
/// client says something or waits for a response.
#[derive(Debug)]
pub struct Work {
    /// What was read from the client and is not done with. It begins with the head of the current request.
    pub input: Vec<u8>,
    /// The head.
    pub head: RequestHead,
    /// The request on its way to the backend.
    pub upload: Upload,
    /// The head of the backend's response.
    pub response: ResponseHead,
    /// The response on its way to the client.
    pub download: Download,
}

impl Default for Work {
    fn default() -> Self {
        Self {
            input: Vec::with_capacity(SMALL),
            head: RequestHead::default(),
            upload: Upload::default(),
            response: ResponseHead::default(),
            download: Download::default(),
        }
    }
}

/// Sets that nobody uses at the moment.
#[derive(Debug, Default)]
pub struct FreeWork {
    // Boxed: they move to and from connections.
    #[allow(clippy::vec_box, reason = "said above")]
    free: Mutex<Vec<Box<Work>>>,
}

impl FreeWork {
    /// A set without a trace of another request.
    pub fn take(&self) -> Box<Work> {
        lock(&self.free).pop().unwrap_or_default()
    }

    /// Takes a set back from a request that is over. One whose buffer has grown is freed.
    pub fn give_back(&self, mut work: Box<Work>) {
        let mut free = lock(&self.free);
        if work.input.capacity() == SMALL && free.len() < MAX_FREE {
            work.input.clear();
            work.head.clear();
            work.upload.reset();
            work.download.reset();
            free.push(work);
        }
    }
}
