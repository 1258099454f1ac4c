//! The second phase: where the requests of a host go.

use std::sync::Arc;

use super::Shared;
use super::context::RequestContext;
use super::error::ProxyError;
use super::watch::while_client_waits;
use crate::client_io::ClientIo;
use crate::route::{Route, Target};

/// What memory says of a host.
#[derive(Debug)]
pub(super) enum Lookup {
    /// Its route.
    Hit(Arc<Route>),
    /// Nothing: Redis has to be asked for this host.
    Miss(Box<str>),
}

impl Lookup {
    pub(super) fn in_memory(shared: &Shared, host: &str) -> Self {
        match shared.table.fresh(host) {
            Some(route) => {
                shared.counters.cache_hits.add();
                Self::Hit(route)
            }
            None => {
                shared.counters.cache_misses.add();
                Self::Miss(host.into())
            }
        }
    }
}

/// Finds the route, in Redis if it is not in memory.
pub(super) async fn look_up(
    io: &mut ClientIo,
    cx: &mut RequestContext<'_>,
    lookup: Lookup,
) -> Result<Arc<Route>, ProxyError> {
    let route = match lookup {
        Lookup::Hit(route) => route,
        Lookup::Miss(host) => {
            cx.has_waited = true;
            let loading = Box::pin(cx.client.shared.table.load(&host));
            let loaded = while_client_waits(io, cx.client, &mut cx.work.input, loading).await?;
            loaded.map_err(ProxyError::Store)?
        }
    };
    match &route.target {
        Target::Unknown => return Err(ProxyError::UnknownHost),
        Target::Broken(problem) => {
            let error = ProxyError::BrokenFrontend(problem.clone());
            cx.route = Some(route);
            return Err(error);
        }
        Target::Frontend(_) => {}
    }
    cx.route = Some(Arc::clone(&route));
    Ok(route)
}
