//! A pass over one app: its hosts and no others. Pure.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Pass, texts};
use crate::plan::{Plan, Wanted};
use crate::routes::snapshot::Snapshot;
use crate::rules::desired::narrow::Narrow;
use crate::rules::memory::address;

/// Whether a look at `app` alone may do: it has hosts that are its alone.
pub fn is_alone(pass: &Pass, app: &str) -> bool {
    pass.apps.get(app).is_some_and(|report| {
        !report.hosts.is_empty()
            && report.hosts.iter().all(|claim| {
                let wanted = pass.plan.get(&claim.host);
                wanted.is_some_and(|wanted| matches!(wanted.apps.as_slice(), [only] if only == app))
            })
    })
}

/// The wish for the hosts of `narrow`: what stands there stays, but for what is gone.
pub fn plan(narrow: &Narrow, snapshot: &Snapshot) -> Plan {
    let mut plan = Plan::new();
    for (host, part) in &narrow.hosts {
        let stays = |row: &String| !narrow.gone.contains(&address(row));
        let wanted = Wanted {
            identifier: part.identifier.clone(),
            up: part.up.clone(),
            unsure: texts(snapshot.backends(host)).filter(stays).collect(),
            apps: vec![narrow.id.clone()],
            ..Wanted::default()
        };
        let _new = plan.insert(host.clone(), wanted);
    }
    plan
}

/// Makes `pass` show what became of the app.
pub fn absorb(pass: &mut Pass, narrow: Narrow) {
    let plan = Arc::make_mut(&mut pass.plan);
    for (host, part) in narrow.hosts {
        let Some(wanted) = plan.get_mut(&host) else { continue };
        let up: HashSet<&String> = part.up.iter().collect();
        wanted.unsure.extend(std::mem::take(&mut wanted.up));
        wanted.unsure.retain(|row| !up.contains(row) && !narrow.gone.contains(&address(row)));
        wanted.up = part.up;
    }
    let _before = pass.apps.insert(narrow.id, Arc::new(narrow.report));
}
