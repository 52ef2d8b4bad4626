//! What asks a service to end before a signal does.

use std::sync::Arc;

use crate::subprocess::spawn::Launch;
use crate::subprocess::spec::Spec;
use crate::subprocess::spec::probe::{Probe, StopRequest};

use super::VigilShared;
use super::program::{Program, Turn};

/// Makes the request. It is made when there is a reply to it, or its program has exited with 0; whether the service then ends is for others to see.
/// A program finds the PID of the main process in `$MAINPID`. Dropping the future ends the program whole.
///
/// # Errors
/// In words for people: it was refused, or there was no reply in time. Whether it was understood cannot be known then, so the signal must follow.
pub async fn ask_to_stop(
    spec: Arc<Spec>,
    request: StopRequest,
    launch: Launch,
    main: Option<u32>,
    shared: Arc<VigilShared>,
) -> Result<(), String> {
    match &request.probe {
        Probe::Exec(words) => Program::of(&spec, words, launch, main).run(shared, Turn::default(), request.timeout).await,
        probe @ (Probe::Zmq(_)
        | Probe::Tcp(_)
        | Probe::Unix(_)
        | Probe::Http(_)
        | Probe::File(_)
        | Probe::Cgse(_)
        | Probe::CgseTerminate { .. }) => shared.ask.ask(probe, request.timeout).await,
    }
}
