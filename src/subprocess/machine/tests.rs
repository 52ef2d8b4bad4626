//! Thousands of random histories against a model of the rim, without a process and without a sleep.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::protocol::Origin;
use crate::subprocess::spec::{Backoff, Readiness, StartLimit};

type Launch = u32;
type Failure = &'static str;

const STOP: StopWay = StopWay { signal: Signal::TERM, timeout: Duration::from_secs(5), request: false };

/// By the definition's request, or by the signal alone.
fn way(timeout: u64, request: bool) -> StopWay {
    StopWay { timeout: Duration::from_secs(timeout), request, ..STOP }
}

/// What the world may do next; an action that is impossible now is passed over.
#[derive(Clone, Debug)]
enum Action {
    Execute,
    Quit {
        timeout: u64,
        request: bool,
    },
    Restart {
        timeout: u64,
        request: bool,
    },
    /// It is to be ended and started with others; its turn to end comes; its turn to start comes.
    IsToRestart,
    EndsWithOthers {
        timeout: u64,
        request: bool,
    },
    StartsWithOthers,
    SpawnSucceeds,
    SpawnFails,
    SpawnIsWithdrawn,
    GetsReady,
    WantsTime(u64),
    FallsIll,
    MainMoves,
    RequestFails,
    MainDies(ExitStatus),
    MainIsReaped,
    TreeVanishes,
    SurvivorsAreCounted,
    TimePasses(u64),
    DeadlineComes,
    PolicyChanges(RestartPolicy),
    DaemonLeaves,
}

