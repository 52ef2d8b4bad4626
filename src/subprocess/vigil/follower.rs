//! How a run is listed in the registry of CGSE.

use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use crate::protocol::RegistryHealth;
use crate::subprocess::spec::Spec;
use crate::subprocess::spec::probe::{Probe, Ready, ReadySource, Tries};

use super::{Listing, Sign, VigilShared};

/// Hears of it.
pub(super) struct Follower {
    listings: BoxStream<'static, Listing>,
    last: Option<Listing>,
    /// What was told as news last.
    told: Option<(RegistryHealth, Option<String>)>,
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("last", &self.last).finish_non_exhaustive()
    }
}

/// Whether it is ready once it is listed: one that is, has been.
pub(super) fn is_ready_by_it(spec: &Spec) -> bool {
    let asks = match &spec.ready {
        Some(Ready { source: ReadySource::Probe(Tries { probe: Probe::Cgse(service_type), .. }), .. }) => Some(service_type),
        Some(_) | None => None,
    };
    asks.is_some() && asks == spec.cgse_service_type.as_ref()
}

impl Follower {
    /// Of a run of this definition, where it has a type in the registry, and there is one.
    pub(super) fn of(spec: &Spec, shared: &VigilShared, was_listed: bool) -> Option<Self> {
        let listings = shared.ask.follow(&spec.name, spec.cgse_service_type.as_deref()?, was_listed)?;
        Some(Self { listings, last: None, told: None })
    }

    /// The next one; `None` when there will be none any more. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Option<Listing> {
        self.listings.next().await
    }

    /// What of it is a sign. `ill` is why it is taken for ill now.
    pub(super) fn take(&mut self, listing: Listing, ill: Option<&str>) -> Option<Sign> {
        let listing = Listing { ill: None, problem: ill.map(str::to_owned).or(listing.problem), ..listing };
        if self.last.as_ref() == Some(&listing) {
            return None;
        }
        self.last = Some(listing.clone());
        let now = (listing.health, listing.problem.clone());
        let is_news = match listing.health {
            RegistryHealth::Passing | RegistryHealth::Critical => self.told.as_ref() != Some(&now),
            // It is not there yet, or it was, or another one is in its place.
            RegistryHealth::Missing => self.told.as_ref() != Some(&now) && (self.told.is_some() || now.1.is_some()),
            // That the registry is away is told of the daemon's own entry, once and not for each.
            RegistryHealth::Unknown => false,
        };
        if is_news {
            self.told = Some(now);
        }
        Some(Sign::Listed { listing, is_news })
    }
}
