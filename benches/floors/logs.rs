//! A program that writes lines of 100 bytes as fast as it can: into `log`, against `> file`, and against the pipes of others.
//!
//! Its output goes to disks that others use, too, so everybody writes in turns, and the fastest of each counts.
//!
//! What the daemon uses meanwhile is the kernel's work of giving pages back, and grows with the rate. So it is measured at lower ones, too, which are
//! still far above what a program that does its work writes: the table shows where two in a hundred are crossed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use procman::protocol::definition::{Definition, Output};
use procman::protocol::reply::Executed;
use procman::protocol::request::{Command, Execute};
use procman::protocol::{Name, Signal};
use procman::sys::pidfd::PidFd;

use crate::Outcome;
use crate::daemon::Daemon;
use crate::sample::Samples;
use crate::table::{Amount, Row};

/// The argument that makes this program the writer.
pub(crate) const WRITER: &str = "write";

const ROUNDS: usize = 5;
/// Of each turn. Many, so that the looks of a rotation at every half second show.
const LINES: u64 = 8_000_000;
/// Of each turn of those that read a pipe.
const LINES_OF_PEERS: u64 = 1_000_000;
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of a line.
const LINE: u64 = 100;
/// Lower rates, in millions of bytes a second, each for so many seconds.
const RATES: [u64; 3] = [10, 50, 100];
const PACED_SECONDS: u64 = 10;
/// So many lines are written before the time is looked at.
const BURST: u64 = 1000;

/// The life of the writer: so many lines to standard output, and how many seconds that took to this file. At most so many million bytes a second, if a
/// rate is said: a write for each line, and pauses in between.
pub(crate) fn write(arguments: &[String]) -> Outcome<()> {
    let (lines, result, rate) = match arguments {
        [lines, result] => (lines, result, None),
        [lines, result, rate] => (lines, result, Some(rate.parse::<u64>()?)),
        _ => return Err("say a number of lines, a file and, if you like, a rate".into()),
    };
    let (lines, line) = (lines.parse::<u64>()?, [&[b'x'; LINE as usize - 1][..], b"\n"].concat());
    // Not the standard library's, which would look for line feeds.
    let mut out = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    let began = Instant::now();
    for number in 0..lines {
        if let (Some(rate), 0) = (rate, number % BURST) {
            let due = Duration::from_secs_f64((number * LINE) as f64 / (rate * 1_000_000) as f64);
            #[allow(clippy::disallowed_methods)] // no fact is waited for: a pace is kept
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
        out.write_all(&line)?;
    }
    let took = began.elapsed().as_secs_f64();
    let unfinished = format!("{result}.unfinished");
    fs::write(&unfinished, took.to_string())?;
    Ok(fs::rename(unfinished, result)?)
}

fn writer(lines: u64, result: &Path) -> Outcome<[OsString; 4]> {
    Ok([std::env::current_exe()?.into(), WRITER.into(), lines.to_string().into(), result.into()])
}

/// Has the daemon know such a writer, whose output goes into `log`.
fn define(daemon: &mut Daemon, name: &Name, lines: u64, result: &Path, rate: Option<u64>) -> Outcome<()> {
    let words = writer(lines, result)?;
    let words = words.iter().map(|word| word.to_string_lossy().into_owned());
    let cmd = words.chain(rate.map(|rate| rate.to_string())).collect();
    daemon.define(name, Definition { cmd: Some(cmd), stdout: Some(Output::Log), ..Definition::default() })
}

/// Waits for the result of a writer, and answers seconds for a million lines.
fn result(path: &Path, lines: u64, mut wait: impl FnMut(Duration) -> Outcome<()>) -> Outcome<Duration> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Ok(text) = fs::read_to_string(path) {
            fs::remove_file(path)?;
            return Ok(Duration::from_secs_f64(text.parse::<f64>()? * 1e6 / lines as f64));
        }
        if Instant::now() > deadline {
            return Err("the writer takes too long".into());
        }
        wait(Duration::from_millis(20))?;
    }
}

/// `> file`.
fn to_file(directory: &Path) -> Outcome<Duration> {
    let (path, out) = (directory.join("result"), directory.join("plain"));
    let [program, arguments @ ..] = writer(LINES, &path)?;
    Process::new(program).args(arguments).stdin(Stdio::null()).stdout(File::create(&out)?).status()?;
    fs::remove_file(out)?;
    result(&path, LINES, |_| Err("the writer has failed".into()))
}

/// Into `log`: how long a million lines take, and the share of a processor that the daemon uses meanwhile.
fn to_log(daemon: &mut Daemon, name: &Name, lines: u64, path: &Path) -> Outcome<(Duration, f64)> {
    let (began, before) = (Instant::now(), daemon.cpu_seconds()?);
    daemon.ask::<Executed>(&Command::Execute(Execute {
        name: name.clone(),
        args: Vec::new(),
        env: Default::default(),
        wait: false,
        timeout: None,
    }))?;
    let took = result(path, lines, |time| daemon.let_pass(time))?;
    Ok((took, (daemon.cpu_seconds()? - before) / began.elapsed().as_secs_f64() * 100.0))
}

