//! The byte buffers of a worker: lent to requests while bytes are under way, returned when a side is idle.
//!
//! What the pool keeps is bounded, so that the memory of a burst goes back to the allocator.

use std::sync::Mutex;

use shared::lock::lock;

use crate::descriptors::Descriptors;
use crate::pipes::Pipes;

/// Bytes of an ordinary buffer: most heads and small bodies.
pub const SMALL: usize = 8 * 1024;
/// Bytes of a buffer for bodies that do not fit an ordinary one: fewer system calls for each megabyte.
pub const LARGE: usize = 64 * 1024;
/// Buffers of each size that are kept while nobody needs them: 512 KiB and 1 MiB.
const MAX_SMALL: usize = 64;
const MAX_LARGE: usize = 16;

/// Buffers that nobody uses at the moment.
#[derive(Debug)]
pub struct Buffers {
    small: Mutex<Vec<Vec<u8>>>,
    large: Mutex<Vec<Vec<u8>>>,
    /// Buffers of the kernel, for large bodies between plain sockets.
    pub pipes: Pipes,
}

impl Buffers {
    /// None are lent or kept yet.
    pub fn new(descriptors: Descriptors) -> Self {
        Self { small: Mutex::default(), large: Mutex::default(), pipes: Pipes::new(descriptors) }
    }

    /// An empty buffer of [`SMALL`] bytes.
    pub fn small(&self) -> Vec<u8> {
        lock(&self.small).pop().unwrap_or_else(|| Vec::with_capacity(SMALL))
    }

    /// An empty buffer of [`LARGE`] bytes.
    pub fn large(&self) -> Vec<u8> {
        lock(&self.large).pop().unwrap_or_else(|| Vec::with_capacity(LARGE))
    }

    /// Takes a buffer back, whatever is in it. One that has grown beyond its size is freed.
    pub fn give_back(&self, mut buffer: Vec<u8>) {
        let (free, most) = match buffer.capacity() {
            SMALL => (&self.small, MAX_SMALL),
            LARGE => (&self.large, MAX_LARGE),
            _ => return,
        };
        let mut free = lock(free);
        if free.len() < most {
            buffer.clear();
            free.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Buffers, Descriptors, LARGE, MAX_LARGE, MAX_SMALL, SMALL};

    #[test]
    fn buffers_come_back_empty_and_only_so_many_are_kept() {
        let buffers = Buffers::new(Descriptors::new(u64::MAX));
        let mut one = buffers.small();
        one.extend_from_slice(b"abc");
        buffers.give_back(one);
        let one = buffers.small();
        assert_eq!((one.len(), one.capacity()), (0, SMALL));
        for _ in 0..2 * MAX_SMALL {
            buffers.give_back(Vec::with_capacity(SMALL));
        }
        for _ in 0..2 * MAX_LARGE {
            buffers.give_back(Vec::with_capacity(LARGE));
        }
        assert_eq!(buffers.small.lock().unwrap().len(), MAX_SMALL);
        assert_eq!(buffers.large.lock().unwrap().len(), MAX_LARGE);
    }

    #[test]
    fn buffers_that_have_grown_are_freed() {
        let buffers = Buffers::new(Descriptors::new(u64::MAX));
        buffers.give_back(Vec::with_capacity(SMALL + 1));
        buffers.give_back(Vec::new());
        assert!(buffers.small.lock().unwrap().is_empty());
        assert!(buffers.large.lock().unwrap().is_empty());
    }
}
