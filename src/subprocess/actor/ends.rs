//! Ending a run, and keeping the record of it.

use super::super::spec::probe::Probe;
use super::super::tree;
use super::*;
use crate::protocol::RegistryHealth;

impl Actor {
    pub(super) fn request_stop(&mut self) {
        let (Some(live), Some(request)) = (&mut self.live, &self.spec.stop_request) else {
            return self.queued.push_back(Event::StopRequestFailed);
        };
        live.stop_asking();
        let mut request = request.clone();
        if let Probe::CgseTerminate { id, .. } = &mut request.probe
            && let Some(listing) = &self.published.borrow().listing
        {
            if listing.id.is_none() && listing.health == RegistryHealth::Missing {
                // Whoever is listed with its type is another one, and is not to end for it.
                tracing::warn!(name = %self.spec.name, "it is not listed in the registry of CGSE, so nobody can ask it to end there");
                return self.queued.push_back(Event::StopRequestFailed);
            }
            id.clone_from(&listing.id);
        }
        let launch = self.begun.as_ref().map(|begun| begun.launch.clone()).unwrap_or_default();
        live.stop_request =
            Some(vigil::ask_to_stop(self.spec.clone(), request, launch, Some(live.identity.pid), self.shared.vigil.clone()).boxed());
    }

    pub(super) fn end_tree(&mut self, signal: Signal) {
        let Some(live) = &mut self.live else {
            tracing::error!(name = %self.spec.name, "there is no tree to end");
            return;
        };
        live.stop_request = None;
        live.stop_asking();
        // The ender is told what the main is sent before it is sent: the main may be gone an instant later, and the ender must know by what.
        let sent = live.main.as_ref().map(|_| live.identity);
        match &live.ender {
            Some(ender) => ender.signal(signal, sent),
            None => {
                let whole = Whole { uuid: live.uuid.clone(), except: None, group: live.group.clone() };
                live.ender = Some(Ender::begin(self.shared.forest.clone(), whole, signal, sent));
            }
        }
        // The main gets it at once, without looking for the others first: that needs no further descriptor, and most trees are one process.
        if let Some(main) = &live.main {
            tree::send(main.fd.get_ref(), live.identity.pid, signal);
        }
    }

    /// Counts a run that is over, and hands its record up.
    pub(super) fn run_ended(&mut self, end: End) {
        let mut message = None;
        let refusal = self.live.as_mut().and_then(|live| live.refusal.take());
        self.published.send_modify(|published| {
            let published = Arc::make_mut(published);
            *published.exits.entry(end.cause).or_default() += 1;
            published.health = None;
            published.reloading = false;
            // What it said of itself while it lived is no reason for its end.
            if !matches!(end.cause, Cause::SpawnFailed | Cause::Health) {
                published.message = (end.cause == Cause::StartTimeout).then(|| match &refusal {
                    Some(refusal) => format!("it was not ready in time: {refusal}"),
                    None => "it was not ready in time".to_owned(),
                });
            }
            message = published.message.clone();
        });
        let Some(begun) = self.begun.take() else { return };
        let record = RunRecord {
            uuid: begun.uuid.clone(),
            pid: begun.pid,
            args: begun.launch.args.clone(),
            started_at: begun.started_at,
            ended_at: SystemTime::now(),
            lived: if begun.pid.is_some() { begun.started.elapsed() } else { Duration::ZERO },
            status: end.status,
            cause: end.cause,
            started_by: begun.origin,
            ended_by: end.by,
            message,
        };
        self.shared.reporter.report(&Notice::RunEnded { name: &self.spec.name, record: &record });
    }
}
