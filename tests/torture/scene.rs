//! What there is to supervise: a hundred sub-processes of several kinds, and the daemon's configuration.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use procman::client::Endpoint;
use tempfile::TempDir;

use super::child::{self, Kind};
use super::truth;

/// What a scene varies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Means {
    /// Somebody keeps descriptors for the next daemon.
    pub(crate) store: bool,
    /// Runs have control groups.
    pub(crate) groups: bool,
}

impl Means {
    pub(crate) const ALL: [Self; 4] = [
        Self { store: true, groups: true },
        Self { store: true, groups: false },
        Self { store: false, groups: true },
        Self { store: false, groups: false },
    ];

    /// As part of a test's name.
    pub(crate) fn words(self) -> String {
        let word = |has, what| if has { format!("with_{what}") } else { format!("without_{what}") };
        format!("{}_{}", word(self.store, "store"), word(self.groups, "groups"))
    }
}

/// What is expected of a sub-process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Nobody touches it: it keeps its process through everything.
    Rock,
    /// It ends again and again, and is started again and again.
    Loop,
    /// The operator starts it, and it ends by itself.
    Once,
    /// The operator starts, quits and restarts it.
    Toy,
}

/// Kinds and numbers of sub-processes.
const CAST: [(&str, u32, Part, Kind); 7] = [
    ("rock", 25, Part::Rock, Kind::Stay),
    ("told", 10, Part::Rock, Kind::Tell),
    ("loop", 20, Part::Loop, Kind::Brief),
    ("fork", 10, Part::Loop, Kind::Fork),
    ("blip", 5, Part::Loop, Kind::TellBriefly),
    ("once", 15, Part::Once, Kind::Brief),
    ("toy", 15, Part::Toy, Kind::Stay),
];

/// A directory with all that a daemon needs.
#[derive(Debug)]
pub(crate) struct Scene {
    dir: TempDir,
    pub(crate) means: Means,
    pub(crate) names: Vec<(String, Part)>,
}

impl Scene {
    pub(crate) fn set(means: Means) -> Self {
        let dir = tempfile::Builder::new().prefix("pt").tempdir().unwrap();
        fs::create_dir(dir.path().join(child::LOCKS)).unwrap();
        let groups = if means.groups { "auto" } else { "off" };
        let mut text = format!(
            "[daemon]\nstate_dir = 'state'\nruntime_dir = 'run'\ncgroup = '{groups}'\n[control]\nendpoints = ['ipc://{}/c.sock']\n[metrics]\nlisten = '127.0.0.1:0'\n",
            dir.path().display()
        );
        let mut names = Vec::new();
        for (word, count, part, kind) in CAST {
            // What is said while no daemon lives and nobody keeps its socket is lost, so it is said again.
            let kind = if kind == Kind::Tell && !means.store { Kind::Repeat } else { kind };
            for number in 0..count {
                let name = format!("{word}-{number:02}");
                write!(text, "{}", definition(&name, part, kind, dir.path())).unwrap();
                names.push((name, part));
            }
        }
        fs::write(dir.path().join("procmand.toml"), text).unwrap();
        Self { dir, means, names }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("procmand.toml")
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::Ipc(self.dir.path().join("c.sock"))
    }

    pub(crate) fn of(&self, wanted: Part) -> Vec<&str> {
        self.names.iter().filter(|(_, part)| *part == wanted).map(|(name, _)| name.as_str()).collect()
    }

    /// Puts the logs of all daemons, and what their sub-processes wrote, where they stay; says where.
    pub(crate) fn save_log(&self) -> String {
        let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("torture_{}", self.means.words()));
        fs::create_dir_all(&to).unwrap();
        for file in ["log", truth::FILE, "executed"] {
            drop(fs::copy(self.dir.path().join(file), to.join(file))); // there may be none yet
        }
        to.display().to_string()
    }
}

fn definition(name: &str, part: Part, kind: Kind, dir: &Path) -> String {
    let program = std::env::current_exe().unwrap();
    let (program, dir) = (program.display(), dir.display());
    let mut text = format!("[[process]]\nname = '{name}'\ncmd = ['{program}', '{}', '{}', '{name}', '{dir}']\n", child::ROLE, kind.word());
    text += match part {
        Part::Rock | Part::Loop => "autostart = true\nrestart = 'always'\n",
        Part::Once => "restart = 'never'\n",
        Part::Toy => "restart = 'always'\n",
    };
    text += "backoff = { initial = 0.1, factor = 1.0, max = 0.1, jitter = 0.5 }\nstart_limit = { count = 0 }\n";
    if matches!(kind, Kind::Tell | Kind::Repeat | Kind::TellBriefly) {
        text += "ready = { notify = true, timeout = 60.0 }\n";
    }
    text
}
