//! `instances = N`: one definition for `NAME@1` to `NAME@N`, told apart here, before each is checked on its own.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::protocol::Name;
use crate::protocol::definition::{Definition, Output};

use super::{Problem, Spec};

/// The most instances that one definition may stand for.
pub const MAX_INSTANCES: u32 = 1000;

/// The specification of each sub-process that a definition stands for, with all that is wrong told at once: one, or where `instances` is said, so many.
///
/// # Errors
/// As [`Spec::resolve`], those of the first instance that has any: what is wrong with one is wrong with all, but for what `%i` makes of it.
pub fn resolve(name: &Name, definition: Definition) -> Result<Vec<Spec>, Vec<Problem>> {
    expand(name, definition)
        .map_err(|problem| vec![problem])?
        .into_iter()
        .map(|(instance, definition)| Ok(Spec { definition: name.clone(), ..Spec::resolve(instance, definition)? }))
        .collect()
}

/// The name of an instance.
///
/// # Errors
/// It would be too long.
pub fn instance_name(name: &Name, number: u32) -> Result<Name, Problem> {
    format!("{name}@{number}").parse().map_err(|_| Problem {
        key: "instances",
        message: format!("the names of the instances would be longer than {} characters: {name}@{number}", Name::MAX_LEN),
    })
}

/// What a definition stands for, each with its own name and its own number in the place of `%i`.
fn expand(name: &Name, mut definition: Definition) -> Result<Vec<(Name, Definition)>, Problem> {
    let Some(count) = definition.instances.take() else { return Ok(vec![(name.clone(), definition)]) };
    if !(1..=MAX_INSTANCES).contains(&count) {
        return Err(Problem { key: "instances", message: format!("there can be 1 to {MAX_INSTANCES} of them") });
    }
    definition.group.get_or_insert_with(|| name.clone());
    // The last name is the longest.
    instance_name(name, count)?;
    (1..=count).map(|number| Ok((instance_name(name, number)?, numbered(definition.clone(), number)))).collect()
}

/// Puts the number into every text that is meant for the sub-process.
fn numbered(mut definition: Definition, number: u32) -> Definition {
    let number = number.to_string();
    let text = |text: &mut String| {
        if text.contains('%') {
            *text = String::from_utf8(fill_in(text.as_bytes(), &number)).unwrap_or_default();
        }
    };
    let path = |path: &mut PathBuf| *path = OsString::from_vec(fill_in(path.as_os_str().as_encoded_bytes(), &number)).into();
    let Definition { cmd, args, env, cwd, env_file, stdout, stderr, ready, health, stop_request, cgse_service_type, .. } = &mut definition;
    [cmd, args].into_iter().flatten().flatten().for_each(text);
    env.iter_mut().flat_map(|env| env.values_mut()).for_each(text);
    cwd.iter_mut().for_each(path);
    env_file.iter_mut().for_each(|file| path(&mut file.path));
    for output in [stdout, stderr].into_iter().flatten() {
        if let Output::File(file) = output {
            path(file);
        }
    }
    if let Some(ready) = ready {
        [&mut ready.zmq, &mut ready.tcp, &mut ready.http, &mut ready.expect, &mut ready.cgse].into_iter().flatten().for_each(text);
        [&mut ready.frames, &mut ready.exec].into_iter().flatten().flatten().for_each(text);
        [&mut ready.unix, &mut ready.file].into_iter().flatten().for_each(path);
    }
    if let Some(health) = health {
        [&mut health.zmq, &mut health.tcp, &mut health.http, &mut health.expect, &mut health.cgse].into_iter().flatten().for_each(text);
        [&mut health.frames, &mut health.exec].into_iter().flatten().flatten().for_each(text);
        [&mut health.unix, &mut health.file].into_iter().flatten().for_each(path);
    }
    if let Some(request) = stop_request {
        [&mut request.zmq, &mut request.cgse].into_iter().flatten().for_each(text);
        [&mut request.frames, &mut request.exec].into_iter().flatten().flatten().for_each(text);
    }
    cgse_service_type.iter_mut().for_each(text);
    definition
}

