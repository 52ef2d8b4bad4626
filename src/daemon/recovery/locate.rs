//! Looking for the processes of an earlier daemon's runs: by descriptors that somebody kept, by PID and start time, by the marks in their
//! environment, by their control groups, and by what the kernel calls a process that has not executed its program yet.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::procfs::{self, Identity, Marked, Owner, Stat, Table, marked};
use crate::protocol::Signal;
use crate::store::RunRow;
use crate::subprocess::containment::{Groups, LeftGroup};
use crate::subprocess::spawn::{SPAWNER, unexecuted_name};
use crate::subprocess::tree::hold;
use crate::sys::pidfd::{ExitStatus, PidFd};

/// How long a process may take to execute its program. One that hangs before that (a working directory on a dead file server) is killed: nothing of it
/// has begun.
const UNEXECUTED: Duration = Duration::from_secs(2);
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(2);

/// What was found of the main process of a run.
#[derive(Debug)]
pub(super) enum Located {
    /// It is there, or waits to be reaped.
    Held(Identity, PidFd),
    /// It has ended; how, where anybody can tell.
    Ended(Option<ExitStatus>),
    /// Nothing says that there ever was one.
    Unseen,
}

/// Everything that was found.
#[derive(Debug)]
pub(super) struct Search {
    /// For each run, in the order that they were given in.
    pub(super) located: Vec<Located>,
    /// Processes with the daemon's mark, or in one of its groups, that belong to none of them, by the UUID of their run.
    pub(super) unknown: BTreeMap<String, Vec<Marked>>,
}

/// Looks for the processes of these runs, of the present boot. Blocks for some milliseconds, and for longer only where a process hangs.
///
/// # Errors
/// `/proc` cannot be read: then nobody can say what runs, and nothing must be started.
pub(super) fn search(rows: &[&RunRow], owner: &Owner, groups: Option<&Groups>, kept: &mut HashMap<String, OwnedFd>) -> io::Result<Search> {
    let table = settle(rows)?;
    let mut by_uuid: BTreeMap<String, Vec<Marked>> = BTreeMap::new();
    for process in marked(&table, owner) {
        by_uuid.entry(process.uuid.clone()).or_default().push(process);
    }
    contain(&table, groups.map_or_else(|| Ok(Vec::new()), |groups| groups.left())?, &mut by_uuid);
    let mut located = Vec::with_capacity(rows.len());
    for row in rows {
        let marks = by_uuid.remove(&row.uuid).unwrap_or_default();
        located.push(match kept.remove(&row.uuid).map(PidFd::kept) {
            Some(Ok(fd)) => match by_descriptor(fd)? {
                // What was kept may be a former main process, one that has named another one since.
                found if is_of_another(&found, row) => match by_record(row, &marks)? {
                    Located::Ended(None) => found,
                    recorded @ (Located::Held(..) | Located::Ended(Some(_)) | Located::Unseen) => recorded,
                },
                found => found,
            },
            Some(Err(error)) => {
                tracing::warn!(uuid = row.uuid, %error, "what was kept for this run is no descriptor of a process");
                by_record(row, &marks)?
            }
            None => by_record(row, &marks)?,
        });
    }
    Ok(Search { located, unknown: by_uuid })
}

/// Whether this may be another process than the one that is written down.
fn is_of_another(found: &Located, row: &RunRow) -> bool {
    let Some(process) = &row.process else { return false };
    match found {
        Located::Held(identity, _) => (identity.pid, identity.start_time) != (process.pid, process.start_time),
        Located::Ended(_) => true,
        Located::Unseen => false,
    }
}

