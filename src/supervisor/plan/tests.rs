use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::protocol::definition::Definition;

fn spec(name: &str, keys: &Value) -> Spec {
    let mut definition = json!({"cmd": ["sleep", "9"]});
    definition.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    let definition: Definition = serde_json::from_value(definition).unwrap();
    Spec::resolve(name.parse().unwrap(), definition).unwrap()
}

#[test]
fn what_a_process_is_started_with_needs_a_restart_and_the_rest_does_not() {
    let none = json!({});
    let probe = |address: &str| json!({"tcp": address});
    for (change, before, after) in [
        (Change::Restart, none.clone(), json!({"cmd": ["sleep", "8"]})),
        (Change::Restart, none.clone(), json!({"args": ["x"]})),
        (Change::Restart, none.clone(), json!({"shell": true})),
        (Change::Restart, none.clone(), json!({"env": {"A": "1"}})),
        (Change::Restart, none.clone(), json!({"clear_env": true})),
        (Change::Restart, none.clone(), json!({"env_file": "/x"})),
        (Change::Restart, none.clone(), json!({"cwd": "/"})),
        (Change::Restart, none.clone(), json!({"user": "nobody"})),
        (Change::Restart, none.clone(), json!({"user_group": "nogroup"})),
        (Change::Restart, none.clone(), json!({"supplementary_groups": []})),
        (Change::Restart, none.clone(), json!({"umask": "077"})),
        (Change::Restart, none.clone(), json!({"nice": 1})),
        (Change::Restart, none.clone(), json!({"oom_score_adj": 1})),
        (Change::Restart, none.clone(), json!({"no_new_privs": true})),
        (Change::Restart, none.clone(), json!({"limits": {"nofile": 100}})),
        (Change::Restart, none.clone(), json!({"stdout": "log"})),
        (Change::Restart, none.clone(), json!({"stderr": "log"})),
        (Change::Restart, none.clone(), json!({"ready": {"notify": true}})),
        (Change::Restart, none.clone(), json!({"health": {"notify": true}})),
        (Change::Restart, json!({"health": {"notify": true}}), json!({"health": {"notify": true, "interval": 1}})),
        (Change::Restart, json!({"ready": {"notify": true}}), json!({"ready": {"delay": 1}})),
        (Change::Start, json!({"ready": {"notify": true}}), json!({"ready": {"notify": true, "timeout": 1}})),
        (Change::Start, none.clone(), json!({"ready": probe("a:1")})),
        (Change::Start, json!({"ready": probe("a:1")}), json!({"ready": probe("a:2")})),
        (Change::Live, none.clone(), json!({"health": probe("a:1")})),
        (Change::Live, json!({"health": probe("a:1")}), json!({"health": probe("a:2")})),
        (Change::Live, json!({"health": probe("a:1")}), none.clone()),
        (Change::Live, none.clone(), json!({"group": "g"})),
        (Change::Live, none.clone(), json!({"after": ["db"], "requires": ["hub"]})),
        (Change::Live, none.clone(), json!({"log": {"keep": 1}})),
        (Change::Live, none.clone(), json!({"autostart": true})),
        (Change::Live, none.clone(), json!({"schedule": "0 3 * * *"})),
        (Change::Live, none.clone(), json!({"restart": "always", "success_codes": [1], "start_seconds": 1})),
        (Change::Live, none.clone(), json!({"backoff": {"initial": 1}, "start_limit": {"count": 1}})),
        (Change::Live, none.clone(), json!({"stop_signal": "INT", "stop_timeout": 1, "stop_request": {"exec": ["x"]}})),
    ] {
        let (before, after) = (spec("web", &before), spec("web", &after));
        assert_ne!(before, after);
        assert_eq!(Change::between(&before, &after), change, "{before:?} {after:?}");
        assert_eq!(Change::between(&after, &before), change, "the other way round: {before:?} {after:?}");
    }
}

#[test]
fn only_what_runs_is_started_anew() {
    for state in StateName::ALL {
        assert!(!Change::Live.restarts(*state));
        assert_eq!(Change::Start.restarts(*state), *state == StateName::Starting);
        assert_eq!(Change::Restart.restarts(*state), matches!(state, StateName::Starting | StateName::Running));
    }
}