/// `%i` is the number and `%%` is `%`; every other `%` is what it is.
fn fill_in(text: &[u8], number: &str) -> Vec<u8> {
    let mut filled = Vec::with_capacity(text.len());
    let mut rest = text.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        match (byte, rest.peek()) {
            (b'%', Some(b'i')) => {
                filled.extend_from_slice(number.as_bytes());
                rest.next();
            }
            (b'%', Some(b'%')) => {
                filled.push(b'%');
                rest.next();
            }
            _ => filled.push(byte),
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn specs(name: &str, definition: serde_json::Value) -> Result<Vec<Spec>, Vec<Problem>> {
        resolve(&name.parse().unwrap(), serde_json::from_value(definition).unwrap())
    }

    #[test]
    fn each_instance_has_its_name_and_its_number() {
        let specs = specs(
            "web",
            json!({
                "cmd": ["serve", "--port=80%i", "%%i", "50%", "%d"], "args": ["%i%i"], "env": {"N%i": "%i"}, "cwd": "/srv/%i", "env_file": "-/etc/%i",
                "stdout": "file:/log/%i.out", "stderr": "file:/log/%i.err", "instances": 3, "ready": {"zmq": "tcp://h:90%i", "frames": ["%i"], "expect": "%i"},
                "health": {"file": "/run/%i"}, "stop_request": {"exec": ["stop", "%i"]}, "cgse_service_type": "DAQ_%i"
            }),
        )
        .unwrap();
        assert_eq!(specs.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>(), ["web@1", "web@2", "web@3"]);
        assert!(specs.iter().all(|spec| spec.group.as_ref().is_some_and(|group| group.as_str() == "web")));
        let alone = json!({
            "cmd": ["serve", "--port=802", "%i", "50%", "%d"], "args": ["22"], "env": {"N%i": "2"}, "cwd": "/srv/2", "env_file": "-/etc/2",
            "stdout": "file:/log/2.out", "stderr": "file:/log/2.err", "group": "web", "ready": {"zmq": "tcp://h:902", "frames": ["2"], "expect": "2"},
            "health": {"file": "/run/2"}, "stop_request": {"exec": ["stop", "2"]}, "cgse_service_type": "DAQ_2"
        });
        let alone = Spec::resolve("web@2".parse().unwrap(), serde_json::from_value(alone).unwrap()).unwrap();
        assert_eq!((alone.definition.as_str(), specs[1].definition.as_str()), ("web@2", "web"));
        assert_eq!(specs[1], Spec { definition: "web".parse().unwrap(), ..alone });
    }

    #[test]
    fn without_instances_nothing_is_replaced() {
        let specs = specs("web", json!({"cmd": ["date", "+%i %%"]})).unwrap();
        assert_eq!((specs.len(), specs[0].name.as_str(), specs[0].group.as_ref()), (1, "web", None));
        assert_eq!(specs[0].cmd, ["date", "+%i %%"]);
    }

    #[test]
    fn there_are_limits() {
        for (name, count, why) in [("web", 0, "1 to 1000"), ("web", 1001, "1 to 1000"), (&*"x".repeat(62), 10, "longer than 64")] {
            let problems = specs(name, json!({"cmd": ["x"], "instances": count})).unwrap_err();
            assert!(problems.len() == 1 && problems[0].key == "instances" && problems[0].message.contains(why), "{problems:?}");
        }
        assert_eq!(specs(&"x".repeat(62), json!({"cmd": ["x"], "instances": 9})).unwrap().len(), 9);
        assert_eq!(specs("web", json!({"cmd": [], "instances": 1000})).unwrap_err().len(), 1, "told once");
    }

    proptest! {
        #[test]
        fn only_what_is_said_is_replaced(text in "[%ia]{0,12}") {
            let filled = String::from_utf8(fill_in(text.as_bytes(), "7")).unwrap();
            let expected = text.replace("%%", "\0").replace("%i", "7").replace('\0', "%");
            prop_assert_eq!(filled, expected);
        }
    }
}
