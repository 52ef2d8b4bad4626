//! Real services, as Debian packages them: where they are, and free ports for them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::is_root;

/// Where programs and libraries of services are found: on this machine, and where `make test` unpacked what is not installed.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    /// What to search for programs, as `PATH`.
    pub(crate) path: String,
    /// What to search for libraries, as `LD_LIBRARY_PATH`.
    pub(crate) libraries: String,
}

impl Services {
    /// Below this directory, a copy of what was unpacked, should the repository lie where only root may go: some services refuse to run as root.
    pub(crate) fn find(scratch: &Path) -> Self {
        let mut tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/debian");
        if is_root() && tree.exists() && !is_open_to_nobody(&tree) {
            let copy = scratch.join("debian");
            assert!(run("cp", &["-a".into(), tree.into(), copy.clone().into()]), "cannot copy the services");
            tree = copy;
        }
        let mut path: Vec<PathBuf> = Vec::new();
        for root in [tree.as_path(), Path::new("/")] {
            path.extend(["usr/bin", "usr/sbin"].map(|directory| root.join(directory)));
            path.extend(entries(&root.join("usr/lib/postgresql")).map(|version| version.join("bin")));
        }
        let libraries = ["usr/lib", "lib"].into_iter().flat_map(|directory| entries(&tree.join(directory)).collect::<Vec<_>>());
        let libraries = libraries.filter(|path| path.to_string_lossy().contains("-linux-gnu"));
        let own = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(path.into_iter().chain(std::env::split_paths(&own))).unwrap();
        Self { path: path.into_string().unwrap(), libraries: std::env::join_paths(libraries).unwrap().into_string().unwrap() }
    }

    /// A file among the libraries, of the machine or unpacked.
    pub(crate) fn library(&self, name: &str) -> PathBuf {
        let own = entries(Path::new("/usr/lib")).filter(|path| path.to_string_lossy().contains("-linux-gnu"));
        let found = std::env::split_paths(&self.libraries).chain(own).map(|directory| directory.join(name)).find(|path| path.exists());
        found.unwrap_or_else(|| panic!("there is no {name}: `make test` unpacks it"))
    }
}

/// What a directory holds; nothing when it is not there.
fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path())
}

fn run(program: &str, arguments: &[OsString]) -> bool {
    Command::new(program).args(arguments).stdin(Stdio::null()).status().unwrap().success()
}

/// Whether a user without any right may go there.
fn is_open_to_nobody(path: &Path) -> bool {
    let words = ["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--", "test", "-x"];
    run("setpriv", &words.map(OsString::from).into_iter().chain([path.into()]).collect::<Vec<_>>())
}

/// So many ports of the loopback that nobody listens at. None is of those that the kernel gives to connections, lest one takes it meanwhile.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    let mut free = BTreeSet::new();
    // Where to begin is a matter of luck, so that tests at the same time do not choose the same.
    let mut candidates = (0..).map(|i| 10_000 + (uuid::Uuid::new_v4().as_u128().wrapping_add(i) % 20_000) as u16);
    while free.len() < count {
        let port = candidates.next().unwrap();
        if is_free(port) {
            free.insert(port);
        }
    }
    free.into_iter().collect()
}

/// Whether nobody listens at a port of the loopback.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}