#[test]
fn what_runs_with_an_earlier_definition_is_started_anew() {
    let same = spec("a", &json!({}));
    let known = BTreeMap::from([(same.name.clone(), Arc::new(same.clone()))]);
    let (of_file, outdated) = (known.keys().cloned().collect(), known.keys().cloned().collect());
    let plan = Plan::new(&known, &of_file, &outdated, vec![same.clone()]);
    assert_eq!(plan.changed[&same.name].1, Change::Restart);
    assert!(Plan::new(&known, &of_file, &BTreeSet::new(), vec![same]).changed.is_empty());
}

/// What is registered, and which of it is the file's.
#[derive(Clone, Debug, Default)]
struct Registry {
    specs: BTreeMap<Name, Arc<Spec>>,
    of_file: BTreeSet<Name>,
}

impl Registry {
    fn plan(&self, file: &[Spec]) -> Plan {
        Plan::new(&self.specs, &self.of_file, &BTreeSet::new(), file.to_vec())
    }

    fn apply(&mut self, plan: &Plan) {
        self.specs.retain(|name, _| !plan.removed.contains(name));
        self.specs.extend(plan.definitions().map(|spec| (spec.name.clone(), spec.clone())));
        self.of_file = plan.of_file().cloned().collect();
    }
}

/// Few names and few definitions, so that they meet.
fn specs() -> impl Strategy<Value = Vec<Spec>> {
    let keys =
        prop_oneof![Just(json!({})), Just(json!({"nice": 1})), Just(json!({"restart": "always"})), Just(json!({"ready": {"delay": 1}})),];
    prop::collection::btree_map(0_u8..8, keys, 0..8)
        .prop_map(|said| said.into_iter().map(|(number, keys)| spec(&format!("p{number}"), &keys)).collect::<Vec<_>>())
        .prop_shuffle()
}

proptest! {
    #[test]
    fn the_plan_makes_the_registry_what_the_file_says(first in specs(), at_run_time in specs(), gone in prop::collection::vec(0_u8..8, 0..4), file in specs()) {
        let mut registry = Registry::default();
        registry.apply(&registry.plan(&first));
        // Meanwhile somebody registers, with `replace`, and unregisters.
        registry.specs.extend(at_run_time.iter().map(|spec| (spec.name.clone(), Arc::new(spec.clone()))));
        for number in gone {
            let name: Name = format!("p{number}").parse().unwrap();
            registry.specs.remove(&name);
            registry.of_file.remove(&name);
        }
        let before = registry.clone();
        let plan = registry.plan(&file);

        // Each name is in one list, and the order of the file does not matter.
        let names: BTreeSet<&Name> = file.iter().map(|spec| &spec.name).collect();
        let lists = [plan.added.keys().collect::<Vec<_>>(), plan.changed.keys().collect(), plan.unchanged.iter().collect()];
        prop_assert_eq!(lists.iter().map(Vec::len).sum::<usize>(), names.len());
        prop_assert_eq!(lists.concat().into_iter().collect::<BTreeSet<_>>(), names.clone());
        prop_assert!(plan.removed.iter().all(|name| !names.contains(name)));
        let mut reversed = file.clone();
        reversed.reverse();
        prop_assert_eq!(&registry.plan(&reversed), &plan);

        registry.apply(&plan);
        for spec in &file {
            prop_assert_eq!(&*registry.specs[&spec.name], spec);
        }
        // The rest is what was registered at run time and never was the file's, untouched.
        for (name, known) in &registry.specs {
            prop_assert!(names.contains(name) || (!before.of_file.contains(name) && before.specs[name] == *known));
        }
        let rest: BTreeSet<&Name> = before.specs.keys().filter(|name| !names.contains(name) && !before.of_file.contains(*name)).collect();
        prop_assert!(rest.iter().all(|name| registry.specs.contains_key(*name)));

        // Planning again finds nothing to do.
        let again = registry.plan(&file);
        prop_assert_eq!((again.added.len(), again.changed.len(), again.removed.len(), again.unchanged.len()), (0, 0, 0, file.len()));
    }
}
