//! Another number of instances in the place of what was: nobody of the former definition is left behind, and nobody else is touched.

use procman::protocol::reply::{PastRun, View};
use procman::protocol::{EndedBy, ErrorCode, StateName, Wanted};
use serde_json::{Value, json};

use super::harness::{Daemon, Peer, frame, is_alive, value_of};

/// The names that are registered.
fn names(daemon: &Daemon) -> Vec<String> {
    daemon.call::<Vec<View>>("list", json!({})).into_iter().map(|view| view.name.to_string()).collect()
}

/// Puts a definition of this name in the place of what is there; answers whom it defines.
#[track_caller]
fn replace(daemon: &Daemon, name: &str, more: Value) -> Vec<String> {
    let mut definition = json!({"name": name, "cmd": ["sleep", "1000"], "replace": true});
    definition.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let views: Value = daemon.call("register", definition);
    let views = if views.is_array() { views } else { json!([views]) };
    views.as_array().unwrap().iter().map(|view| view["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn fewer_instances_than_before_leave_nobody_behind() {
    let daemon = Daemon::start(
        "[[process]]\nname = 'worker'\ncmd = ['sleep', '1000']\ninstances = 4\n\
         [[process]]\nname = 'boss'\ncmd = ['sleep', '1000']\nrequires = ['worker']\n",
    );
    daemon.execute("boss");
    let pids = [1, 2, 3, 4].map(|number| daemon.view(&format!("worker@{number}")).pid.unwrap());
    let error = daemon.refusal("register", json!({"name": "worker", "cmd": ["sleep", "1000"], "instances": 2}));
    assert!(error.code == ErrorCode::AlreadyExists && error.message.starts_with("worker is registered with another"), "{error}");
    assert_eq!(names(&daemon).len(), 5);

    assert_eq!(replace(&daemon, "worker", json!({"instances": 2})), ["worker@1", "worker@2"]);
    assert_eq!(names(&daemon), ["boss", "worker@1", "worker@2"]);
    assert_eq!(pids.map(is_alive), [true, true, false, false], "gone when it is answered");
    assert_eq!(daemon.refusal("status", json!({"name": "worker@3"})).code, ErrorCode::NotFound);
    let runs: Vec<PastRun> = daemon.call("history", json!({"name": "worker@4"}));
    assert_eq!(runs[0].ended_by, EndedBy::Unregister);
    // Two of those that it requires are there as before.
    let boss = daemon.view("boss");
    assert_eq!((boss.state, boss.wanted), (StateName::Running, Wanted::Up));

    assert_eq!(replace(&daemon, "worker", json!({"instances": 3})), ["worker@1", "worker@2", "worker@3"]);
    assert_eq!(daemon.view("worker@3").state, StateName::Stopped, "none of the former one's runs is its own");
    assert_eq!(daemon.view("worker@2").pid, Some(pids[1]));
}

#[test]
fn what_somebody_cannot_be_without_stays_and_so_does_all_else() {
    let daemon = Daemon::start(
        "[[process]]\nname = 'worker'\ncmd = ['sleep', '1000']\ninstances = 3\n\
         [[process]]\nname = 'web'\ncmd = ['sleep', '1000']\n\
         [[process]]\nname = 'boss'\ncmd = ['sleep', '1000']\nrequires = ['worker@3', 'web']\n\
         [[process]]\nname = 'all'\ncmd = ['sleep', '1000']\nrequires = ['worker']\n",
    );
    daemon.execute("boss");
    let pids = ["boss", "worker@3", "web"].map(|name| daemon.view(name).pid.unwrap());
    for (name, instances, going, by) in
        [("worker", Some(2), "worker@3", "boss"), ("worker", None, "worker@1", "all"), ("web", Some(2), "web", "boss")]
    {
        let mut definition = json!({"name": name, "cmd": ["sleep", "2000"], "replace": true});
        if let Some(instances) = instances {
            definition["instances"] = instances.into();
        }
        let error = daemon.refusal("register", definition);
        let told = format!("register: {going}, which this definition no longer has, is required by {by}; unregister or redefine");
        assert!(error.code == ErrorCode::BadRequest && error.message.starts_with(&told), "{error}");
    }
    assert_eq!(names(&daemon), ["all", "boss", "web", "worker@1", "worker@2", "worker@3"]);
    assert_eq!(daemon.view("worker@1").cmd, ["sleep", "1000"], "nothing of it was taken");
    assert_eq!(pids.map(is_alive), [true; 3]);
    // It is still in the order: nobody can be put behind it in a circle.
    let error = daemon.refusal("register", json!({"name": "worker@3", "cmd": ["sleep"], "requires": ["boss"], "replace": true}));
    assert!(error.message.contains("cycle"), "{error}");
}

#[test]
fn one_becomes_several_and_several_one() {
    let daemon =
        Daemon::start("[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\n[[process]]\nname = 'web@9'\ncmd = ['sleep', '1000']\n");
    let pids = ["web", "web@9"].map(|name| daemon.execute(name).pid);
    assert_eq!(replace(&daemon, "web", json!({"instances": 2})), ["web@1", "web@2"]);
    assert_eq!(names(&daemon), ["web@1", "web@2", "web@9"]);
    assert_eq!(pids.map(is_alive), [false, true], "the other one has a definition of its own");
    let pid = daemon.execute("web@2").pid;
    assert_eq!(replace(&daemon, "web", json!({})), ["web"]);
    assert_eq!(names(&daemon), ["web", "web@9"]);
    assert!(!is_alive(pid) && is_alive(pids[1]));

    // An instance that is defined under its own name belongs to that definition from then on.
    replace(&daemon, "web", json!({"instances": 2}));
    assert_eq!(replace(&daemon, "web@2", json!({})), ["web@2"]);
    assert_eq!(replace(&daemon, "web", json!({"instances": 1})), ["web@1"]);
    assert_eq!(names(&daemon), ["web@1", "web@2", "web@9"]);
}

#[test]
fn one_that_takes_long_to_go_holds_up_who_asked_and_nobody_else() {
    let script = "trap \"\" TERM; echo up >> {dir}/up.%i; exec sleep 1000";
    let daemon =
        Daemon::start(&format!("[[process]]\nname = 'worker'\ncmd = ['sh', '-c', '{script}']\ninstances = 2\nstop_timeout = 600\n"));
    daemon.execute("worker@2");
    daemon.lines("up.2", 1);
    let asks = Peer::connect(zmq::REQ, &daemon.endpoint());
    asks.send(&[frame(&json!({"command": "register", "name": "worker", "cmd": ["sleep", "1000"], "instances": 1, "replace": true}))]);
    daemon.wait_for_state("worker@2", StateName::Stopping);
    assert_eq!(daemon.view("worker@1").cmd, ["sleep", "1000"], "the new definition is in place");
    let _: View = daemon.call("register", json!({"name": "web", "cmd": ["sleep", "1000"]}));
    let again = json!({"name": "worker", "cmd": ["sleep", "1000"], "instances": 2, "replace": true});
    let error = daemon.refusal("register", again.clone());
    assert!(error.code == ErrorCode::Busy && error.message.contains("worker@2 is being unregistered"), "{error}");
    let error = daemon.refusal("register", json!({"name": "boss", "cmd": ["sleep"], "requires": ["worker@2"]}));
    assert_eq!(error.code, ErrorCode::BadRequest, "{error}");
    assert!(!asks.has_more(0), "it is answered once nobody is left");

    let _: Value = daemon.call("quit", json!({"name": "worker@2", "timeout": 0}));
    assert_eq!(value_of(&asks.receive()[0])["result"].as_array().unwrap().len(), 1);
    assert_eq!(names(&daemon), ["web", "worker@1"]);
    let views: Vec<View> = daemon.call("register", again);
    assert_eq!(views.len(), 2);
}
