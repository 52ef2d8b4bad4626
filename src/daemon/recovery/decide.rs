//! What the records of an earlier daemon say, decided purely.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant, SystemTime};

use crate::procfs::{self, Identity};
use crate::protocol::reply::PastRun;
use crate::protocol::{Cause, EndedBy, Name, StateName, Wanted};
use crate::store::{EndingRow, Farewell, ProcessRow, Recovered, RunChange, RunRow, StandingRow};
use crate::subprocess::adopt::LastRun;
use crate::subprocess::machine::End;
use crate::subprocess::published::unix_seconds;
use crate::subprocess::restart::Restarts;
use crate::sys::pidfd::ExitStatus;

/// What this daemon knows by itself.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) registered: BTreeSet<Name>,
    /// Those of them that start when a daemon starts.
    pub(super) autostart: BTreeSet<Name>,
    /// Names, of one or of all its instances, that something is written for that cannot be registered at the moment.
    pub(super) unregistered: BTreeSet<Name>,
    pub(super) boot_id: String,
}

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Decision {
    /// One run at most for each sub-process: it may live.
    pub(super) current: Vec<CurrentRun>,
    /// Runs that may live and that no sub-process is there for.
    pub(super) remnants: Vec<Remnant>,
    /// Runs that may live and whose sub-process is not there at the moment, as far as anybody can tell: its definition cannot be registered, or was
    /// lost with the database.
    pub(super) orphaned: Vec<RunRow>,
    /// Runs of a former boot, which are over.
    pub(super) former_boot: Vec<RunRow>,
    /// The others.
    pub(super) at_rest: BTreeMap<Name, Rest>,
    /// What is to be started, unless a process of it is found.
    pub(super) start: BTreeSet<Name>,
}

/// A run that may live.
#[derive(Debug)]
pub(super) struct CurrentRun {
    pub(super) row: RunRow,
    /// How its main process ended, where that is recorded.
    pub(super) recorded: Option<(End, Option<String>)>,
    /// How it is to be ended.
    pub(super) ending: Option<EndingRow>,
    pub(super) restarts: Restarts,
}

/// A run that is nobody's: what is left of it is ended.
#[derive(Debug)]
pub(super) struct Remnant {
    pub(super) row: RunRow,
    pub(super) why: Why,
}

/// Why a run is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Its end is recorded. The daemon was killed while it ended what its main process had left, or before it had written that this was done.
    Over,
    /// Its sub-process has a newer run. How this one ended could not be written down.
    Superseded,
    /// Its sub-process has no definition any more.
    Unregistered,
}

/// Where one rests.
#[derive(Debug)]
pub(super) struct Rest {
    pub(super) state: StateName,
    pub(super) last: Option<LastRun>,
    pub(super) restarts: Restarts,
}

