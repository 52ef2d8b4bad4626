//! Where the program is that takes over: what is there may be another one by now.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The program that takes over.
#[derive(Clone, Debug)]
pub struct Successor {
    /// By which path this one was started: a package that was installed meanwhile has put another one there.
    pub program: PathBuf,
    /// Its arguments, the name first.
    pub arguments: Vec<OsString>,
}

impl Successor {
    /// What is where this program was started from, with the same arguments. To be asked at the start, while that still is this one.
    ///
    /// That is not `/proc/self/exe`, which has no symbolic links in it: a package may well put another link in the place of one that leads to a version.
    pub fn of_this() -> Option<Self> {
        let arguments: Vec<OsString> = env::args_os().collect();
        let is_this = |path: &Path| {
            let inode = |path: &Path| fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
            inode(path).is_some() && inode(path) == inode(Path::new("/proc/self/exe"))
        };
        let called = arguments.first().and_then(|name| {
            let directories = env::var_os("PATH").unwrap_or_default();
            candidates(name, &env::current_dir().ok()?, &directories).into_iter().find(|path| is_program(path))
        });
        // Whoever starts a program may call it anything.
        let program = match called.filter(|path| is_this(path)) {
            Some(path) => path,
            None => env::current_exe().inspect_err(|error| tracing::warn!(%error, "this daemon cannot be upgraded in place")).ok()?,
        };
        Some(Self { program, arguments })
    }
}

/// Where a program may be that is called by this name, as execvp(3) looks for it.
fn candidates(name: &OsStr, directory: &Path, path: &OsStr) -> Vec<PathBuf> {
    if name.is_empty() {
        Vec::new()
    } else if name.as_bytes().contains(&b'/') {
        vec![directory.join(name)]
    } else {
        env::split_paths(path).map(|entry| directory.join(entry).join(name)).collect()
    }
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_looked_for_as_a_shell_does() {
        let found = |name: &str| candidates(name.as_ref(), Path::new("/srv"), "/usr/bin::bin:/bin".as_ref());
        let paths = |paths: &[&str]| paths.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(found("procmand"), paths(&["/usr/bin/procmand", "/srv/procmand", "/srv/bin/procmand", "/bin/procmand"]));
        assert_eq!(found("/usr/bin/procmand"), paths(&["/usr/bin/procmand"]));
        assert_eq!(found("target/procmand"), paths(&["/srv/target/procmand"]));
        assert_eq!(found(""), paths(&[]));
    }
}
