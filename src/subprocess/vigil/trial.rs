//! One question, asked again and again.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::subprocess::late::is_late;
use crate::subprocess::spawn::Launch;
use crate::subprocess::spec::Spec;
use crate::subprocess::spec::probe::{Probe, Tries};

use super::VigilShared;
use super::program::{Program, Turn};

/// Who asks the questions about one run.
#[derive(Debug)]
pub(super) struct Questions {
    spec: Arc<Spec>,
    launch: Launch,
    main: u32,
    shared: Arc<VigilShared>,
    /// Only one program at a time.
    turn: Turn,
}

impl Questions {
    pub(super) fn new(spec: Arc<Spec>, launch: Launch, main: u32, shared: Arc<VigilShared>) -> Self {
        Self { spec, launch, main, shared, turn: Turn::default() }
    }

    pub(super) fn shared(&self) -> &VigilShared {
        &self.shared
    }

    pub(super) fn set_spec(&mut self, spec: Arc<Spec>) {
        self.spec = spec;
    }

    pub(super) fn set_main(&mut self, main: u32) {
        self.main = main;
    }

    fn ask(&self, tries: &Tries) -> BoxFuture<'static, Result<(), String>> {
        match &tries.probe {
            Probe::Exec(words) => {
                let program = Program::of(&self.spec, words, self.launch.clone(), Some(self.main));
                Box::pin(program.run(self.shared.clone(), self.turn.clone(), tries.try_timeout))
            }
            probe @ (Probe::Zmq(_)
            | Probe::Tcp(_)
            | Probe::Unix(_)
            | Probe::Http(_)
            | Probe::File(_)
            | Probe::Cgse(_)
            | Probe::CgseTerminate { .. }) => self.shared.ask.ask(probe, tries.try_timeout),
        }
    }
}

/// A question and where it stands.
pub(super) struct Trial {
    tries: Tries,
    step: Step,
    /// The last try was not counted, as the daemon was late.
    excused: bool,
}

enum Step {
    Waiting(Instant),
    Asking { since: Instant, answer: BoxFuture<'static, Result<(), String>> },
}

impl std::fmt::Debug for Trial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trial").field("tries", &self.tries).finish_non_exhaustive()
    }
}

impl Trial {
    /// The first try is made at `first`.
    pub(super) fn new(tries: Tries, first: Instant) -> Self {
        Self { tries, step: Step::Waiting(first), excused: false }
    }

    /// How the next try came out. Goes on where it was when the future is dropped.
    pub(super) async fn next(&mut self, questions: &Questions) -> Result<(), String> {
        loop {
            match &mut self.step {
                Step::Waiting(at) => {
                    tokio::time::sleep_until(*at).await;
                    self.step = Step::Asking { since: Instant::now(), answer: questions.ask(&self.tries) };
                }
                Step::Asking { since, answer } => {
                    let result = answer.await;
                    let now = Instant::now();
                    let late = is_late((now - *since).saturating_sub(self.tries.try_timeout), self.tries.try_timeout);
                    if result.is_err() && late && !self.excused {
                        // The daemon stood still meanwhile, and may not have seen an answer that came in time.
                        self.excused = true;
                        self.step = Step::Waiting(now);
                        continue;
                    }
                    self.excused = false;
                    self.step = Step::Waiting(now + self.tries.interval);
                    return result;
                }
            }
        }
    }
}