/// Decides from the records alone. What runs is looked for afterwards.
pub(super) fn decide(recovered: Recovered, known: &Known) -> Decision {
    let Recovered { runs, standings, history, farewell, .. } = recovered;
    let mut decision = Decision::default();
    let (mut present, former_boot): (Vec<RunRow>, Vec<RunRow>) = runs.into_iter().partition(|row| row.boot_id == known.boot_id);
    decision.former_boot = former_boot;
    let last: BTreeMap<&Name, &PastRun> = history.iter().map(|run| (&run.name, run)).collect();
    let ends: HashMap<&str, &PastRun> = history.iter().map(|run| (run.uuid.as_str(), run)).collect();
    let standings: BTreeMap<Name, StandingRow> = standings.into_iter().map(|standing| (standing.name.clone(), standing)).collect();
    // After a daemon that has quit everything, and after a boot, everything begins anew. Where nobody knows which boot it was (that was lost, or never
    // written), whatever lives is of this one.
    let is_former_boot = recovered.boot_id.is_some_and(|boot_id| boot_id != known.boot_id);
    let goes_on = farewell != Some(Farewell::Quit) && !is_former_boot;
    let was_quitting = farewell == Some(Farewell::Quit) && !is_former_boot;
    // What was lost with the database is no decision of anybody's.
    let is_sound = recovered.set_aside.is_none();
    let is_written = |name: &Name| {
        let of_all = name.as_str().split_once('@').map_or(name.as_str(), |(of_all, _)| of_all);
        known.unregistered.contains(name) || known.unregistered.iter().any(|name| name.as_str() == of_all)
    };

    present.sort_by(|a, b| a.monotonic.cmp(&b.monotonic).then(a.intended_at.total_cmp(&b.intended_at)));
    let mut newest: BTreeMap<Name, RunRow> = BTreeMap::new();
    for row in present {
        let (row, otherwise) = if !known.registered.contains(&row.name) {
            (row, Why::Unregistered)
        } else if let Some(older) = newest.insert(row.name.clone(), row) {
            (older, Why::Superseded)
        } else {
            continue;
        };
        let why = if ends.contains_key(row.uuid.as_str()) { Why::Over } else { otherwise };
        if why == Why::Unregistered && (!is_sound || is_written(&row.name)) {
            decision.orphaned.push(row);
        } else {
            decision.remnants.push(Remnant { row, why });
        }
    }
    for name in &known.registered {
        let standing = standings.get(name).filter(|_| goes_on);
        let restarts = standing.map_or_else(Restarts::default, |standing| Restarts::counted(standing.restarts, standing.attempt));
        if let Some(row) = newest.remove(name) {
            let recorded = ends.get(row.uuid.as_str()).map(|run| (end_of(run), run.message.clone()));
            // One that was left running by a daemon that was quitting everything is quit, and what starts with the daemon starts after that.
            let ending = if was_quitting {
                Some(EndingRow { by: EndedBy::Shutdown, then_start: known.autostart.contains(name) })
            } else {
                row.ending.clone()
            };
            decision.current.push(CurrentRun { row, recorded, ending, restarts });
            continue;
        }
        let state = standing.map_or(StateName::Stopped, |standing| standing.state);
        let start = match standing {
            // A daemon that goes on starts what is new in its configuration.
            None => known.autostart.contains(name),
            Some(standing) => standing.wanted == Wanted::Up && may_be_on_its_way(standing.state),
        };
        if start {
            decision.start.insert(name.clone());
        }
        decision.at_rest.insert(name.clone(), Rest { state, last: last.get(name).map(|run| last_run(run)), restarts });
    }
    decision
}

/// Whether a sub-process in this state, which is wanted up, has a process or is about to get one: one that is stopped was to be started by a daemon that
/// did not come so far.
fn may_be_on_its_way(state: StateName) -> bool {
    match state {
        StateName::Stopped | StateName::Starting | StateName::Running | StateName::Stopping | StateName::Backoff => true,
        StateName::Exited | StateName::Fatal | StateName::Lost => false,
    }
}

fn end_of(run: &PastRun) -> End {
    let status = match (run.signal, run.returncode) {
        (Some(signal), _) => Some(ExitStatus::Signalled { signal, core: run.core_dump }),
        (None, Some(code)) => Some(ExitStatus::Exited(code)),
        (None, None) => None,
    };
    let lived = Duration::try_from_secs_f64(run.duration).unwrap_or_default();
    End { status, cause: run.cause, by: run.ended_by, lived, unready: false }
}

fn last_run(run: &PastRun) -> LastRun {
    let started_at = super::at(run.started_at);
    let age = SystemTime::now().duration_since(started_at).unwrap_or_default();
    let started = Instant::now().checked_sub(age).unwrap_or_else(Instant::now);
    LastRun { uuid: run.uuid.clone(), started, started_at, end: end_of(run), message: run.message.clone() }
}

/// What is written of a process that was found.
pub(super) fn started(main: Identity, started: Instant, started_at: SystemTime) -> RunChange {
    RunChange::Started(process_row(main, started, started_at))
}

pub(super) fn process_row(main: Identity, started: Instant, started_at: SystemTime) -> ProcessRow {
    ProcessRow {
        pid: main.pid,
        start_time: main.start_time,
        started_at: unix_seconds(started_at),
        monotonic: procfs::nanoseconds_at(started),
        notify: false,
    }
}

/// The record of a run that was ended because it was nobody's, or had ended when it was found (`lived` is false); none where there is one already.
pub(super) fn remnant_record(remnant: &Remnant, lived: bool, status: Option<ExitStatus>, now: SystemTime) -> Option<PastRun> {
    let (by, message) = match remnant.why {
        Why::Over => return None,
        Why::Superseded => (EndedBy::Restart, Some("the daemon could not write down how it ended, and has started a newer one")),
        // It was unregistered, if somebody has asked for that.
        Why::Unregistered if remnant.row.ending.as_ref().is_some_and(|ending| ending.by == EndedBy::Unregister) => {
            (EndedBy::Unregister, None)
        }
        Why::Unregistered => (EndedBy::Unregister, Some("nobody defined it any more when the daemon started")),
    };
    let run = record(&remnant.row, status, lasted(&remnant.row), now);
    let run = if lived { PastRun { cause: Cause::Quit, ended_by: by, ..run } } else { run };
    Some(PastRun { message: message.map(str::to_owned), ..run })
}

