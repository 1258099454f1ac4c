//! A thread for long computations, away from the one that renews the lease.
//!
//! It is one, and always the same: what a pass makes is large, and the allocator keeps a heap for
//! each thread. With threads that took turns the process needed a third more memory.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinError;

/// The thread, which ends with this.
#[derive(Debug)]
pub struct Compute {
    handle: Handle,
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl Compute {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// When the system gives none.
    pub fn start() -> io::Result<Self> {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("compute").build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// What `job` comes to, after those that were given before.
    ///
    /// # Errors
    ///
    /// When it panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        self.handle.spawn(async move { job() }).await
    }
}

impl Drop for Compute {
    fn drop(&mut self) {
        // A computation that still goes on is of no use to anybody.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[tokio::test]
    async fn all_jobs_run_on_one_thread_which_is_not_ours() {
        let compute = Compute::start().unwrap();
        let first = compute.run(|| thread::current().id()).await.unwrap();
        let second = compute.run(|| thread::current().id()).await.unwrap();
        assert_eq!(first, second);
        assert_ne!(first, thread::current().id());
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_ends_nothing_else() {
        let compute = Compute::start().unwrap();
        assert!(compute.run(|| panic!("on purpose")).await.unwrap_err().is_panic());
        assert_eq!(compute.run(|| 1).await.unwrap(), 1);
    }
}
