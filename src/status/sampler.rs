//! Reads one process.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::parse;
use super::share::{GroupShare, Share};
use crate::procfs::clock::create_time;
use crate::procfs::{Identity, Look, ProcessDir, Stat, clock_ticks, is_gone, page_size, since_boot};
use crate::protocol::reply::{Cpu, Io, Memory, ProcessStatus, Tree};
use crate::sys::cgroup::Group;

/// Who counts as the rest of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The members of the run.
    Run,
    /// All descendants: for the daemon itself.
    Descendants,
}

/// Reads the status of one process, again and again.
///
/// One descriptor is kept, on its directory; what keeping more would cost and save is told at [`ProcessDir`]. A sample costs about 31 µs
/// on an idle machine: `smaps_rollup` 20 µs (the kernel walks the page tables, so more for a large process), `status` 5, `stat` 3, `io` 3,
/// counting descriptors 1.
#[derive(Debug)]
pub(super) struct Sampler {
    identity: Identity,
    uuid: Box<str>,
    scope: Scope,
    /// Opened for the first sample and closed when the process is gone.
    dir: Option<ProcessDir>,
    share: Share,
    rest_share: GroupShare,
    /// The rest of the tree when it was last seen.
    rest: Tree,
    /// What counts for the whole tree, those included that have ended meanwhile.
    group: Option<Arc<Group>>,
    group_share: Share,
    /// Whether its memory is counted, as far as is known.
    has_memory: bool,
}

impl Sampler {
    pub(super) fn new(uuid: &str, identity: Identity, scope: Scope) -> Self {
        let (share, rest_share) = (Share::default(), GroupShare::default());
        let group_share = Share::default();
        Self {
            identity,
            uuid: uuid.into(),
            scope,
            dir: None,
            share,
            rest_share,
            rest: Tree::default(),
            group: None,
            group_share,
            has_memory: true,
        }
    }

    /// With this control group for the whole tree.
    pub(super) fn counted_by(self, group: Option<Arc<Group>>) -> Self {
        Self { group, ..self }
    }

    /// Reads the process; `None` when it has ended, be it a zombie still. The rest of its tree is taken from `look`.
    ///
    /// # Errors
    /// What has nothing to do with this process, such as EMFILE.
    pub(super) fn sample(
        &mut self,
        look: Option<&Arc<Look>>,
        moves_baseline: bool,
        buffer: &mut Vec<u8>,
    ) -> io::Result<Option<ProcessStatus>> {
        let own = match self.read(moves_baseline, buffer) {
            Ok(Some(own)) => own,
            Ok(None) => return Ok(self.close()),
            Err(error) if is_gone(&error) => return Ok(self.close()),
            Err(error) => return Err(error),
        };
        if let Some(look) = look {
            self.rest = self.rest_of_tree(look, moves_baseline);
        }
        let mut tree = Tree {
            processes: 1 + self.rest.processes,
            rss: own.memory.rss + self.rest.rss,
            cpu_percent: own.cpu.percent + self.rest.cpu_percent,
            memory: None,
            memory_peak: None,
        };
        if let Some(group) = &self.group {
            if let Ok(used) = group.cpu_time() {
                let ticks = u64::try_from(used.as_micros()).unwrap_or(u64::MAX) / (1_000_000 / clock_ticks().max(1)).max(1);
                tree.cpu_percent = self.group_share.reckon(Instant::now(), ticks, moves_baseline);
            }
            // Without the controller the files never come to be there.
            if self.has_memory {
                (tree.memory, tree.memory_peak) = (group.memory_current(), group.memory_peak());
                self.has_memory = tree.memory.is_some();
            }
        }
        Ok(Some(ProcessStatus { tree, ..own }))
    }

    fn close<T>(&mut self) -> Option<T> {
        self.dir = None;
        None
    }

    /// Everything but the tree.
    fn read(&mut self, moves_baseline: bool, buffer: &mut Vec<u8>) -> io::Result<Option<ProcessStatus>> {
        let dir = match &self.dir {
            Some(dir) => dir,
            None => self.dir.insert(ProcessDir::open(self.identity)?),
        };
        let now = Instant::now();
        let stat = dir.stat(buffer)?;
        if stat.is_zombie() {
            return Ok(None);
        }
        // RSS from here and not from `stat`, where newer kernels are some pages out; it is what psutil shows (statm), in every kernel.
        let status = parse::status(dir.read("status", buffer)?);
        let uss = shown(dir.read("smaps_rollup", buffer))?.map(parse::unique_set_size);
        let io = shown(dir.read("io", buffer))?.map_or_else(Io::default, parse::io);
        let fds = shown(dir.count_fds())?;
        // One that is ending has lost its memory before it counts as a zombie: no status with holes for it.
        if uss.is_none() && dir.stat(buffer)?.is_zombie() {
            return Ok(None);
        }
        let seconds = |ticks: u64| ticks as f64 / clock_ticks() as f64;
        Ok(Some(ProcessStatus {
            pid: self.identity.pid,
            uuid: self.uuid.as_ref().to_owned(),
            create_time: create_time(stat.start_time),
            uptime: (since_boot().as_secs_f64() - seconds(stat.start_time)).max(0.0),
            memory: Memory { rss: status.rss, uss, vms: status.vms, swap: status.swap },
            cpu: Cpu {
                percent: self.share.reckon(now, stat.ticks(), moves_baseline),
                user: seconds(stat.utime),
                system: seconds(stat.stime),
                count: physical_cores(),
            },
            threads: stat.threads,
            fds,
            io,
            context_switches: status.context_switches,
            tree: Tree::default(),
        }))
    }

