//! A client in another language: Python with pyzmq and msgpack, through every command.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use procman::protocol::CommandName;

use crate::harness::Setup;

/// Debian's Python, which has the Debian packages python3-zmq and python3-msgpack that `make test` installs.
const PYTHON: &str = "/usr/bin/python3";

#[test]
fn python_goes_through_every_command() {
    for over_tcp in [true, false] {
        let mut daemon = Setup::new("").tcp().start();
        let endpoint = if over_tcp { daemon.tcp() } else { daemon.endpoint() };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/every_command.py");
        let output = Command::new(PYTHON).args([script, &endpoint]).stdin(Stdio::null()).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{err}(where a module is missing, `make test` installs it)");
        let tried: BTreeSet<&str> = out.lines().collect();
        let all: BTreeSet<&str> = CommandName::ALL.iter().map(|command| command.as_str()).collect();
        assert_eq!(tried, all, "every command was tried, and no other");
        // The script ends with `shutdown`.
        assert_eq!(daemon.wait_exit().code(), Some(0));
        daemon.stop();
    }
}
