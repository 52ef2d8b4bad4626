//! Which programs may be registered by TCP: those that match `control.allow_programs`, and nothing by which another one could be run in their place.

use std::fmt;
use std::path::{Component, Path};

use glob::{MatchOptions, Pattern};

use crate::protocol::definition::{Definition, Output};
use crate::protocol::request::{Command, Execute, Restart};
use crate::protocol::{ErrorCode, WireError};

/// Patterns of paths.
#[derive(Clone, Debug, PartialEq)]
pub struct Programs(Vec<Pattern>);

/// What the dynamic loader heeds begins so (ld.so(8)): by that a program is made to run anything.
const LOADER: &str = "LD_";

/// A text that is no pattern of programs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{shown:?} is no pattern of programs: {why}")]
pub struct InvalidProgram {
    shown: String,
    why: String,
}

impl Programs {
    /// Those that match one of these. `*` and `?` do not stand for a slash, `**` stands for directories.
    ///
    /// # Errors
    /// One is no pattern, or not of absolute paths.
    pub fn of<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Result<Self, InvalidProgram> {
        let parsed = patterns.into_iter().map(|text| {
            let no = |why: &str| InvalidProgram { shown: text.chars().take(160).collect(), why: why.to_owned() };
            if !text.starts_with('/') {
                return Err(no("it must be an absolute path, such as \"/opt/cgse/bin/*\""));
            }
            Pattern::new(text).map_err(|error| no(error.msg))
        });
        Ok(Self(parsed.collect::<Result<_, _>>()?))
    }

    fn covers(&self, program: &str) -> bool {
        let options = MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };
        let is_plain = Path::new(program).is_absolute() && !Path::new(program).components().any(|part| part == Component::ParentDir);
        is_plain && self.0.iter().any(|pattern| pattern.matches_with(program, options))
    }

    /// Refuses a command that would run something else.
    ///
    /// # Errors
    /// `permission_denied`, with the reason.
    pub fn allow(&self, command: &Command) -> Result<(), WireError> {
        if let Command::Register(request) = command {
            self.allow_definition(&request.definition)
        } else if let Command::Execute(Execute { env, .. }) | Command::Restart(Restart { env, .. }) = command {
            no_loader(env.keys())
        } else {
            Ok(())
        }
    }

    fn allow_definition(&self, definition: &Definition) -> Result<(), WireError> {
        if definition.shell == Some(true) {
            return Err(refused("`shell` runs any program"));
        }
        let Definition { cmd, ready, health, stop_request, .. } = definition;
        let asked = [
            ready.as_ref().and_then(|ready| ready.exec.as_ref()),
            health.as_ref().and_then(|health| health.exec.as_ref()),
            stop_request.as_ref().and_then(|request| request.exec.as_ref()),
        ];
        let programs = cmd.iter().chain(asked.into_iter().flatten()).filter_map(|words| words.first());
        for program in programs {
            if !self.covers(program) {
                return Err(refused(&format!("{program:?} is none of {self}")));
            }
        }
        if [&definition.stdout, &definition.stderr].into_iter().flatten().any(|output| matches!(output, Output::File(_))) {
            return Err(refused("an output to a file writes anywhere"));
        }
        if definition.env_file.is_some() {
            return Err(refused("what an `env_file` holds is not known"));
        }
        no_loader(definition.env.iter().flat_map(|env| env.keys()))
    }
}

fn no_loader<'k>(keys: impl IntoIterator<Item = &'k String>) -> Result<(), WireError> {
    match keys.into_iter().find(|key| key.starts_with(LOADER)) {
        Some(key) => Err(refused(&format!("{key} in the environment runs any program"))),
        None => Ok(()),
    }
}

fn refused(why: &str) -> WireError {
    WireError::new(ErrorCode::PermissionDenied, format!("not by TCP: {why} (control.allow_programs of the daemon's configuration)"))
}

/// The patterns, for people.
impl fmt::Display for Programs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.0.iter().map(Pattern::as_str).collect();
        f.write_str(&words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn register(definition: Value) -> Result<(), String> {
        let programs = Programs::of(["/opt/cgse/bin/*", "/usr/bin/python3"]).unwrap();
        let definition: Definition = serde_json::from_value(definition).unwrap();
        programs.allow_definition(&definition).map_err(|error| error.message)
    }

    #[test]
    fn only_these_programs_and_no_way_around() {
        assert_eq!(register(json!({"cmd": ["/opt/cgse/bin/rs_cs", "start"], "env": {"A": "b"}, "stdout": "log"})), Ok(()));
        assert_eq!(register(json!({"cmd": ["/usr/bin/python3"], "ready": {"exec": ["/opt/cgse/bin/check"]}})), Ok(()));
        for (definition, words) in [
            (json!({"cmd": ["/bin/sh", "-c", "x"]}), "is none of"),
            (json!({"cmd": ["python3"]}), "is none of"),
            (json!({"cmd": ["/opt/cgse/bin/../../../bin/sh"]}), "is none of"),
            (json!({"cmd": ["/opt/cgse/bin/x/y"]}), "is none of"),
            (json!({"cmd": ["/usr/bin/python3"], "shell": true}), "shell"),
            (json!({"cmd": ["/usr/bin/python3"], "health": {"exec": ["/bin/sh"]}}), "is none of"),
            (json!({"cmd": ["/usr/bin/python3"], "stop_request": {"exec": ["/bin/sh"]}}), "is none of"),
            (json!({"cmd": ["/usr/bin/python3"], "env": {"LD_PRELOAD": "/tmp/x.so"}}), "LD_PRELOAD"),
            (json!({"cmd": ["/usr/bin/python3"], "stdout": "file:/etc/cron.d/x"}), "file"),
            (json!({"cmd": ["/usr/bin/python3"], "env_file": "/tmp/x"}), "env_file"),
        ] {
            let message = register(definition.clone()).unwrap_err();
            assert!(message.contains(words) && message.contains("allow_programs"), "{definition}: {message}");
        }
        for bad in ["bin/*", "", "/opt/["] {
            assert!(Programs::of([bad]).is_err(), "{bad:?}");
        }
    }
}
