//! Random histories of operations against a model of what must be there afterwards.

use proptest::prelude::*;

use super::*;

pub(super) const BOUNDS: Bounds = Bounds { of_one: 3, of_all: 8, bytes: usize::MAX };

/// A sequence of numbers that a seed decides.
pub(super) struct Random(pub(super) u64);

impl Random {
    /// Less than `below` (xorshift).
    pub(super) fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }
}

#[derive(Clone, Debug)]
pub(super) enum Operation {
    Begin(RunRow),
    Change(String, RunChange),
    End(PastRun),
    Forget(String),
    Stand(StandingRow),
    Unstand(Name),
    Define(Name, Box<Definition>),
    Undefine(Name),
    Audit(AuditEntry),
    Flush,
}

/// What must be on the disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Model {
    pub(super) definitions: BTreeMap<Name, Definition>,
    pub(super) runs: BTreeMap<String, RunRow>,
    pub(super) standings: BTreeMap<Name, StandingRow>,
    pub(super) history: Vec<PastRun>,
    pub(super) audit: Vec<AuditEntry>,
}

impl Model {
    /// The operation of this number, in this state.
    pub(super) fn next(&self, number: u64, random: &mut Random) -> Operation {
        let of = ["a", "b", "c", "d"][random.below(4) as usize];
        let some_run = |random: &mut Random| {
            let at = random.below(self.runs.len().max(1) as u64) as usize;
            self.runs.keys().nth(at).map_or_else(|| "nobody".to_owned(), Clone::clone)
        };
        match random.below(14) {
            0..=2 => Operation::Begin(run(&format!("run-{number}"), of)),
            3 => Operation::Change(some_run(random), RunChange::Started(process(number as u32))),
            4 => Operation::Change(some_run(random), RunChange::MainMoved { pid: number as u32, start_time: number }),
            5 => Operation::Change(some_run(random), RunChange::Ready(random.below(2) == 0)),
            6 => {
                let ending = (random.below(2) == 0).then_some(EndingRow { by: EndedBy::Reap, then_start: false });
                Operation::Change(some_run(random), RunChange::Ending(ending))
            }
            7 => {
                let uuid = some_run(random);
                let of = self.runs.get(&uuid).map_or(of, |run| run.name.as_str()).to_owned();
                Operation::End(past(&uuid, &of))
            }
            8 => match self.history.get(random.below(8) as usize) {
                Some(again) => Operation::End(PastRun { message: Some("again".into()), ..again.clone() }),
                None => Operation::Forget(some_run(random)),
            },
            9 => Operation::Stand(standing(of, random.below(3))),
            10 => Operation::Unstand(name(of)),
            11 if random.below(2) == 0 => Operation::Undefine(name(of)),
            11 => Operation::Define(name(of), definition(&random.below(3).to_string()).into()),
            12 => Operation::Audit(entry(&number.to_string(), Some(of))),
            _ => Operation::Flush,
        }
    }

    pub(super) fn apply(&mut self, operation: &Operation) {
        match operation.clone() {
            Operation::Begin(run) => drop(self.runs.insert(run.uuid.clone(), run)),
            Operation::Change(uuid, change) => {
                let Some(run) = self.runs.get_mut(&uuid) else { return };
                match change {
                    RunChange::Started(process) => run.process = Some(process),
                    RunChange::MainMoved { pid, start_time } => {
                        run.process = run.process.take().map(|process| ProcessRow { pid, start_time, ..process });
                    }
                    RunChange::Ready(ready) => run.ready = ready,
                    RunChange::Ending(ending) => run.ending = ending,
                }
            }
            Operation::End(run) => {
                if self.history.iter().any(|known| known.uuid == run.uuid) {
                    return;
                }
                let same = |known: &&PastRun| known.name == run.name;
                if self.history.iter().filter(same).count() == BOUNDS.of_one {
                    let oldest = self.history.iter().position(|known| known.name == run.name).unwrap();
                    self.history.remove(oldest);
                }
                self.history.push(run);
                if self.history.len() > BOUNDS.of_all {
                    self.history.remove(0);
                }
            }
            Operation::Forget(uuid) => drop(self.runs.remove(&uuid)),
            Operation::Stand(row) => drop(self.standings.insert(row.name.clone(), row)),
            Operation::Unstand(name) => drop(self.standings.remove(&name)),
            Operation::Define(name, definition) => drop(self.definitions.insert(name, *definition)),
            Operation::Undefine(name) => drop(self.definitions.remove(&name)),
            Operation::Audit(entry) => self.audit.push(entry),
            Operation::Flush => {}
        }
    }

    /// What a store holds, in the model's form.
    pub(super) fn of(opened: &Opened) -> Self {
        let recovered = opened.recovered.clone();
        let mut audit = opened.store.audit_log(None, usize::MAX).unwrap();
        audit.reverse();
        Self {
            definitions: recovered.definitions.into_iter().collect(),
            runs: recovered.runs.into_iter().map(|run| (run.uuid.clone(), run)).collect(),
            standings: recovered.standings.into_iter().map(|row| (row.name.clone(), row)).collect(),
            history: recovered.history,
            audit,
        }
    }
}

/// Hands it over; waits for it where it is one to wait for.
pub(super) fn perform(store: &Store, operation: &Operation) -> Option<Committed> {
    match operation.clone() {
        Operation::Begin(run) => return Some(store.begin(run)),
        Operation::Change(uuid, change) => store.change(&uuid, change),
        Operation::End(run) => store.end(&run),
        Operation::Forget(uuid) => drop(store.forget(&uuid)),
        Operation::Stand(row) => store.stand(row),
        Operation::Unstand(name) => store.unstand(&name),
        Operation::Define(name, definition) => return Some(store.define(&name, &definition)),
        Operation::Undefine(name) => return Some(store.undefine(&name)),
        Operation::Audit(entry) => store.audit(&entry),
        Operation::Flush => return Some(store.flush()),
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn what_must_be_there_is_there(seed in 1_u64.., lengths in prop::collection::vec(0_u64..60, 1..4)) {
        let dir = tempfile::tempdir().unwrap();
        let (mut model, mut random, mut number) = (Model::default(), Random(seed), 0);
        for length in lengths {
            let opened = Store::open_bounded(dir.path(), watcher().0, BOUNDS).unwrap();
            prop_assert_eq!(&Model::of(&opened), &model);
            for _ in 0..length {
                number += 1;
                let operation = model.next(number, &mut random);
                model.apply(&operation);
                if let Some(committed) = perform(&opened.store, &operation) && random.below(2) == 0 {
                    committed.wait(LONG).unwrap();
                }
            }
            opened.store.close(Farewell::Quit);
        }
        let opened = Store::open_bounded(dir.path(), watcher().0, BOUNDS).unwrap();
        prop_assert_eq!(&Model::of(&opened), &model);
        opened.store.close(Farewell::Quit);
    }
}