/// The record of a run whose sub-process is not there, and that has ended.
pub(super) fn lost_meanwhile(row: &RunRow, status: Option<ExitStatus>, now: SystemTime) -> PastRun {
    record(row, status, lasted(row), now)
}

/// The record of a run that a boot of the host has ended.
pub(super) fn lost_by_boot(row: &RunRow, now: SystemTime) -> PastRun {
    let started_at = row.process.as_ref().map_or(row.intended_at, |process| process.started_at);
    let lasted = (unix_seconds(now) - started_at).max(0.0); // no clock goes through a boot but the one on the wall
    PastRun {
        message: Some("the host was started anew, or the daemon was moved to another one".to_owned()),
        ..record(row, None, lasted, now)
    }
}

/// Seconds since it was started, in this boot.
fn lasted(row: &RunRow) -> f64 {
    let since = row.process.as_ref().map_or(row.monotonic, |process| process.monotonic);
    procfs::monotonic().saturating_sub(Duration::from_nanos(since)).as_secs_f64()
}

fn record(row: &RunRow, status: Option<ExitStatus>, lasted: f64, now: SystemTime) -> PastRun {
    PastRun {
        name: row.name.clone(),
        uuid: row.uuid.clone(),
        pid: row.process.as_ref().map(|process| process.pid),
        args: row.args.clone(),
        started_at: row.process.as_ref().map_or(row.intended_at, |process| process.started_at),
        ended_at: unix_seconds(now),
        returncode: status.map(ExitStatus::returncode),
        signal: status.and_then(ExitStatus::signal),
        cause: match status {
            None => Cause::Lost,
            Some(ExitStatus::Exited(_)) => Cause::Exit,
            Some(ExitStatus::Signalled { core: true, .. }) => Cause::CoreDump,
            Some(ExitStatus::Signalled { core: false, .. }) => Cause::Signal,
        },
        duration: lasted,
        core_dump: matches!(status, Some(ExitStatus::Signalled { core: true, .. })),
        started_by: row.started_by,
        ended_by: EndedBy::Itself,
        message: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Origin;
    use crate::store::SetAside;
    use proptest::prelude::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn row(of: &str, uuid: &str, intended_at: f64) -> RunRow {
        RunRow {
            uuid: uuid.into(),
            name: name(of),
            args: vec![],
            env: BTreeMap::new(),
            started_by: Origin::Execute,
            boot_id: "now".into(),
            intended_at,
            monotonic: (intended_at * 1e9) as u64,
            start_sum: None,
            process: Some(ProcessRow { pid: 7, start_time: 8, started_at: intended_at, monotonic: 9, notify: false }),
            ready: true,
            ending: None,
        }
    }

    fn standing(of: &str, state: StateName, wanted: Wanted) -> StandingRow {
        StandingRow { name: name(of), state, wanted, restarts: 3, attempt: 2, scheduled: None }
    }

    fn known(registered: &[&str], autostart: &[&str]) -> Known {
        let names = |list: &[&str]| list.iter().map(|text| name(text)).collect();
        Known { registered: names(registered), autostart: names(autostart), unregistered: BTreeSet::new(), boot_id: "now".into() }
    }

    fn left(farewell: Option<Farewell>) -> Recovered {
        Recovered { farewell, boot_id: Some("now".into()), ..Recovered::default() }
    }

    fn names(set: &BTreeSet<Name>) -> Vec<&str> {
        set.iter().map(Name::as_str).collect()
    }

    #[test]
    fn what_an_operator_stopped_stays_stopped_after_a_crash_and_begins_anew_after_a_farewell() {
        let standings = vec![
            standing("stopped", StateName::Stopped, Wanted::Down),
            standing("waits", StateName::Backoff, Wanted::Up),
            standing("gave-up", StateName::Fatal, Wanted::Up),
            standing("begun", StateName::Starting, Wanted::Up),
            standing("its-turn", StateName::Stopped, Wanted::Up),
        ];
        let all = ["stopped", "waits", "gave-up", "begun", "its-turn", "new", "new-by-hand"];
        let known = known(&all, &["stopped", "waits", "gave-up", "new"]);
        let killed = decide(Recovered { standings: standings.clone(), ..left(None) }, &known);
        assert_eq!(names(&killed.start), ["begun", "its-turn", "new", "waits"]);
        assert_eq!(killed.at_rest[&name("gave-up")].state, StateName::Fatal);
        assert_eq!(killed.at_rest[&name("waits")].restarts, Restarts::counted(3, 2));
        let kept = decide(Recovered { standings: standings.clone(), ..left(Some(Farewell::Kept)) }, &known);
        assert_eq!(kept.start, killed.start);
        // Nobody knows of a boot in between.
        let unknown = decide(Recovered { standings: standings.clone(), ..Recovered::default() }, &known);
        assert_eq!(unknown.start, killed.start);
        for anew in [left(Some(Farewell::Quit)), Recovered { boot_id: Some("before".into()), ..left(None) }] {
            let decision = decide(Recovered { standings: standings.clone(), ..anew }, &known);
            assert_eq!(names(&decision.start), ["gave-up", "new", "stopped", "waits"], "as the configuration says");
            assert!(decision.at_rest.values().all(|rest| rest.state == StateName::Stopped));
        }
    }

    #[test]
    fn a_run_is_somebodys_or_a_remnant_and_of_a_former_boot_nothing_is_believed() {
        let old = RunRow { boot_id: "before".into(), ..row("web", "0", 1.0) };
        let runs = vec![row("web", "2", 3.0), row("web", "1", 2.0), row("gone", "3", 4.0), old];
        let decision = decide(Recovered { runs, ..left(None) }, &known(&["web", "other"], &["web"]));
        let remnants: Vec<(&str, Why)> = decision.remnants.iter().map(|remnant| (&*remnant.row.uuid, remnant.why)).collect();
        assert_eq!(decision.current.iter().map(|run| &*run.row.uuid).collect::<Vec<_>>(), ["2"]);
        assert_eq!(remnants, [("1", Why::Superseded), ("3", Why::Unregistered)]);
        assert_eq!(decision.former_boot.iter().map(|row| &*row.uuid).collect::<Vec<_>>(), ["0"]);
        assert!(decision.start.is_empty(), "what may live is not started");
    }

    #[test]
    fn the_newer_run_is_the_one_that_was_begun_later_whatever_the_clock_was_set_to() {
        let earlier = RunRow { monotonic: 1, ..row("web", "1", 1_764_003_600.0) };
        let later = RunRow { monotonic: 2, ..row("web", "2", 1_764_000_000.0) };
        let decision = decide(Recovered { runs: vec![later, earlier], ..left(None) }, &known(&["web"], &[]));
        assert_eq!((&*decision.current[0].row.uuid, &*decision.remnants[0].row.uuid), ("2", "1"));
    }

    #[test]
    fn an_end_that_is_recorded_is_not_told_twice() {
        let quit = |uuid, intended_at, status| {
            remnant_record(&Remnant { row: row("web", uuid, intended_at), why: Why::Unregistered }, true, status, SystemTime::UNIX_EPOCH)
                .unwrap()
        };
        let run = quit("1", 2.0, Some(ExitStatus::Signalled { signal: 6, core: true }));
        let decision = decide(Recovered { runs: vec![row("web", "1", 2.0)], history: vec![run], ..left(None) }, &known(&["web"], &[]));
        let (end, message) = decision.current[0].recorded.clone().unwrap();
        assert_eq!(end.status, Some(ExitStatus::Signalled { signal: 6, core: true }));
        assert!(message.is_some());
        // Of another run it says nothing.
        let run = quit("0", 1.0, None);
        let decision = decide(Recovered { runs: vec![row("web", "1", 2.0)], history: vec![run], ..left(None) }, &known(&["web"], &[]));
        assert!(decision.current[0].recorded.is_none());
    }

    #[test]
    fn a_run_whose_end_is_recorded_is_over_whoever_has_come_after_it() {
        let history = ["1", "3"].map(|uuid| {
            remnant_record(&Remnant { row: row("web", uuid, 1.0), why: Why::Superseded }, false, None, SystemTime::UNIX_EPOCH).unwrap()
        });
        let runs = vec![row("web", "1", 2.0), row("web", "2", 3.0), row("gone", "3", 4.0)];
        let decision = decide(Recovered { runs, history: history.into(), ..left(None) }, &known(&["web"], &[]));
        assert!(decision.current[0].recorded.is_none() && decision.current[0].row.uuid == "2");
        assert_eq!(
            decision.remnants.iter().map(|remnant| (&*remnant.row.uuid, remnant.why)).collect::<Vec<_>>(),
            [("1", Why::Over), ("3", Why::Over)]
        );
        assert!(
            decision.remnants.iter().all(|remnant| remnant_record(remnant, true, None, SystemTime::UNIX_EPOCH).is_none()),
            "it is not told twice"
        );
    }

    #[test]
    fn who_was_killed_while_it_quit_everything_quits_what_is_left_and_begins_anew() {
        let runs = vec![row("web", "1", 2.0), row("other", "2", 2.0)];
        let decision = decide(Recovered { runs, ..left(Some(Farewell::Quit)) }, &known(&["web", "other"], &["web"]));
        let ending = |at: usize| decision.current[at].ending.clone().unwrap();
        assert_eq!(ending(0), EndingRow { by: EndedBy::Shutdown, then_start: false });
        assert_eq!(ending(1), EndingRow { by: EndedBy::Shutdown, then_start: true });
    }

    #[test]
    fn a_boot_that_nobody_knows_of_ends_nothing() {
        for boot_id in [None, Some("before".to_owned())] {
            for farewell in [None, Some(Farewell::Kept)] {
                let recovered = Recovered { runs: vec![row("web", "1", 2.0)], boot_id: boot_id.clone(), ..left(farewell) };
                let decision = decide(recovered, &known(&["web"], &["web"]));
                assert_eq!(decision.current[0].ending, None, "{boot_id:?} {farewell:?}: it is a run of this boot");
            }
        }
    }

    #[test]
    fn only_who_is_gone_for_certain_is_a_remnant() {
        let runs = || vec![row("web", "1", 2.0), row("other@2", "2", 2.0)];
        let why = |decision: &Decision| decision.remnants.iter().map(|remnant| remnant.why).collect::<Vec<_>>();
        let decision = decide(Recovered { runs: runs(), ..left(None) }, &known(&[], &[]));
        assert_eq!((why(&decision), decision.orphaned.len()), (vec![Why::Unregistered; 2], 0));
        // Their definitions may have been lost with the database.
        let set_aside = Some(SetAside { path: "/db".into(), problem: "damaged".into(), salvaged: 2, unreadable: 1 });
        let decision = decide(Recovered { runs: runs(), set_aside, ..left(None) }, &known(&[], &[]));
        assert_eq!((why(&decision), decision.orphaned.len()), (vec![], 2));
        // Their definitions cannot be registered just now.
        let known = Known { unregistered: BTreeSet::from([name("other")]), ..known(&[], &[]) };
        let decision = decide(Recovered { runs: runs(), ..left(None) }, &known);
        assert_eq!((why(&decision), &*decision.orphaned[0].uuid), (vec![Why::Unregistered], "2"));
    }

    proptest! {
        #[test]
        fn whatever_was_written_nothing_is_two_things(
            runs in prop::collection::vec((0..5_usize, any::<bool>(), 0.0..9.0_f64), 0..12),
            states in prop::collection::vec((0..5_usize, 0..StateName::ALL.len(), any::<bool>()), 0..6),
            registered in prop::collection::btree_set(0..5_usize, 0..5), autostart in prop::collection::btree_set(0..5_usize, 0..5), farewell in 0..3_usize,
        ) {
            let text = |n: usize| format!("p{n}");
            let runs: Vec<RunRow> = runs.iter().enumerate().map(|(at, (n, present, when))| RunRow {
                boot_id: if *present { "now" } else { "before" }.into(), ..row(&text(*n), &at.to_string(), *when)
            }).collect();
            let standings = states.iter().map(|(n, state, up)| {
                standing(&text(*n), StateName::ALL[*state], if *up { Wanted::Up } else { Wanted::Down })
            }).collect();
            let farewell = [None, Some(Farewell::Quit), Some(Farewell::Kept)][farewell];
            let known = Known {
                registered: registered.iter().map(|n| name(&text(*n))).collect(),
                autostart: autostart.intersection(&registered).map(|n| name(&text(*n))).collect(),
                unregistered: BTreeSet::new(),
                boot_id: "now".into(),
            };
            let count = runs.len();
            let decision = decide(Recovered { runs, standings, ..left(farewell) }, &known);
            prop_assert_eq!(decision.current.len() + decision.remnants.len() + decision.orphaned.len() + decision.former_boot.len(), count, "no run is forgotten");
            let current: BTreeSet<&Name> = decision.current.iter().map(|run| &run.row.name).collect();
            prop_assert_eq!(current.len(), decision.current.len(), "one for each");
            for name in &known.registered {
                prop_assert!(current.contains(name) != decision.at_rest.contains_key(name), "{} is one or the other", name);
            }
            prop_assert!(decision.start.iter().all(|name| known.registered.contains(name) && !current.contains(name)));
        }
    }
}
