//! The paths that are used where nobody says another.
//!
//! | | root | everybody else |
//! |---|---|---|
//! | configuration | `/etc/procman/procmand.toml` | `$XDG_CONFIG_HOME/procman/procmand.toml`, else `~/.config/procman/procmand.toml` |
//! | `daemon.state_dir` | `/var/lib/procman` | `$XDG_STATE_HOME/procman`, else `~/.local/state/procman` |
//! | `daemon.runtime_dir` | `/run/procman` | `$XDG_RUNTIME_DIR/procman`, else `run` in the state directory |
//!
//! As the XDG base directory specification demands, a variable that does not hold an absolute path counts as unset.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use nix::unistd::{User, geteuid};

/// Default paths of one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The configuration file that is read without `--config`; `None` for a user without a home directory.
    pub config_file: Option<PathBuf>,
    /// Default of `daemon.state_dir`.
    pub state_dir: Option<PathBuf>,
    /// Default of `daemon.runtime_dir`.
    pub runtime_dir: Option<PathBuf>,
}

impl Places {
    /// Those of root, and of the service that the distribution starts.
    pub fn system() -> Self {
        Self {
            config_file: Some("/etc/procman/procmand.toml".into()),
            state_dir: Some("/var/lib/procman".into()),
            runtime_dir: Some("/run/procman".into()),
        }
    }

    /// Those of the effective user of this process, from its environment.
    pub fn of_this_user() -> Self {
        if geteuid().is_root() {
            return Self::system();
        }
        let of_account = || User::from_uid(geteuid()).ok().flatten().map(|user| user.dir.into_os_string());
        Self::of_user(|variable| std::env::var_os(variable).or_else(|| if variable == "HOME" { of_account() } else { None }))
    }

    /// Those of a user other than root, whose environment is `variable`.
    fn of_user(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
        let below = |base: &str, in_home: &str| {
            absolute(base).or_else(|| absolute("HOME").map(|home| home.join(in_home))).map(|path| path.join("procman"))
        };
        let state_dir = below("XDG_STATE_HOME", ".local/state");
        let runtime_dir = absolute("XDG_RUNTIME_DIR")
            .map(|path| path.join("procman"))
            .or_else(|| state_dir.as_deref().map(|state_dir: &Path| state_dir.join("run")));
        Self { config_file: below("XDG_CONFIG_HOME", ".config").map(|dir| dir.join("procmand.toml")), state_dir, runtime_dir }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(variables: &[(&str, &str)]) -> Places {
        Places::of_user(|name| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    }

    fn places(config: &str, state: &str, runtime: &str) -> Places {
        Places { config_file: Some(config.into()), state_dir: Some(state.into()), runtime_dir: Some(runtime.into()) }
    }

    #[test]
    fn the_environment_says_where() {
        let all = [("HOME", "/h"), ("XDG_CONFIG_HOME", "/c"), ("XDG_STATE_HOME", "/s"), ("XDG_RUNTIME_DIR", "/r")];
        assert_eq!(user(&all), places("/c/procman/procmand.toml", "/s/procman", "/r/procman"));
    }

    #[test]
    fn a_home_is_enough() {
        let expected = places("/h/.config/procman/procmand.toml", "/h/.local/state/procman", "/h/.local/state/procman/run");
        assert_eq!(user(&[("HOME", "/h")]), expected);
        let relative = [("HOME", "/h"), ("XDG_CONFIG_HOME", "c"), ("XDG_STATE_HOME", ""), ("XDG_RUNTIME_DIR", "./r")];
        assert_eq!(user(&relative), expected);
    }

    #[test]
    fn without_a_home_nothing_is_invented() {
        assert_eq!(user(&[]), Places { config_file: None, state_dir: None, runtime_dir: None });
    }
}
