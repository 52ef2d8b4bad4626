//! Services of the tests, in Python.

/// Debian's Python, which has the Debian packages that `make test` installs.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

/// What every service may use: the test's directory, waiting for a file, and sd_notify(3) as an unmodified client does it.
const PRELUDE: &str = r#"
import os, signal, socket, sys, time
def wait(name):
    while not os.path.exists("{dir}/" + name): time.sleep(0.005)
def note(name, line):
    with open("{dir}/" + name, "a") as f: f.write("%s\n" % line)
def notify(*lines):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto("\n".join(lines).encode(), os.environ["NOTIFY_SOCKET"])
def sleep():
    while True: time.sleep(1000)
"#;

/// A Python program as a word of a configuration file.
pub(crate) fn program(text: &str) -> String {
    assert!(!text.contains("'''"), "it stands between such");
    format!("'''{PRELUDE}{text}'''")
}

/// A sub-process that runs this Python program.
pub(crate) fn service(name: &str, text: &str, keys: &str) -> String {
    format!("[[process]]\nname = '{name}'\ncmd = ['{PYTHON}', '-c', {}]\n{keys}\n", program(text))
}

/// A TCP port that nobody listens at.
pub(crate) fn free_port() -> u16 {
    super::services::free_ports(1)[0]
}