    fn rest_of_tree(&mut self, look: &Arc<Look>, moves_baseline: bool) -> Tree {
        let mut rest: Vec<&Stat> = match self.scope {
            Scope::Run => look.members(&self.uuid),
            Scope::Descendants => look.table().descendants_of(self.identity.pid),
        };
        rest.retain(|stat| stat.identity() != self.identity);
        Tree {
            processes: rest.len() as u64,
            rss: rest.iter().map(|stat| stat.rss_pages.saturating_mul(page_size())).fold(0, u64::saturating_add),
            cpu_percent: self.rest_share.reckon(look, &rest, moves_baseline),
            ..Tree::default()
        }
    }

    /// Takes another directory for the process's, so that a test can hold it up.
    #[cfg(test)]
    pub(super) fn pretend(&mut self, path: &str) {
        self.dir = Some(ProcessDir::pretend(path, self.identity).unwrap());
    }
}

/// `None` for what the kernel does not show of this process: another user's memory map and traffic (EACCES), files that it was built without
/// (ENOENT), the memory of one that is ending (ESRCH).
fn shown<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_gone(&error) || matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Physical cores of the host, read once; `None` where the kernel does not tell.
fn physical_cores() -> Option<u32> {
    static CORES: OnceLock<Option<u32>> = OnceLock::new();
    *CORES.get_or_init(|| u32::try_from(sysinfo::System::physical_core_count().ok()?).ok().filter(|&count| count > 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::procfs::testing::TestProcess;
    use crate::procfs::{Forest, read_stat};

    fn sampler(process: &TestProcess) -> Sampler {
        Sampler::new("some-uuid", read_stat(process.id()).unwrap().identity(), Scope::Run)
    }

    /// Has allocated, burnt processor time, written and opened something, and idles until its input ends.
    const WORKER: &str = "
import sys, time, threading
memory = bytearray(30 << 20)
memory[::4096] = bytes(len(memory[::4096]))
while time.process_time() < 0.25: pass
files = [open('/dev/null') for _ in range(7)]
threading.Thread(target=sys.stdin.read).start()
time.sleep(0.01)
print('ready', flush=True)
";

    const PSUTIL: &str = "
import json, psutil, sys
p = psutil.Process(PID)
m, c, s = p.memory_full_info(), p.cpu_times(), p.num_ctx_switches()
io = p.io_counters()
print('ready', flush=True)
print(json.dumps([p.create_time(), m.rss, m.uss, m.vms, m.swap, c.user, c.system, p.num_threads(), p.num_fds(),
    io.read_bytes, io.write_bytes, s.voluntary, s.involuntary, psutil.cpu_count(logical=False)]), flush=True)
sys.stdin.read()
";

    #[test]
    fn the_status_agrees_with_psutil() {
        let worker = TestProcess::python(WORKER);
        let mut sampler = sampler(&worker);
        let mut sample = || sampler.sample(None, true, &mut Vec::new()).unwrap().unwrap();
        let (mut ours, mut theirs) = (sample(), Vec::new());
        crate::procfs::testing::until(|| {
            // It lives until we have sampled too: as long as it does, both share the pages of the same Python, which are then not unique.
            let mut psutil = TestProcess::python(&PSUTIL.replace("PID", &worker.id().to_string()));
            theirs = serde_json::from_str::<Vec<Option<f64>>>(&psutil.hear()).unwrap();
            let before = std::mem::replace(&mut ours, sample());
            before.context_switches == ours.context_switches // the worker did not run meanwhile: both have read the same
        });
        let theirs = |place: usize| theirs[place].unwrap();

        let within =
            |what: &str, ours: f64, theirs: f64, most: f64| assert!((ours - theirs).abs() <= most, "{what}: {ours} against {theirs}");
        let tick = 1.0 / clock_ticks() as f64 + 1e-9;
        within("create_time", ours.create_time, theirs(0), 0.020);
        within("rss", ours.memory.rss as f64, theirs(1), theirs(1) * 0.01);
        within("uss", ours.memory.uss.unwrap() as f64, theirs(2), theirs(2) * 0.01);
        within("vms", ours.memory.vms as f64, theirs(3), 0.0);
        within("swap", ours.memory.swap as f64, theirs(4), 0.0);
        within("user", ours.cpu.user, theirs(5), tick);
        within("system", ours.cpu.system, theirs(6), tick);
        within("threads", ours.threads as f64, theirs(7), 0.0);
        within("fds", ours.fds.unwrap() as f64, theirs(8), 0.0);
        within("read", ours.io.read_bytes.unwrap() as f64, theirs(9), 0.0);
        within("written", ours.io.write_bytes.unwrap() as f64, theirs(10), 0.0);
        within("voluntary", ours.context_switches.voluntary as f64, theirs(11), 0.0);
        within("involuntary", ours.context_switches.involuntary as f64, theirs(12), 0.0);
        within("cores", f64::from(ours.cpu.count.unwrap()), theirs(13), 0.0);
        assert!(ours.memory.rss > 30 << 20 && ours.cpu.user + ours.cpu.system > 0.2, "the worker has worked: {ours:?}");
    }

    #[test]
    fn one_that_ended_has_no_status() {
        let mut child = TestProcess::sleep();
        let mut sampler = sampler(&child);
        let mut buffer = Vec::new();
        let status = sampler.sample(None, true, &mut buffer).unwrap().unwrap();
        assert_eq!((status.pid, status.uuid.as_str()), (child.id(), "some-uuid"));
        assert!(status.uptime >= 0.0 && status.uptime < 60.0, "{}", status.uptime);
        assert_eq!((status.tree.processes, status.tree.rss), (1, status.memory.rss));
        child.kill();
        assert_eq!(sampler.sample(None, true, &mut buffer).unwrap(), None, "a zombie");
        child.end();
        assert_eq!(sampler.sample(None, true, &mut buffer).unwrap(), None);
        assert!(sampler.dir.is_none(), "no descriptor is kept of it");
    }

    #[test]
    fn an_exec_changes_the_program_and_not_the_process() {
        let mut child =
            TestProcess::python("import os, sys\nprint('ready', flush=True)\nsys.stdin.readline()\nos.execv('/bin/cat', ['cat'])");
        let mut sampler = sampler(&child);
        let mut buffer = Vec::new();
        let before = sampler.sample(None, true, &mut buffer).unwrap().unwrap();
        child.say("go");
        let mut after = before.clone();
        crate::procfs::testing::until(|| {
            after = sampler.sample(None, true, &mut buffer).unwrap().unwrap();
            after.memory.vms < before.memory.vms && after.memory.uss.is_some_and(|uss| uss > 0)
        });
        assert_eq!(after.create_time, before.create_time);
        assert!(after.memory.uss < before.memory.uss, "the new program's memory is shown");
    }

    #[tokio::test]
    async fn the_tree_is_summed_up() {
        let child = TestProcess::python(
            "import os, sys\nif os.fork():\n  print('ready', flush=True)\n  sys.stdin.read()\nelse:\n  sys.stdin.read()\n  os._exit(0)",
        );
        let mut sampler = sampler(&child);
        let forest = Forest::new();
        let _root = forest.plant("some-uuid", sampler.identity);
        let look = forest.look().await.unwrap();
        let status = sampler.sample(Some(&look), true, &mut Vec::new()).unwrap().unwrap();
        assert_eq!(status.tree.processes, 2);
        assert!(status.tree.rss > status.memory.rss);
        let daemon = Sampler::new("us", read_stat(std::process::id()).unwrap().identity(), Scope::Descendants)
            .sample(Some(&look), true, &mut Vec::new())
            .unwrap()
            .unwrap();
        assert!(daemon.tree.processes >= 3);
    }

    #[tokio::test]
    async fn shares_of_a_processor_are_measured() {
        // The child works and its parent sleeps.
        let child = TestProcess::python(
            "import os, sys, threading\nif os.fork():\n  print('ready', flush=True)\n  sys.stdin.read()\n\
             else:\n  threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0))).start()\n  while True: pass",
        );
        let mut sampler = sampler(&child);
        let forest = Forest::new();
        let _root = forest.plant("some-uuid", sampler.identity);
        let mut buffer = Vec::new();
        let mut take = async || {
            let look = forest.look().await.unwrap();
            sampler.sample(Some(&look), false, &mut buffer).unwrap().unwrap()
        };
        assert_eq!(take().await.tree.cpu_percent, 0.0, "nothing to compare with yet");
        let deadline = Instant::now() + std::time::Duration::from_secs(20);
        loop {
            let status = take().await;
            assert!(status.cpu.percent < 30.0, "the parent sleeps: {status:?}");
            if status.tree.cpu_percent > 5.0 {
                break; // a busy machine gives it no more
            }
            assert!(Instant::now() < deadline, "{status:?}");
            tokio::task::yield_now().await;
        }
    }
}
