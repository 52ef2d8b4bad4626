//! The client of procmand: arguments → [`procman::client::run`] → exit code.

use std::io;
use std::process::ExitCode;

use procman::client::run::{Surroundings, run};

fn main() -> ExitCode {
    let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
    run(std::env::args_os(), &Surroundings::real(), &mut out, &mut err).into()
}
