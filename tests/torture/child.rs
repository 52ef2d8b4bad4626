//! The sub-processes: this program once more, in another role.

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use procman::procfs;
use procman::sys::pidfd::PidFd;

use super::random::{Random, let_pass};
use super::truth::{Fact, Pen};

/// The first argument that asks for this role; behind it stand the [`Kind`], the name and the scene's directory.
pub(crate) const ROLE: &str = "--as-child";

/// The directory of the files that each sub-process locks for as long as it lives.
pub(crate) const LOCKS: &str = "locks";

/// Ends that a process can give itself, besides exit codes.
const SIGNALS: [i32; 6] = [libc::SIGKILL, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGINT, libc::SIGALRM];

/// How long one that does not stay may live.
const BRIEF: Duration = Duration::from_millis(700);

/// What a sub-process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It lives until it is ended.
    Stay,
    /// It ends by itself, soon.
    Brief,
    /// The same, and it leaves a grandchild in a session of its own behind.
    Fork,
    /// It says that it is ready, and stays.
    Tell,
    /// It says that it is ready, again and again, and stays.
    Repeat,
    /// It says that it is ready, and ends soon.
    TellBriefly,
}

impl Kind {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Stay, "stay"),
        (Self::Brief, "brief"),
        (Self::Fork, "fork"),
        (Self::Tell, "tell"),
        (Self::Repeat, "repeat"),
        (Self::TellBriefly, "tell-briefly"),
    ];

    pub(crate) fn word(self) -> &'static str {
        Self::ALL.into_iter().find(|(kind, _)| *kind == self).unwrap().1
    }
}

/// The life of a sub-process.
pub(crate) fn live(arguments: &[String]) -> ExitCode {
    let [kind, name, dir] = arguments else { panic!("{arguments:?}: say a kind, a name and a directory") };
    let kind = Kind::ALL.into_iter().find(|(_, word)| word == kind).unwrap().0;
    let (dir, uuid) = (Path::new(dir), std::env::var(procfs::MARKER).unwrap());
    let mut pen = Pen::new(dir, &uuid, name);
    // Closed on exec: what this process starts does not hold it.
    let lock = Flock::lock(File::create(dir.join(LOCKS).join(name)).unwrap(), FlockArg::LockExclusiveNonblock);
    if lock.is_err() {
        pen.write(Fact::Double);
    }
    pen.write(Fact::Start);
    let mut random = Random(u64::from(std::process::id()) ^ procfs::monotonic().as_nanos() as u64);
    match kind {
        Kind::Stay => stay(),
        Kind::Brief => {}
        Kind::Fork => leave_a_grandchild(),
        Kind::Tell => {
            tell();
            stay();
        }
        Kind::Repeat => loop {
            tell();
            let_pass(Duration::from_millis(200));
        },
        Kind::TellBriefly => tell(),
    }
    // Some end before anybody has looked at them.
    let_pass(if random.percent(5) { Duration::from_millis(random.below(3)) } else { random.up_to(BRIEF) });
    if random.percent(70) {
        let code = u8::try_from(random.below(121)).unwrap();
        pen.write(Fact::End(code.into()));
        return ExitCode::from(code);
    }
    let signal = *random.of(&SIGNALS);
    pen.write(Fact::End(-signal));
    PidFd::open(std::process::id()).unwrap().send_signal(signal).unwrap();
    stay();
}

fn stay() -> ! {
    loop {
        let_pass(Duration::from_secs(1000));
    }
}

/// Its parent ends at once: it comes to whoever takes orphans.
fn leave_a_grandchild() {
    let null = || Stdio::null();
    let status = Command::new("setsid").args(["--fork", "sleep", "1000"]).stdin(null()).stdout(null()).stderr(null()).status();
    assert!(status.unwrap().success());
}

/// As sd_notify(3) does it. One whose daemon is away tries until somebody takes it, for a while.
fn tell() {
    let path = std::env::var("NOTIFY_SOCKET").unwrap();
    let socket = UnixDatagram::unbound().unwrap();
    for _ in 0..500 {
        if socket.send_to(b"READY=1", &path).is_ok() {
            return;
        }
        let_pass(Duration::from_millis(20));
    }
    drop(fs::write("/dev/stderr", "nobody took READY=1\n"));
}
