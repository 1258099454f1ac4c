//! Reading what memory does not have, and storing it.

use std::sync::Arc;

use shared::store::StoreError;
use tokio::runtime::Handle;
use tracing::debug;

use super::single_flight::SingleFlight;
use super::{Cache, Cached};

/// How often an answer that a change has overtaken is asked for again. Then it is used for the requests that
/// wait for it: it was true when they came. It is not fresh for later ones.
const MAX_OVERTAKEN: usize = 3;

/// Reads of one source under way.
#[derive(Debug)]
pub struct Reads<V>(SingleFlight<Result<V, StoreError>>);

impl<V: Cached + Send + Sync + 'static> Reads<V> {
    /// They run on `runtime`, which must outlive the requests that wait for them.
    pub fn new(runtime: Handle) -> Self {
        Self(SingleFlight::new(runtime))
    }
}

/// Where the values of a cache are read from.
pub trait Source: Send + Sync + 'static {
    /// What is kept for a host.
    type Value: Cached + Send + Sync + 'static;

    /// Where it is kept.
    fn cache(&self) -> &Cache<Self::Value>;

    /// Reads under way.
    fn reads(&self) -> &Reads<Self::Value>;

    /// Reads what Redis holds for `host`.
    fn fetch(
        self: &Arc<Self>,
        host: &str,
    ) -> impl Future<Output = Result<Self::Value, StoreError>> + Send;

    /// `value` is in the cache now, in the place of `previous`.
    fn note_stored(&self, _previous: Option<&Self::Value>, _value: &Self::Value) {}
}

/// Reads the value of `host` from Redis and stores it. While Redis gives no answer, that is the last known value.
///
/// # Errors
///
/// [`StoreError`] when Redis gives no answer, and none is known.
pub async fn load<S: Source>(source: &Arc<S>, host: &str) -> Result<S::Value, StoreError> {
    let answer = match source.cache().shares_answers() {
        true => join(source, host).await,
        false => read(source, host).await,
    };
    answer.or_else(|error| {
        debug!(host, %error, "not read from Redis, the last known answer is used");
        source.cache().last_known(host).ok_or(error)
    })
}

/// Waits for the read that is under way for `host`, or begins one. Unlike [`load`] it fails when Redis gives no
/// answer.
///
/// # Errors
///
/// [`StoreError`] when Redis gives no answer.
pub(crate) async fn join<S: Source>(source: &Arc<S>, host: &str) -> Result<S::Value, StoreError> {
    let begin = || {
        let (source, host) = (Arc::clone(source), Box::<str>::from(host));
        async move { read(&source, &host).await }
    };
    source.reads().0.join(host, begin).await.unwrap_or(Err(StoreError::Unavailable))
}

async fn read<S: Source>(source: &Arc<S>, host: &str) -> Result<S::Value, StoreError> {
    let cache = source.cache();
    let mut overtaken = 0;
    loop {
        let ticket = cache.begin(host);
        let value = source.fetch(host).await?;
        let previous = cache.last_known(host);
        let is_kept = cache.insert(host, value.clone(), &ticket);
        source.note_stored(previous.as_ref(), &value);
        if is_kept || overtaken == MAX_OVERTAKEN {
            return Ok(value);
        }
        overtaken += 1;
        debug!(host, "a change has overtaken the answer of Redis, asking again");
    }
}