/// Adds what lives in the groups of runs to those that bear their marks: a program may have been given another environment.
fn contain(table: &Table, groups: Vec<LeftGroup>, by_uuid: &mut BTreeMap<String, Vec<Marked>>) {
    let marks: HashMap<u32, String> =
        by_uuid.iter().flat_map(|(uuid, all)| all.iter().map(move |one| (one.stat.pid, uuid.clone()))).collect();
    for LeftGroup { name, uuid, pids } in groups {
        let lives = |pid: &u32| table.get(*pid).filter(|stat| !stat.is_dead() && marks.get(pid).is_none_or(|of| *of == uuid));
        let members: Vec<&Stat> = pids.iter().filter_map(lives).collect();
        if members.is_empty() {
            continue;
        }
        let known = by_uuid.entry(uuid.clone()).or_default();
        for process in &mut *known {
            process.is_contained = pids.binary_search(&process.stat.pid).is_ok();
        }
        // All that it forked came later, so the oldest that leads a session is the one that was started, or that one has ended.
        let leads = |stat: &&&Stat| u32::try_from(stat.session) == Ok(stat.pid) && pids.binary_search(&stat.ppid).is_err();
        let oldest = || members.iter().filter(leads).min_by_key(|stat| (stat.start_time, stat.pid)).map(|stat| stat.pid);
        let main = known.iter().find(|process| process.is_contained).map(|process| process.main).or_else(oldest).unwrap_or(0);
        for stat in members.into_iter().filter(|stat| !marks.contains_key(&stat.pid)) {
            known.push(Marked { stat: stat.clone(), uuid: uuid.clone(), main, name: name.clone(), is_program: false, is_contained: true });
        }
        known.sort_by_key(|process| process.stat.pid);
    }
}

fn by_descriptor(fd: PidFd) -> io::Result<Located> {
    let Some(pid) = fd.pid()? else { return Ok(Located::Ended(fd.exit_info())) };
    match procfs::read_stat(pid) {
        // It still is that process, if the descriptor says so after the file was read, too.
        Ok(stat) if fd.pid()? == Some(pid) => Ok(Located::Held(stat.identity(), fd)),
        Ok(_) => Ok(Located::Ended(fd.exit_info())),
        Err(error) if procfs::is_gone(&error) => Ok(Located::Ended(fd.exit_info())),
        Err(error) => Err(error),
    }
}

fn by_record(row: &RunRow, marks: &[Marked]) -> io::Result<Located> {
    let main = match &row.process {
        Some(process) => Some(Identity { pid: process.pid, start_time: process.start_time }),
        // Which one that is, nothing else tells: what a service forked away may lead a session, too, and be all that is left of the run.
        None => marks.iter().find(|process| process.stat.pid == process.main).map(|process| process.stat.identity()),
    };
    let Some(main) = main else { return Ok(Located::Unseen) };
    Ok(match hold(main)? {
        Some(fd) => Located::Held(main, fd),
        None => Located::Ended(None),
    })
}

/// The main process among the processes of a run of which nothing is written: the one that was started, or else, as a service may have forked away from
/// that one and have named another one, the one that leads a session and is below none of the others; the oldest where several do.
pub(super) fn main_of(processes: &[Marked]) -> Option<&Stat> {
    if let Some(started) = processes.iter().find(|process| process.stat.pid == process.main) {
        return Some(&started.stat);
    }
    let pids: BTreeSet<u32> = processes.iter().map(|process| process.stat.pid).collect();
    let leads = |stat: &&Stat| u32::try_from(stat.session) == Ok(stat.pid) && !pids.contains(&stat.ppid);
    processes.iter().map(|process| &process.stat).filter(leads).min_by_key(|stat| (stat.start_time, stat.pid))
}

/// A table of all processes in which none of these runs stands before its program: what has not executed that yet bears no mark.
fn settle(rows: &[&RunRow]) -> io::Result<Table> {
    let names: BTreeSet<String> = rows.iter().filter(|row| row.process.is_none()).map(|row| unexecuted_name(&row.uuid)).collect();
    let began = Instant::now();
    loop {
        let table = Table::scan()?;
        if names.is_empty() {
            return Ok(table);
        }
        let is_ours = |stat: &&Stat| !stat.is_dead() && (names.contains(&stat.name()) || is_nameless(&table, stat));
        let waiting: Vec<&Stat> = table.iter().filter(is_ours).collect();
        if waiting.is_empty() {
            return Ok(table);
        }
        if began.elapsed() > UNEXECUTED {
            for stat in waiting.iter().filter(|stat| names.contains(&stat.name())) {
                tracing::warn!(pid = stat.pid, "a process that an earlier daemon was starting hangs before its program, it is killed");
                if let Some(fd) = hold(stat.identity())? {
                    drop(fd.send_signal(Signal::KILL.number()));
                }
            }
            if began.elapsed() > 2 * UNEXECUTED {
                return Ok(table);
            }
        }
        std::thread::park_timeout(PAUSE);
    }
}

