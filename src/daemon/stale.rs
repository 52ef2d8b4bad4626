//! Before a service of CGSE is started, what a dead one has left in the registry is taken out: the next one would be refused there, and leave. What is
//! listed besides is not what is about to be started.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::cgse::registry::Cleared;
use crate::probe::Cgse;
use crate::subprocess::Spec;
use crate::subprocess::gate::{Closed, Gate};

/// A registry that is away holds a start up for so long at most.
const PATIENCE: Duration = Duration::from_secs(1);

/// A gate behind another one.
#[derive(Debug)]
pub(super) struct StaleEntries {
    pub(super) gate: Arc<dyn Gate>,
    pub(super) cgse: Cgse,
}

impl Gate for StaleEntries {
    fn open(&self, spec: &Arc<Spec>) -> Option<BoxFuture<'static, Result<(), Closed>>> {
        let first = self.gate.open(spec);
        let Some(service_type) = spec.cgse_service_type.clone() else { return first };
        let (Cgse { registry, watch }, name) = (self.cgse.clone(), spec.name.clone());
        let both = async move {
            if let Some(first) = first {
                first.await?;
            }
            let left = match tokio::time::timeout(PATIENCE, registry.clear(&service_type)).await {
                Ok(Ok(Cleared { taken_out, left })) => {
                    taken_out.iter().for_each(
                        |id| tracing::info!(%name, service_type, id, "a dead service's entry is taken out of the registry of CGSE"),
                    );
                    Some(left)
                }
                // It is started all the same: the registry itself is a service like this one.
                Ok(Err(why)) => {
                    tracing::debug!(%name, service_type, why, "nobody can tell whether a dead service is in the registry of CGSE");
                    None
                }
                Err(_) => {
                    tracing::debug!(%name, service_type, "the registry of CGSE takes too long to tell whether a dead service is in it");
                    None
                }
            };
            watch.starts(name.as_str(), left);
            Ok(())
        };
        Some(both.boxed())
    }
}
