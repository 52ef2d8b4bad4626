//! Before a service of CGSE is started, what a dead one has left in the registry is taken out: the next one would be refused there, and leave.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::cgse::Registry;
use crate::subprocess::Spec;
use crate::subprocess::gate::{Closed, Gate};

/// A registry that is away holds a start up for so long at most.
const PATIENCE: Duration = Duration::from_secs(1);

/// A gate behind another one.
#[derive(Debug)]
pub(super) struct StaleEntries {
    pub(super) gate: Arc<dyn Gate>,
    pub(super) registry: Arc<Registry>,
}

impl Gate for StaleEntries {
    fn open(&self, spec: &Arc<Spec>) -> Option<BoxFuture<'static, Result<(), Closed>>> {
        let first = self.gate.open(spec);
        let Some(service_type) = spec.cgse_service_type.clone() else { return first };
        let (registry, name) = (self.registry.clone(), spec.name.clone());
        let both = async move {
            if let Some(first) = first {
                first.await?;
            }
            match tokio::time::timeout(PATIENCE, registry.clear(&service_type)).await {
                Ok(Ok(taken_out)) => {
                    taken_out.iter().for_each(
                        |id| tracing::info!(%name, service_type, id, "a dead service's entry is taken out of the registry of CGSE"),
                    );
                }
                // It is started all the same: the registry itself is a service like this one.
                Ok(Err(why)) => {
                    tracing::debug!(%name, service_type, why, "nobody can tell whether a dead service is in the registry of CGSE")
                }
                Err(_) => {
                    tracing::debug!(%name, service_type, "the registry of CGSE takes too long to tell whether a dead service is in it")
                }
            }
            Ok(())
        };
        Some(both.boxed())
    }
}