/// A program that is killed when dropped.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn is_installed(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).is_file()))
}

/// The pipe of s6-log.
fn to_s6(directory: &Path) -> Outcome<Duration> {
    let path = directory.join("result");
    let mut log = Process::new("s6-log").args(["n5", "s10000000"]).arg(directory.join("s6")).stdin(Stdio::piped()).spawn().map(Peer)?;
    let pipe = log.0.stdin.take().ok_or("s6-log has no pipe")?;
    let [program, arguments @ ..] = writer(LINES_OF_PEERS, &path)?;
    Process::new(program).args(arguments).stdin(Stdio::null()).stdout(pipe).status()?;
    // The pipe is closed: it writes what is left, and ends.
    log.0.wait()?;
    result(&path, LINES_OF_PEERS, |_| Err("the writer has failed".into()))
}

/// The pipe of supervisord.
fn to_supervisord(directory: &Path) -> Outcome<Duration> {
    let (path, config) = (directory.join("result"), directory.join("supervisord.conf"));
    let command: Vec<String> = writer(LINES_OF_PEERS, &path)?.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let dir = directory.display();
    fs::write(
        &config,
        format!(
            "[supervisord]\nnodaemon = true\nlogfile = {dir}/supervisord.log\npidfile = {dir}/supervisord.pid\n\
             [program:writer]\ncommand = {}\nautorestart = false\nstartsecs = 0\nstdout_logfile = {dir}/writer.log\n\
             stdout_logfile_maxbytes = 10MB\nstdout_logfile_backups = 5\n",
            command.join(" ")
        ),
    )?;
    let mut process = Process::new("supervisord")
        .arg("-c")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(Peer)?;
    let fd = PidFd::open(process.0.id())?;
    let took = result(&path, LINES_OF_PEERS, |time| {
        let pause = nix::poll::PollTimeout::try_from(time)?;
        nix::poll::poll(&mut [nix::poll::PollFd::new(fd.as_fd(), nix::poll::PollFlags::POLLIN)], pause)?;
        Ok(())
    });
    fd.send_signal(Signal::TERM.number())?;
    process.0.wait()?;
    took
}

pub(crate) fn measure() -> Outcome<Vec<Row>> {
    let mut daemon = Daemon::start()?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("result");
    let name: Name = "writer".parse()?;
    define(&mut daemon, &name, LINES, &path, None)?;

    let (mut plain, mut ours, mut s6, mut supervisord) = (Samples::default(), Samples::default(), Samples::default(), Samples::default());
    let mut share = 0.0;
    for _ in 0..ROUNDS {
        plain.push(to_file(directory.path())?);
        let (took, cpu) = to_log(&mut daemon, &name, LINES, &path)?;
        ours.push(took);
        share += cpu / ROUNDS as f64;
        if is_installed("s6-log") {
            s6.push(to_s6(directory.path())?);
        }
        if is_installed("supervisord") {
            supervisord.push(to_supervisord(directory.path())?);
        }
    }
    let mut paced = Vec::new();
    for rate in RATES {
        let (name, lines): (Name, u64) = (format!("writer-{rate}").parse()?, rate * 1_000_000 / LINE * PACED_SECONDS);
        define(&mut daemon, &name, lines, &path, Some(rate))?;
        let (took, cpu) = to_log(&mut daemon, &name, lines, &path)?;
        paced.push((LINE as f64 / took.as_secs_f64(), cpu));
    }
    daemon.leave()?;

    let most = Amount::Percent(2.0);
    let flood = LINE as f64 / ours.best().as_secs_f64();
    let mut rows = vec![
        Row::new("a million lines into `log`, max_size 10M, keep 5", ours.best()).against(plain.best(), "> file").ratio_at_most(1.0 / 0.95),
        Row::new(format!("the daemon meanwhile ({flood:.0} MB/s), of one processor"), Amount::Percent(share)).at_most(most),
    ];
    let of_rate = |(rate, cpu)| Row::new(format!("the same at {rate:.0} MB/s"), Amount::Percent(cpu)).at_most(most);
    rows.extend(paced.into_iter().map(of_rate));
    for (peer, samples) in [("s6-log", s6), ("supervisord", supervisord)] {
        rows.push(if samples.is_empty() {
            Row::new(format!("a million lines into {peer}: not installed"), Duration::ZERO)
        } else {
            Row::new(format!("a million lines into {peer}"), samples.best()).against(plain.best(), "> file")
        });
    }
    Ok(rows)
}