fn action() -> impl Strategy<Value = Action> {
    let status = prop_oneof![
        (0..4).prop_map(ExitStatus::Exited),
        (1..20, any::<bool>()).prop_map(|(signal, core)| ExitStatus::Signalled { signal, core })
    ];
    let policy = prop_oneof![Just(RestartPolicy::Never), Just(RestartPolicy::OnFailure), Just(RestartPolicy::Always)];
    prop_oneof![
        4 => Just(Action::Execute),
        3 => (0u64..8, any::<bool>()).prop_map(|(timeout, request)| Action::Quit { timeout, request }),
        2 => (0u64..8, any::<bool>()).prop_map(|(timeout, request)| Action::Restart { timeout, request }),
        1 => Just(Action::IsToRestart),
        1 => (0u64..8, any::<bool>()).prop_map(|(timeout, request)| Action::EndsWithOthers { timeout, request }),
        2 => Just(Action::StartsWithOthers),
        4 => Just(Action::SpawnIsWithdrawn),
        3 => Just(Action::GetsReady),
        1 => (0u64..100).prop_map(Action::WantsTime),
        1 => Just(Action::FallsIll),
        1 => Just(Action::MainMoves),
        2 => Just(Action::RequestFails),
        8 => Just(Action::SpawnSucceeds),
        2 => Just(Action::SpawnFails),
        6 => status.prop_map(Action::MainDies),
        8 => Just(Action::MainIsReaped),
        8 => Just(Action::TreeVanishes),
        4 => Just(Action::SurvivorsAreCounted),
        4 => (0u64..70_000).prop_map(Action::TimePasses),
        6 => Just(Action::DeadlineComes),
        1 => policy.prop_map(Action::PolicyChanges),
        1 => Just(Action::DaemonLeaves),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Main {
    None,
    Alive(u32),
    Zombie(u32, ExitStatus),
}

/// The rim and everything behind it.
struct World {
    machine: Machine<Launch, Failure>,
    now: Instant,
    roll: f64,
    spawning: bool,
    main: Main,
    /// A tree is there that has not been told gone.
    tree: bool,
    ending: Option<Signal>,
    /// The start is to be withdrawn; the request to stop is being made.
    withdrawing: bool,
    requesting: bool,
    counting: bool,
    pids: u32,
    spawned: u64,
    ended: u64,
    tokens: u64,
    answers: BTreeMap<Token, u32>,
    /// A quit came after the last request for a start.
    told_to_rest: bool,
    leaving: bool,
}

impl World {
    fn new(policy: Policy, roll: f64) -> Self {
        Self {
            machine: Machine::new(policy, STOP, 0),
            now: Instant::now(),
            roll,
            spawning: false,
            main: Main::None,
            tree: false,
            ending: None,
            withdrawing: false,
            requesting: false,
            counting: false,
            pids: 100,
            spawned: 0,
            ended: 0,
            tokens: 0,
            answers: BTreeMap::new(),
            told_to_rest: true,
            leaving: false,
        }
    }

    fn token(&mut self) -> Token {
        self.tokens += 1;
        self.answers.insert(Token(self.tokens), 0);
        Token(self.tokens)
    }

    fn give(&mut self, event: Event<Launch, Failure>) {
        let asked = matches!(event, Event::Execute { .. } | Event::Restart { .. });
        let before = self.machine.state();
        for effect in self.machine.handle(event, self.now, self.roll) {
            match effect {
                Effect::Spawn { .. } => {
                    assert!(!self.spawning, "two spawns at a time");
                    assert_eq!(self.main, Main::None, "a second main");
                    assert!(!self.tree, "a start before the former tree is gone");
                    assert!(!self.told_to_rest, "started although it was quit");
                    assert!(!self.leaving || asked || before != StateName::Backoff, "started from back-off while the daemon leaves");
                    self.spawning = true;
                    self.withdrawing = false;
                }
                Effect::WithdrawSpawn => {
                    assert!(self.spawning, "there is a start to withdraw");
                    self.withdrawing = true;
                }
                Effect::RequestStop => {
                    assert!(self.main != Main::None && self.ending.is_none(), "there is somebody to ask, and nothing was sent before");
                    self.requesting = true;
                }
                Effect::EndTree(signal) => {
                    self.requesting = false;
                    assert!(self.tree || self.spawning, "there is a tree to end");
                    self.ending = Some(signal);
                }
                Effect::KillSpawn => assert!(self.spawning, "there is a start to end"),
                Effect::CountSurvivors => self.counting = true,
                Effect::Answer(token, _) => *self.answers.get_mut(&token).unwrap() += 1,
                Effect::RunEnded(_) => self.ended += 1,
                Effect::RestartScheduled { .. } => assert!(!self.told_to_rest, "a restart after a quit"),
            }
        }
        self.check();
    }

    fn check(&self) {
        assert!(self.answers.values().all(|count| *count <= 1), "answered twice");
        let unreaped = match self.main {
            Main::None => None,
            Main::Alive(pid) | Main::Zombie(pid, _) => Some(pid),
        };
        assert_eq!(self.machine.run().map(|run| run.pid), unreaped, "the machine knows which process there is");
        if self.machine.is_at_rest() {
            assert!(!self.spawning && !self.tree, "at rest with something alive");
            assert_eq!(self.machine.deadline(), None, "a timer left behind");
            assert!(self.answers.values().all(|count| *count == 1), "at rest with somebody waiting");
        }
        assert_eq!(self.machine.next_start().is_some(), self.machine.state() == StateName::Backoff);
        let under_way = u64::from(unreaped.is_some());
        assert_eq!(self.ended + under_way, self.spawned, "an exit was lost or counted twice");
        if unreaped.is_some() || self.spawning {
            assert_eq!(self.machine.last_end(), None, "a run under way has no end");
        }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Execute => {
                let token = self.token();
                let main_has_ended = self.machine.state() == StateName::Stopping && self.machine.run().is_none();
                if main_has_ended
                    || matches!(
                        self.machine.state(),
                        StateName::Stopped | StateName::Exited | StateName::Fatal | StateName::Lost | StateName::Backoff
                    )
                {
                    self.told_to_rest = false;
                }
                self.give(Event::Execute { token, launch: 1, origin: Origin::Execute });
            }
            Action::Restart { timeout, request } => {
                let token = self.token();
                self.told_to_rest = false;
                self.give(Event::Restart { token, launch: 2, way: way(*timeout, *request) });
            }
            Action::Quit { timeout, request } => {
                let token = self.token();
                self.told_to_rest = true;
                self.give(Event::Quit { token: Some(token), way: way(*timeout, *request), by: EndedBy::Quit });
            }
            Action::IsToRestart => {
                self.give(Event::ToRestart);
                assert_eq!(self.machine.wanted(), Wanted::Up);
            }
            Action::EndsWithOthers { timeout, request } => {
                let token = self.token();
                self.told_to_rest = true;
                self.give(Event::EndToStart { token, way: way(*timeout, *request) });
            }
            Action::StartsWithOthers => {
                let token = self.token();
                let main_has_ended = self.machine.state() == StateName::Stopping && self.machine.run().is_none();
                if !self.machine.withdrawn && (main_has_ended || self.machine.is_at_rest() || self.machine.next_start().is_some()) {
                    self.told_to_rest = false;
                }
                self.give(Event::Execute { token, launch: 3, origin: Origin::Restart });
            }
            Action::SpawnIsWithdrawn if self.spawning && self.withdrawing => {
                (self.spawning, self.withdrawing, self.counting) = (false, false, false);
                self.spawned += 1;
                self.give(Event::SpawnWithdrawn);
            }
            Action::GetsReady => self.give(Event::Ready),
            Action::WantsTime(seconds) => self.give(Event::ExtendTimeout(Duration::from_secs(*seconds))),
            Action::FallsIll => self.give(Event::Unhealthy),
            Action::MainMoves => {
                if let Main::Alive(_) = self.main {
                    self.pids += 1;
                    self.main = Main::Alive(self.pids);
                    self.give(Event::MainMoved { pid: self.pids });
                }
            }
            Action::RequestFails if self.requesting => {
                self.requesting = false;
                self.give(Event::StopRequestFailed);
                assert!(self.ending.is_some(), "the signal follows");
            }
            Action::SpawnSucceeds if self.spawning => {
                self.pids += 1;
                (self.spawning, self.tree, self.main, self.ending) = (false, true, Main::Alive(self.pids), None);
                self.counting = false;
                self.spawned += 1;
                self.give(Event::Spawned { pid: self.pids });
            }
            Action::SpawnFails if self.spawning => {
                (self.spawning, self.counting) = (false, false);
                self.spawned += 1;
                self.give(Event::SpawnFailed { failure: "ENOENT" });
            }
            Action::MainDies(status) => {
                if let Main::Alive(pid) = self.main {
                    self.main = Main::Zombie(pid, *status);
                }
            }
            Action::MainIsReaped => {
                if let Main::Zombie(_, status) = self.main {
                    self.main = Main::None;
                    self.give(Event::MainExited { status: Some(status), oom: false });
                    assert!(self.ending.is_some() || !self.tree, "what it left behind is ended");
                }
            }
            Action::TreeVanishes if self.ending.is_some() && !matches!(self.main, Main::Alive(_)) && self.tree => {
                (self.tree, self.ending, self.counting) = (false, None, false);
                self.give(Event::TreeGone(TreeReport::default()));
            }
            Action::SurvivorsAreCounted if self.counting => {
                self.counting = false;
                self.give(Event::Survivors(TreeReport { survivors: vec![self.pids], ..TreeReport::default() }));
            }
            Action::TimePasses(milliseconds) => self.now += Duration::from_millis(*milliseconds),
            Action::DeadlineComes => {
                if let Some(deadline) = self.machine.deadline() {
                    self.now = self.now.max(deadline);
                    self.give(Event::Deadline);
                    assert!(self.machine.deadline().is_none_or(|next| next > self.now), "a deadline that stays due");
                }
            }
            Action::PolicyChanges(restart) => {
                let policy = Policy { restart: *restart, ..self.machine.policy.clone() };
                self.give(Event::PolicyChanged(policy, STOP));
            }
            Action::DaemonLeaves => {
                self.leaving = true;
                self.give(Event::NoMoreStarts);
            }
            Action::SpawnSucceeds
            | Action::SpawnFails
            | Action::SpawnIsWithdrawn
            | Action::RequestFails
            | Action::TreeVanishes
            | Action::SurvivorsAreCounted => {}
        }
    }

    /// Lets everything that is under way come to its end.
    fn settle(&mut self) {
        for _ in 0..100 {
            if self.machine.is_at_rest() {
                return;
            }
            self.act(&Action::SpawnSucceeds);
            self.act(&Action::DeadlineComes);
            self.act(&Action::MainDies(ExitStatus::Signalled { signal: 9, core: false }));
            self.act(&Action::MainIsReaped);
            self.act(&Action::TreeVanishes);
        }
        panic!("never at rest: {:?}", self.machine.state);
    }
}

fn ending() -> impl Strategy<Value = Option<(EndedBy, bool)>> {
    let by = prop_oneof![Just(EndedBy::Quit), Just(EndedBy::Restart), Just(EndedBy::Health), Just(EndedBy::StartTimeout)];
    proptest::option::of((by, any::<bool>()))
}

/// Whether no start may follow.
fn rests(ending: Option<(EndedBy, bool)>) -> bool {
    ending.is_some_and(|(by, then_start)| !then_start && matches!(by, EndedBy::Quit | EndedBy::Restart))
}

/// What an earlier daemon may have left; the run, if any, began so many seconds ago.
fn found() -> impl Strategy<Value = (Found, u64)> {
    let end = |by, cause| End { status: Some(ExitStatus::Exited(1)), cause, by, lived: Duration::from_secs(9), unready: false };
    let state = prop_oneof![Just(StateName::Stopped), Just(StateName::Exited), Just(StateName::Fatal), Just(StateName::Lost)];
    let remains = prop_oneof![
        Just(end(EndedBy::Itself, Cause::Exit)),
        Just(end(EndedBy::Quit, Cause::Quit)),
        Just(end(EndedBy::Health, Cause::Health))
    ];
    let found = prop_oneof![
        (state, any::<bool>()).prop_map(|(state, start)| Found::AtRest { state, end: None, start: start && state == StateName::Stopped }),
        (any::<bool>(), ending()).prop_map(|(ready, ending)| Found::Living {
            run: Run { pid: 100, started: Instant::now() },
            ready,
            ending
        }),
        (any::<bool>(), ending(), any::<bool>()).prop_map(|(ready, ending, known)| Found::Ended {
            started: Instant::now(),
            ready,
            ending,
            status: known.then_some(ExitStatus::Exited(3)),
            oom: false
        }),
        (remains, any::<bool>()).prop_map(|(end, then_start)| Found::Remains { end, then_start }),
    ];
    (found, 0u64..100)
}

impl World {
    fn recover(&mut self, (mut found, age): (Found, u64)) {
        self.now += Duration::from_secs(age);
        self.told_to_rest = false;
        match &mut found {
            Found::AtRest { .. } => self.told_to_rest = true,
            Found::Living { run, ending, .. } => {
                run.started = self.now - Duration::from_secs(age);
                (self.main, self.tree, self.spawned) = (Main::Alive(100), true, 1);
                self.told_to_rest = rests(*ending);
            }
            Found::Ended { started, ending, .. } => {
                *started = self.now - Duration::from_secs(age);
                (self.tree, self.spawned) = (true, 1);
                self.told_to_rest = rests(*ending);
            }
            Found::Remains { end, .. } => {
                self.tree = true;
                self.told_to_rest = end.by == EndedBy::Quit;
            }
        }
        if let Found::Remains { then_start: true, .. } = found {
            self.told_to_rest = false;
        }
        let recovered = Recovered { launch: 3, restarts: Restarts::counted(2, 1), found };
        self.give(Event::Recovered(recovered.clone()));
        let state = format!("{:?}", self.machine.state);
        self.give(Event::Recovered(recovered));
        if self.machine.state() != StateName::Stopped {
            assert_eq!(format!("{:?}", self.machine.state), state, "taken over once");
        }
    }
}

/// One that runs and is to be restarted with others.
fn about_to_restart() -> World {
    let mut world = world(RestartPolicy::Never);
    run(&mut world);
    world.act(&Action::IsToRestart);
    assert_eq!((world.machine.state(), world.machine.ending()), (StateName::Running, Some((EndedBy::Restart, true))));
    world
}

fn dies(world: &mut World) {
    for action in [Action::MainDies(ExitStatus::Exited(0)), Action::MainIsReaped, Action::TreeVanishes] {
        world.act(&action);
    }
}

#[test]
fn one_that_is_restarted_with_others_is_wanted_up_all_along() {
    let mut world = about_to_restart();
    world.act(&Action::EndsWithOthers { timeout: 5, request: false });
    assert_eq!((world.machine.ending(), world.machine.wanted()), (Some((EndedBy::Restart, true)), Wanted::Up));
    dies(&mut world);
    assert_eq!((world.machine.state(), world.machine.wanted()), (StateName::Stopped, Wanted::Up), "the others are still ending");
    world.act(&Action::StartsWithOthers);
    world.act(&Action::SpawnSucceeds);
    assert_eq!((world.machine.state(), world.machine.ending()), (StateName::Running, None));
}

#[test]
fn a_quit_that_comes_amid_a_restart_with_others_holds() {
    let quit = || Action::Quit { timeout: 5, request: false };
    let ends = || Action::EndsWithOthers { timeout: 5, request: false };
    for actions in [vec![quit(), ends()], vec![ends(), quit()]] {
        let mut world = about_to_restart();
        actions.iter().for_each(|action| world.act(action));
        assert_eq!(world.machine.ending().map(|(_, then_start)| then_start), Some(false));
        dies(&mut world);
        world.act(&Action::StartsWithOthers);
        assert_eq!((world.machine.state(), world.machine.wanted()), (StateName::Stopped, Wanted::Down), "{actions:?}");
        // That word is used up.
        world.act(&Action::StartsWithOthers);
        assert_eq!(world.machine.state(), StateName::Starting);
    }
}

#[test]
fn what_cannot_be_ended_is_not_to_be_started_either() {
    let mut world = about_to_restart();
    world.act(&Action::EndsWithOthers { timeout: 0, request: false });
    for action in [Action::DeadlineComes, Action::DeadlineComes, Action::SurvivorsAreCounted] {
        world.act(&action);
    }
    assert_eq!((world.machine.ending(), world.machine.wanted()), (Some((EndedBy::Restart, false)), Wanted::Down));
}

#[test]
fn what_ended_while_nobody_looked_is_lost_and_a_failure() {
    for (restart, expected) in [(RestartPolicy::Never, StateName::Lost), (RestartPolicy::OnFailure, StateName::Backoff)] {
        let mut world = world(restart);
        world.recover((Found::Ended { started: world.now, ready: true, ending: None, status: None, oom: false }, 5));
        assert_eq!((world.machine.state(), world.machine.run()), (StateName::Stopping, None), "it is not told as running");
        world.act(&Action::TreeVanishes);
        assert_eq!((world.machine.state(), world.machine.last_end().unwrap().cause), (expected, Cause::Lost));
    }
}

#[test]
fn one_that_was_not_ready_is_given_its_time_again_unless_that_was_over() {
    let readiness = Readiness::Told { within: Some(Duration::from_secs(10)) };
    let timed_out = Some((EndedBy::StartTimeout, false));
    for (ready, ending, expected) in
        [(true, None, StateName::Running), (false, None, StateName::Starting), (false, timed_out, StateName::Stopping)]
    {
        let mut world = World::new(Policy { readiness, ..Policy::default() }, 0.5);
        let run = Run { pid: 100, started: world.now };
        world.recover((Found::Living { run, ready, ending }, 60));
        world.give(Event::Deadline);
        assert_eq!(world.machine.state(), expected, "ready {ready}, {ending:?}");
    }
}

fn policy() -> impl Strategy<Value = Policy> {
    let restart = prop_oneof![Just(RestartPolicy::Never), Just(RestartPolicy::OnFailure), Just(RestartPolicy::Always)];
    let readiness = prop_oneof![
        Just(Readiness::Lived),
        Just(Readiness::Told { within: None }),
        (1u64..20).prop_map(|seconds| Readiness::Told { within: Some(Duration::from_secs(seconds)) })
    ];
    (restart, prop_oneof![Just(0u64), 1u64..5], prop_oneof![Just(0u64), 1u64..5000], 0u32..6, readiness).prop_map(
        |(restart, start_seconds, initial, count, readiness)| Policy {
            restart,
            readiness,
            start_seconds: Duration::from_secs(start_seconds),
            backoff: Backoff { initial: Duration::from_millis(initial), ..Backoff::default() },
            start_limit: StartLimit { count, interval: Duration::from_secs(30) },
            ..Policy::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn no_history_breaks_a_promise(policy in policy(), roll in 0.0f64..=1.0, actions in proptest::collection::vec(action(), 1..80)) {
        let mut world = World::new(policy, roll);
        for action in &actions {
            world.act(action);
        }
        world.act(&Action::DaemonLeaves);
        world.act(&Action::Quit { timeout: 1, request: false });
        world.settle();
        prop_assert_eq!(world.machine.wanted(), Wanted::Down);
        prop_assert_eq!(world.machine.deadline(), None);
    }

    #[test]
    fn no_history_after_an_earlier_daemon_breaks_a_promise(
        policy in policy(), roll in 0.0f64..=1.0, found in found(), actions in proptest::collection::vec(action(), 0..60)
    ) {
        let mut world = World::new(policy, roll);
        world.recover(found);
        for action in &actions {
            world.act(action);
        }
        world.act(&Action::DaemonLeaves);
        world.act(&Action::Quit { timeout: 1, request: false });
        world.settle();
        prop_assert_eq!(world.machine.wanted(), Wanted::Down);
    }

    #[test]
    fn no_stray_event_breaks_it(policy in policy(), strays in proptest::collection::vec((0..17, 0u64..9), 1..40)) {
        let mut machine: Machine<Launch, Failure> = Machine::new(policy, STOP, 0);
        let mut now = Instant::now();
        for (kind, n) in strays {
            now += Duration::from_secs(n);
            let event = match kind {
                0 => Event::Spawned { pid: 7 },
                1 => Event::SpawnFailed { failure: "EAGAIN" },
                2 => Event::MainExited { status: (n > 4).then_some(ExitStatus::Exited(1)), oom: n > 6 },
                3 => Event::TreeGone(TreeReport::default()),
                4 => Event::Survivors(TreeReport { survivors: vec![7], ..TreeReport::default() }),
                5 => Event::Deadline,
                6 => Event::Execute { token: Token(n), launch: 1, origin: Origin::Execute },
                7 => Event::Quit { token: None, way: way(n, n > 4), by: EndedBy::Quit },
                8 => Event::SpawnWithdrawn,
                9 => Event::Ready,
                10 => Event::ExtendTimeout(Duration::from_secs(n)),
                11 => Event::MainMoved { pid: 8 },
                12 => Event::Unhealthy,
                13 => Event::StopRequestFailed,
                14 => Event::ToRestart,
                15 => Event::EndToStart { token: Token(n), way: way(n, n > 4) },
                _ => Event::Restart { token: Token(n), launch: 1, way: way(0, n > 4) },
            };
            let _ = machine.handle(event, now, 0.5);
        }
    }
}

fn world(restart: RestartPolicy) -> World {
    World::new(Policy { restart, ..Policy::default() }, 0.5)
}

fn run(world: &mut World) {
    world.act(&Action::Execute);
    world.act(&Action::SpawnSucceeds);
}

fn die(world: &mut World, status: ExitStatus) {
    world.act(&Action::MainDies(status));
    world.act(&Action::MainIsReaped);
    world.act(&Action::TreeVanishes);
}

#[test]
fn each_policy_decides_as_documented() {
    let killed = ExitStatus::Signalled { signal: 9, core: false };
    for (restart, status, expected) in [
        (RestartPolicy::Never, ExitStatus::Exited(0), StateName::Exited),
        (RestartPolicy::Never, killed, StateName::Exited),
        (RestartPolicy::OnFailure, ExitStatus::Exited(0), StateName::Exited),
        (RestartPolicy::OnFailure, ExitStatus::Exited(3), StateName::Backoff),
        (RestartPolicy::OnFailure, killed, StateName::Backoff),
        (RestartPolicy::Always, ExitStatus::Exited(0), StateName::Backoff),
    ] {
        let mut world = world(restart);
        run(&mut world);
        assert_eq!(world.machine.state(), StateName::Running);
        die(&mut world, status);
        assert_eq!(world.machine.state(), expected, "{restart} after {status:?}");
    }
}

#[test]
fn an_end_before_start_seconds_is_a_failure_whatever_its_code() {
    let mut world =
        World::new(Policy { restart: RestartPolicy::OnFailure, start_seconds: Duration::from_secs(1), ..Policy::default() }, 0.5);
    run(&mut world);
    assert_eq!(world.machine.state(), StateName::Starting);
    die(&mut world, ExitStatus::Exited(0));
    assert_eq!(world.machine.state(), StateName::Backoff);
    world.act(&Action::DeadlineComes);
    world.act(&Action::SpawnSucceeds);
    world.act(&Action::DeadlineComes);
    assert_eq!(world.machine.state(), StateName::Running);
    die(&mut world, ExitStatus::Exited(0));
    assert_eq!(world.machine.state(), StateName::Exited);
}

#[test]
fn a_crash_loop_ends_in_fatal_and_an_execute_tries_again() {
    let mut world = world(RestartPolicy::Always);
    run(&mut world);
    let mut starts = 1;
    while world.machine.state() != StateName::Fatal {
        die(&mut world, ExitStatus::Exited(1));
        if world.machine.state() == StateName::Backoff {
            world.act(&Action::DeadlineComes);
            world.act(&Action::SpawnSucceeds);
            starts += 1;
        }
    }
    assert_eq!((starts, world.machine.restarts(), world.machine.wanted()), (5, 4, Wanted::Up));
    run(&mut world);
    assert_eq!((world.machine.state(), world.machine.restarts()), (StateName::Running, 0));
}

#[test]
fn a_stubborn_tree_is_killed_and_then_counted() {
    let mut world = world(RestartPolicy::Always);
    run(&mut world);
    world.act(&Action::Quit { timeout: 5, request: false });
    assert_eq!(world.ending, Some(Signal::TERM));
    world.act(&Action::DeadlineComes);
    assert_eq!(world.ending, Some(Signal::KILL));
    world.act(&Action::DeadlineComes);
    assert!(world.counting);
    world.act(&Action::SurvivorsAreCounted);
    assert_eq!(world.machine.state(), StateName::Stopping, "it is not stopped while something lives");
    assert_eq!(world.answers.values().sum::<u32>(), 2, "but whoever waits is told");
    die(&mut world, ExitStatus::Signalled { signal: 9, core: false });
    assert_eq!(world.machine.state(), StateName::Stopped);
}

#[test]
fn a_second_quit_can_only_shorten_the_time() {
    let mut world = world(RestartPolicy::Never);
    run(&mut world);
    world.act(&Action::Quit { timeout: 5, request: false });
    let first = world.machine.deadline().unwrap();
    world.act(&Action::Quit { timeout: 7, request: false });
    assert_eq!(world.machine.deadline(), Some(first));
    world.act(&Action::Quit { timeout: 1, request: false });
    assert!(world.machine.deadline().unwrap() < first);
}

#[test]
fn a_failed_start_is_fatal_without_a_policy_and_a_failure_with_one() {
    for (restart, expected) in [(RestartPolicy::Never, StateName::Fatal), (RestartPolicy::OnFailure, StateName::Backoff)] {
        let mut world = world(restart);
        world.act(&Action::Execute);
        world.act(&Action::SpawnFails);
        assert_eq!(world.machine.state(), expected);
        assert_eq!(
            world.machine.last_end(),
            Some(End { status: None, cause: Cause::SpawnFailed, by: EndedBy::Itself, lived: Duration::ZERO, unready: false })
        );
    }
}

#[test]
fn a_start_that_hangs_is_killed_and_then_told_of() {
    let mut world = world(RestartPolicy::Always);
    world.act(&Action::Execute);
    world.act(&Action::Quit { timeout: 5, request: false });
    world.act(&Action::DeadlineComes);
    assert!(world.machine.deadline().is_some(), "killed, and waited for");
    world.act(&Action::DeadlineComes);
    assert!(world.counting);
    world.act(&Action::SurvivorsAreCounted);
    assert_eq!(world.answers.values().sum::<u32>(), 1, "whoever asked for the end is told; the start is still under way");
    world.act(&Action::SpawnSucceeds);
    assert_eq!(world.ending, Some(Signal::KILL));
    die(&mut world, ExitStatus::Signalled { signal: 9, core: false });
    assert_eq!(world.machine.state(), StateName::Stopped);
}

#[test]
fn it_can_be_executed_as_soon_as_its_process_has_ended() {
    let mut world = world(RestartPolicy::Never);
    run(&mut world);
    world.act(&Action::MainDies(ExitStatus::Exited(0)));
    world.act(&Action::MainIsReaped);
    assert_eq!(world.machine.state(), StateName::Stopping, "what is left of its tree is looked for");
    world.act(&Action::Execute);
    world.act(&Action::TreeVanishes);
    world.act(&Action::SpawnSucceeds);
    assert_eq!(world.machine.state(), StateName::Running);
    assert_eq!(world.answers.values().sum::<u32>(), 2);
}

/// One that is ready when it says so, within 10 s.
fn telling(restart: RestartPolicy) -> World {
    World::new(Policy { restart, readiness: Readiness::Told { within: Some(Duration::from_secs(10)) }, ..Policy::default() }, 0.5)
}

#[test]
fn it_runs_once_it_says_that_it_is_ready() {
    let mut world = telling(RestartPolicy::Never);
    run(&mut world);
    assert_eq!(world.machine.state(), StateName::Starting);
    world.act(&Action::GetsReady);
    assert_eq!((world.machine.state(), world.machine.deadline()), (StateName::Running, None));
}

#[test]
fn what_does_not_get_ready_in_time_has_failed() {
    let mut world = telling(RestartPolicy::OnFailure);
    run(&mut world);
    let first = world.machine.deadline().unwrap();
    world.act(&Action::TimePasses(9_000));
    world.act(&Action::WantsTime(5));
    assert_eq!(world.machine.deadline(), Some(first + Duration::from_secs(4)), "it asked for 5 s from then");
    world.act(&Action::DeadlineComes);
    assert_eq!((world.machine.state(), world.ending), (StateName::Stopping, Some(Signal::TERM)));
    die(&mut world, ExitStatus::Signalled { signal: 15, core: false });
    assert_eq!(world.machine.state(), StateName::Backoff);
    assert_eq!(world.machine.last_end().map(|end| (end.cause, end.by)), Some((Cause::StartTimeout, EndedBy::StartTimeout)));
}

#[test]
fn an_end_before_it_is_ready_is_a_failure_whatever_its_code() {
    let mut world = telling(RestartPolicy::OnFailure);
    run(&mut world);
    die(&mut world, ExitStatus::Exited(0));
    assert_eq!(world.machine.state(), StateName::Backoff);
}

#[test]
fn what_is_ill_is_ended_and_the_policy_decides() {
    for (restart, expected) in [(RestartPolicy::Never, StateName::Exited), (RestartPolicy::OnFailure, StateName::Backoff)] {
        let mut world = world(restart);
        run(&mut world);
        world.act(&Action::FallsIll);
        die(&mut world, ExitStatus::Exited(0));
        assert_eq!(world.machine.state(), expected);
        assert_eq!(world.machine.last_end().map(|end| end.cause), Some(Cause::Health));
    }
    let mut world = world(RestartPolicy::Always);
    run(&mut world);
    world.act(&Action::FallsIll);
    world.act(&Action::Quit { timeout: 5, request: false });
    die(&mut world, ExitStatus::Exited(0));
    assert_eq!(world.machine.state(), StateName::Stopped, "a quit meanwhile is obeyed");
}

#[test]
fn a_request_to_stop_is_followed_by_the_signal_only_where_it_fails() {
    let mut asked = world(RestartPolicy::Never);
    run(&mut asked);
    asked.act(&Action::Quit { timeout: 5, request: true });
    assert_eq!((asked.requesting, asked.ending), (true, None));
    asked.act(&Action::MainDies(ExitStatus::Exited(0)));
    asked.act(&Action::MainIsReaped);
    assert_eq!(asked.ending, Some(Signal::TERM), "for what it left behind");

    let mut deaf = world(RestartPolicy::Never);
    run(&mut deaf);
    deaf.act(&Action::Quit { timeout: 5, request: true });
    deaf.act(&Action::RequestFails);
    assert_eq!(deaf.ending, Some(Signal::TERM));

    let mut liar = world(RestartPolicy::Never);
    run(&mut liar);
    liar.act(&Action::Quit { timeout: 5, request: true });
    liar.act(&Action::DeadlineComes);
    assert_eq!(liar.ending, Some(Signal::KILL), "after stop_timeout, always");
}

#[test]
fn the_kernels_lack_of_memory_is_a_cause() {
    let mut world = world(RestartPolicy::Never);
    run(&mut world);
    world.main = Main::None;
    world.give(Event::MainExited { status: Some(ExitStatus::Signalled { signal: 9, core: false }), oom: true });
    assert_eq!(world.machine.last_end().map(|end| end.cause), Some(Cause::Oom));
}

#[test]
fn a_start_that_waits_is_withdrawn_at_once() {
    let mut world = world(RestartPolicy::Always);
    world.act(&Action::Execute);
    world.act(&Action::Quit { timeout: 5, request: false });
    assert!(world.withdrawing);
    world.act(&Action::SpawnIsWithdrawn);
    assert_eq!(world.machine.state(), StateName::Stopped);
    assert_eq!(world.answers.values().sum::<u32>(), 2);
}

/// An hour of a command that fails at once: never more starts than the limit allows, in any window.
#[test]
fn an_hour_of_failing_at_once_makes_no_more_starts_than_are_allowed() {
    let interval = Duration::from_secs(30);
    let policy = Policy {
        restart: RestartPolicy::Always,
        backoff: Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(10), ..Backoff::default() },
        start_limit: StartLimit { count: 5, interval },
        ..Policy::default()
    };
    for roll in [0.0, 0.5, 1.0] {
        let mut world = World::new(policy.clone(), roll);
        let end = world.now + Duration::from_secs(3600);
        let mut starts = vec![world.now];
        run(&mut world);
        while world.now < end && world.machine.state() != StateName::Fatal {
            die(&mut world, ExitStatus::Exited(1));
            if world.machine.state() == StateName::Backoff {
                world.act(&Action::DeadlineComes);
                starts.push(world.now);
                world.act(&Action::SpawnSucceeds);
            }
        }
        for start in &starts {
            let within = starts.iter().filter(|other| **other >= *start && other.duration_since(*start) < interval).count();
            assert!(within <= 5, "{within} starts within 30 s");
        }
    }
}

#[test]
fn starts_by_a_schedule_are_made_and_count() {
    let mut world = World::new(Policy { restart: RestartPolicy::OnFailure, ..Policy::default() }, 0.5);
    let mut by_policy = 0;
    for second in 0..20 {
        let due = world.now + Duration::from_secs(1);
        if world.machine.is_at_rest() || world.machine.state() == StateName::Backoff {
            world.told_to_rest = false;
            let token = world.token();
            world.give(Event::Execute { token, launch: 1, origin: Origin::Schedule });
            world.act(&Action::SpawnSucceeds);
            assert_eq!(world.machine.state(), StateName::Running, "at second {second}");
        }
        while world.machine.state() == StateName::Running {
            die(&mut world, ExitStatus::Exited(1));
            if world.machine.next_start().is_some_and(|next| next < due) {
                world.act(&Action::DeadlineComes);
                world.act(&Action::SpawnSucceeds);
                by_policy += 1;
            }
        }
        world.now = due;
    }
    assert!(by_policy <= 4, "the policy started {by_policy} times within 20 s, beside a start each second");
}

#[test]
fn a_quit_withdraws_the_start_that_the_daemon_was_about_to_make() {
    let found = || (Found::AtRest { state: StateName::Backoff, end: None, start: true }, 0);
    let start = |origin| Event::Execute { token: Token(70), launch: 4, origin };
    for quit in [false, true] {
        let mut world = world(RestartPolicy::Always);
        world.recover(found());
        assert_eq!((world.machine.state(), world.machine.wanted()), (StateName::Stopped, Wanted::Up));
        if quit {
            world.act(&Action::Quit { timeout: 1, request: false });
        }
        let effects = world.machine.handle(start(Origin::Autostart), world.now, 0.5);
        let overtaken = effects.contains(&Effect::Answer(Token(70), Answer::Refused(Refusal::Overtaken)));
        assert_eq!((overtaken, world.machine.state()), (quit, if quit { StateName::Stopped } else { StateName::Starting }));
        assert_eq!((world.machine.restarts(), world.machine.attempt()), (2, 1), "what the policy had counted");
        if quit {
            world.machine.handle(start(Origin::Execute), world.now, 0.5);
            assert_eq!((world.machine.state(), world.machine.restarts()), (StateName::Starting, 0), "whoever asks gets it");
        }
    }
}
