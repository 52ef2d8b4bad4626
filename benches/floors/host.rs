//! `process_info` on a host with 1000 processes, against a bare loop that reads every `/proc/PID/cmdline`, and against others that do the same.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Command as Process, Stdio};
use std::time::Duration;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::read;
use procman::host::{Host, Matcher};
use procman::protocol::codec::encode_request;
use procman::protocol::request::{Command, Items, Match};
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};

use crate::Outcome;
use crate::daemon::{Daemon, SLEEP};
use crate::sample::Samples;
use crate::starts::Sleepers;
use crate::table::Row;

const PROCESSES: usize = 1000;
const ROUNDS: usize = 40;
/// An argument that one of the sleepers has and no other process of the host.
const NEEDLE: &str = "1000.0625";

/// How many processes the host has.
fn count_processes() -> Outcome<usize> {
    let mut count = 0;
    for entry in fs::read_dir("/proc")? {
        count += usize::from(entry?.file_name().as_encoded_bytes()[0].is_ascii_digit());
    }
    Ok(count)
}

/// Reads these files of every process: readdir, open, read, close, into one buffer. Returns how many bytes there were.
fn bare_loop(files: &[&str]) -> Outcome<usize> {
    let proc = fs::File::open("/proc")?;
    let mut buffer = vec![0_u8; 8 << 10];
    let mut path = String::new();
    let mut bytes = 0;
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().filter(|name| name.starts_with(|c: char| c.is_ascii_digit())) else { continue };
        for file in files {
            path.clear();
            path.extend([pid, "/", file]);
            // A process may have ended since.
            let Ok(file) = openat(proc.as_fd(), path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()) else { continue };
            bytes += read(&file, &mut buffer).unwrap_or(0);
        }
    }
    Ok(bytes)
}

/// psutil in a Python of its own, which times itself; killed when dropped.
struct Psutil {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

const PSUTIL: &str = "
import psutil, sys, time
print('ready', flush=True)
for line in sys.stdin:
    began = time.perf_counter()
    found = [p.info for p in psutil.process_iter(['cmdline', 'create_time'])]
    print(time.perf_counter() - began, flush=True)
";

impl Psutil {
    /// `None` where there is no psutil.
    fn start() -> Outcome<Option<Self>> {
        // Debian's Python is the one that has Debian's psutil.
        let mut command = Process::new("/usr/bin/python3");
        command.args(["-c", PSUTIL]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let Ok(mut process) = command.spawn() else { return Ok(None) };
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else { return Ok(None) };
        let mut this = Self { process, input, output: BufReader::new(output) };
        Ok((this.line()? == "ready").then_some(this))
    }

    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    fn round(&mut self) -> Outcome<Duration> {
        writeln!(self.input, "go")?;
        Ok(Duration::from_secs_f64(self.line()?.parse()?))
    }
}

impl Drop for Psutil {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn measure() -> Outcome<Vec<Row>> {
    let daemon = Daemon::start()?;
    let mut psutil = Psutil::start()?;
    let mut sleepers = Sleepers::default();
    sleepers.start(NEEDLE)?;
    for _ in count_processes()?..PROCESSES {
        sleepers.start(SLEEP[1])?;
    }

    let context = zmq::Context::new();
    let socket = context.socket(zmq::REQ)?;
    socket.set_linger(0)?;
    socket.set_rcvtimeo(10_000)?;
    socket.connect(&daemon.endpoint("ipc")?)?;
    let ask = |items: Vec<String>| -> Outcome<Vec<u8>> {
        let command = Command::ProcessInfo(Match { items: Items::Many(items), contains: true, case_sensitive: false });
        socket.send(encode_request(&command, None)?, 0)?;
        Ok(socket.recv_bytes(0)?)
    };
    let (one, every) = (|| vec![NEEDLE.to_owned()], || vec![String::new()]);
    let matcher = Matcher::new(&one(), true, false);
    let host = Host::new(2 * PROCESSES);
    let mut system = System::new()?;
    let kind = ProcessRefreshKind::nothing().with_cmd(UpdateKind::Always).without_tasks();

    let (mut bare, mut bare_stat, mut wire_one, mut wire_every) =
        (Samples::default(), Samples::default(), Samples::default(), Samples::default());
    let (mut direct, mut of_sysinfo, mut of_psutil) = (Samples::default(), Samples::default(), Samples::default());
    // Each is measured behind an untimed bare loop: who comes after somebody slow finds the processor's caches, and its clock, cold.
    let warm_up = || bare_loop(&["cmdline"]);
    for _ in 0..ROUNDS {
        warm_up()?;
        bare.time(|| bare_loop(&["cmdline"]))?;
        warm_up()?;
        wire_one.time(|| ask(one()))?;
        warm_up()?;
        direct.time(|| host.process_info(&matcher))?;
        warm_up()?;
        bare_stat.time(|| bare_loop(&["cmdline", "stat"]))?;
        warm_up()?;
        wire_every.time(|| ask(every()))?;
        warm_up()?;
        of_sysinfo.time(|| Outcome::Ok(system.refresh_processes_specifics(ProcessesToUpdate::All, true, kind)))?;
        warm_up()?;
        if let Some(psutil) = &mut psutil {
            of_psutil.push(psutil.round()?);
        }
    }
    daemon.leave()?;

    let (bare, bare_stat) = (bare.best(), bare_stat.best());
    let mut rows = vec![
        Row::new("process_info over ipc, 1 of 1000 matches", wire_one.best()).against(bare, "reading every cmdline").ratio_at_most(1.3),
        Row::new("the same without the daemon (library)", direct.best()).against(bare, "reading every cmdline"),
        Row::new("process_info over ipc, all 1000 match", wire_every.best()).against(bare_stat, "reading every cmdline and stat"),
        Row::new("the same with sysinfo (cmdline only)", of_sysinfo.best()).against(bare, "reading every cmdline"),
    ];
    if of_psutil.is_empty() {
        eprintln!("floors: /usr/bin/python3 has no psutil, which is left out");
    } else {
        rows.push(Row::new("process_info over ipc, all 1000 match", wire_every.best()).against(of_psutil.best(), "psutil.process_iter"));
    }
    Ok(rows)
}
