//! What the tests of this room, of `status` and of `host` share: real processes that do not outlive their test.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

/// Debian's Python: the one that has psutil.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// Waits for a fact, not for a time.
#[track_caller]
pub(crate) fn until(mut fact: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !fact() {
        assert!(Instant::now() < deadline, "this did not come true within 20 s");
        std::thread::yield_now();
    }
}

/// A child that is killed and reaped at the latest when its test ends, however that ends.
#[derive(Debug)]
pub(crate) struct TestProcess(Child);

impl TestProcess {
    /// Starts it.
    pub(crate) fn start(command: &mut Command) -> Self {
        let child = Self(command.spawn().unwrap());
        // With vfork the parent runs on before the kernel has set the words of the new program in their place.
        until(|| !crate::procfs::read_cmdline(child.id()).unwrap().is_empty());
        child
    }

    /// A process that sleeps until its test ends.
    pub(crate) fn sleep() -> Self {
        Self::start(Command::new("/bin/sleep").arg("1000"))
    }

    /// A Python program; returns when it has printed "ready". Its standard input stays open as long as it lives.
    pub(crate) fn python(program: &str) -> Self {
        let mut child = Self::start(Command::new(PYTHON).arg("-c").arg(program).stdin(Stdio::piped()).stdout(Stdio::piped()));
        assert_eq!(child.hear(), "ready", "{program}");
        child
    }

    /// A process whose kernel name is these bytes.
    pub(crate) fn spawn(comm: &[u8]) -> Self {
        let bytes: Vec<String> = comm.iter().map(u8::to_string).collect();
        Self::python(&format!(
            "import sys\nopen('/proc/self/comm', 'wb', 0).write(bytes([{}]))\nprint('ready', flush=True)\nsys.stdin.read()",
            bytes.join(",")
        ))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Writes a line to its standard input.
    pub(crate) fn say(&mut self, line: &str) {
        let stdin = self.0.stdin.as_mut().unwrap();
        writeln!(stdin, "{line}").unwrap();
        stdin.flush().unwrap();
    }

    /// Reads a line of its standard output, byte by byte: nothing is left in a buffer.
    pub(crate) fn hear(&mut self) -> String {
        let stdout = self.0.stdout.as_mut().unwrap();
        let mut line = Vec::new();
        let mut byte = [0];
        while stdout.read(&mut byte).unwrap() > 0 && byte != [b'\n'] {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }

    /// The pipe to its standard input.
    pub(crate) fn take_stdin(&mut self) -> ChildStdin {
        self.0.stdin.take().unwrap()
    }

    /// Kills it and leaves the zombie.
    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        let pid = self.id();
        until(|| crate::procfs::read_stat(pid).unwrap().is_zombie());
    }

    /// Kills it and reaps it.
    pub(crate) fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for TestProcess {
    fn drop(&mut self) {
        self.end();
    }
}