/// Whether this process is at its very first instructions, made by a daemon that is gone: it is called like the thread that made it.
fn is_nameless(table: &Table, stat: &Stat) -> bool {
    *stat.comm == *SPAWNER.as_bytes() && table.get(stat.ppid).is_none_or(|parent| *parent.comm != *b"procmand")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn process(pid: u32, ppid: u32, session: i32, start_time: u64) -> Marked {
        let line = format!("{pid} (x) S {ppid} {pid} {session} 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {start_time} 0 0 0");
        Marked {
            stat: Stat::parse(line.as_bytes()).unwrap(),
            uuid: "u".into(),
            main: 7,
            name: "web".into(),
            is_program: false,
            is_contained: false,
        }
    }

    #[test]
    fn a_descriptor_of_a_former_main_process_says_nothing_of_the_recorded_one() {
        let spawn = |program: &str, word: &str| std::process::Command::new(program).arg(word).spawn().unwrap();
        let (mut former, mut present) = (spawn("true", ""), spawn("sleep", "1000"));
        let kept = PidFd::open(former.id()).unwrap().as_fd().try_clone_to_owned().unwrap();
        former.wait().unwrap();
        let identity = procfs::read_stat(present.id()).unwrap().identity();
        let row = |process: Option<Identity>| RunRow {
            uuid: "u".into(),
            name: "web".parse().unwrap(),
            args: vec![],
            env: BTreeMap::new(),
            started_by: crate::protocol::Origin::Execute,
            boot_id: "now".into(),
            intended_at: 1.0,
            monotonic: 1,
            start_sum: None,
            process: process.map(|main| super::super::decide::process_row(main, Instant::now(), std::time::SystemTime::now())),
            ready: true,
            ending: None,
        };
        let owner = Owner::new("0-0", std::path::Path::new("/nowhere"));
        let look = |row: &RunRow| {
            let mut kept = HashMap::from([("u".to_owned(), kept.try_clone().unwrap())]);
            search(&[row], &owner, None, &mut kept).unwrap().located.remove(0)
        };
        assert!(matches!(look(&row(Some(identity))), Located::Held(found, _) if found == identity));
        assert!(matches!(look(&row(None)), Located::Ended(_)), "nothing else is known");
        present.kill().unwrap();
        present.wait().unwrap();
        assert!(matches!(look(&row(Some(identity))), Located::Ended(_)));
    }

    #[test]
    fn what_a_group_holds_is_of_its_run_whatever_its_environment_says() {
        let line = |pid: u32, ppid: u32, session: u32, start: u32| {
            Stat::parse(format!("{pid} (x) S {ppid} {pid} {session} 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {start} 0 0 0").as_bytes()).unwrap()
        };
        let table = Table::new(vec![line(10, 1, 10, 5), line(11, 10, 10, 6), line(12, 1, 12, 7), line(20, 1, 20, 5), line(30, 1, 30, 5)]);
        let group = |uuid: &str, pids: &[u32]| LeftGroup { name: "web".into(), uuid: uuid.into(), pids: pids.to_vec() };
        let mut by_uuid = BTreeMap::from([(
            "other".to_owned(),
            vec![Marked { uuid: "other".into(), stat: line(20, 1, 20, 5), ..process(20, 1, 20, 5) }],
        )]);
        contain(&table, vec![group("bare", &[10, 11, 12, 20]), group("other", &[20, 30]), group("gone", &[99])], &mut by_uuid);
        let pids = |uuid: &str| by_uuid[uuid].iter().map(|one| (one.stat.pid, one.main, one.is_contained)).collect::<Vec<_>>();
        assert_eq!(pids("bare"), [(10, 10, true), (11, 10, true), (12, 10, true)], "who bears another run's mark is that one's");
        assert_eq!(pids("other"), [(20, 7, true), (30, 7, true)], "the mark says who was started");
        assert!(!by_uuid.contains_key("gone"));
    }

    #[test]
    fn the_main_process_leads_its_session_and_is_below_no_other() {
        let main = |processes: &[Marked]| main_of(processes).map(|stat| stat.pid);
        assert_eq!(main(&[]), None);
        let tree = [process(12, 11, 11, 5), process(11, 1, 11, 4), process(13, 1, 11, 6), process(14, 12, 14, 3)];
        assert_eq!(main(&tree), Some(11));
        assert_eq!(main(&tree[2..3]), None, "what it left behind is no main");
        assert_eq!(main(&[process(20, 1, 20, 9), process(19, 1, 19, 10)]), Some(20), "the oldest, whatever the numbers");
        assert_eq!(main(&[process(20, 1, 20, 9), process(7, 3, 3, 10)]), Some(7), "the one that was started, whatever it leads");
    }
}
