//! Reading the configuration again: what differs is done, and nothing else is touched.

use std::fs;

use procman::protocol::reply::{Reloaded, View};
use procman::protocol::{ErrorCode, StateName};
use serde_json::{Value, json};

use super::harness::{Daemon, Peer, Setup, executable, frame, is_alive, until, value_of};

/// A process that sleeps, with more keys.
fn sleeper(name: &str, keys: &str) -> String {
    format!("[[process]]\nname = '{name}'\ncmd = ['sleep', '1000']\nautostart = true\n{keys}\n")
}

fn reload(daemon: &Daemon) -> Reloaded {
    daemon.call("reload", json!({}))
}

fn names(names: &[procman::protocol::Name]) -> Vec<&str> {
    names.iter().map(procman::protocol::Name::as_str).collect()
}

/// The PID of one that runs.
#[track_caller]
fn pid(daemon: &Daemon, name: &str) -> u32 {
    daemon.wait_for(name, |view| view.state == StateName::Running && view.pid.is_some()).pid.unwrap()
}

fn registered(daemon: &Daemon) -> Vec<String> {
    let views: Vec<View> = daemon.call("list", json!({}));
    views.into_iter().map(|view| view.name.to_string()).collect()
}

#[test]
fn what_has_not_changed_is_not_touched() {
    let daemon = Daemon::start(&[sleeper("same", ""), sleeper("live", ""), sleeper("other", ""), sleeper("gone", "")].concat());
    let before = ["same", "live", "other", "gone"].map(|name| pid(&daemon, name));
    let _: View = daemon.call("register", json!({"name": "mine", "cmd": ["sleep", "1000"]}));
    let mine = daemon.execute("mine").pid;
    let nothing = reload(&daemon);
    assert_eq!(names(&nothing.unchanged), ["gone", "live", "other", "same"]);
    assert_eq!(Reloaded { unchanged: vec![], ..nothing }, Reloaded::default());

    let rest = "restart = 'always'\nstop_timeout = 1\ngroup = 'g'\nstart_limit = { count = 3 }\n";
    daemon.rewrite(
        &[
            sleeper("new", ""),
            sleeper("idle", "").replace("autostart = true", ""),
            sleeper("other", "env = { A = '1' }"),
            sleeper("live", rest),
            sleeper("same", ""),
        ]
        .concat(),
    );
    let done = reload(&daemon);
    assert_eq!((names(&done.added), names(&done.removed)), (vec!["idle", "new"], vec!["gone"]));
    assert_eq!((names(&done.changed), names(&done.restarted)), (vec!["live", "other"], vec!["other"]));
    assert_eq!((names(&done.unchanged), done.ignored), (vec!["same"], vec![]));

    until("all of it is done", || {
        let other = daemon.view("other");
        let settled = registered(&daemon) == ["idle", "live", "mine", "new", "other", "same"]
            && other.state == StateName::Running
            && other.pid != Some(before[2])
            && daemon.view("new").state == StateName::Running;
        settled.then_some(())
    });
    assert_eq!([pid(&daemon, "same"), pid(&daemon, "live"), pid(&daemon, "mine")], [before[0], before[1], mine]);
    assert_eq!(daemon.view("live").group.unwrap().as_str(), "g");
    assert_eq!(daemon.view("idle").state, StateName::Stopped);
    assert!(!is_alive(before[3]) && !is_alive(before[2]));
    let environment = fs::read(format!("/proc/{}/environ", pid(&daemon, "other"))).unwrap();
    assert!(environment.split(|byte| *byte == 0).any(|variable| variable == b"A=1"));

    // The new policy holds for the run that was there before.
    let _: Value = daemon.call("signal", json!({"name": "live", "signal": "KILL"}));
    daemon.wait_for("live", |view| view.state == StateName::Running && view.restarts == 1);
    let again = reload(&daemon);
    assert_eq!(again.unchanged.len(), 5);
    assert_eq!(Reloaded { unchanged: vec![], ..again }, Reloaded::default());
}

#[test]
fn a_file_that_is_wrong_changes_nothing_and_all_mistakes_are_told() {
    let daemon = Daemon::start(&[sleeper("web", ""), sleeper("db", "")].concat());
    let before = [pid(&daemon, "web"), pid(&daemon, "db")];
    daemon.rewrite(
        "[[process]]\nname = 'web'\ncmd = ['sleep', '2000']\n[[process]]\nname = 'x'\ncmmd = ['y']\n[[process]]\nname = 'y'\ncmd = []\n",
    );
    for arguments in [json!({}), json!({"dry_run": true})] {
        let refused = daemon.refusal("reload", arguments);
        assert_eq!(refused.code, ErrorCode::BadRequest);
        let details = serde_json::to_value(&refused.details).unwrap();
        let mistakes: Vec<&str> = details["mistakes"].as_array().unwrap().iter().map(|mistake| mistake.as_str().unwrap()).collect();
        assert!(mistakes.len() >= 3, "{mistakes:?}");
        let file = daemon.path("procmand.toml");
        for (mistake, what) in
            mistakes.iter().zip(["process[x].cmd: say which", "process[x].cmmd: there is no such key", "process[y].cmd: say"])
        {
            assert!(mistake.starts_with(&format!("{}:", file.display())) && mistake.contains(what), "{mistake}");
            assert!(refused.message.contains(mistake), "{}", refused.message);
        }
    }
    let ctl = ctl(&daemon, &["reload"]);
    assert_eq!(ctl.0, 1);
    assert!(ctl.2.contains("process[y].cmd") && ctl.2.contains("nothing was changed"), "{}", ctl.2);
    fs::remove_file(daemon.path("procmand.toml")).unwrap();
    assert!(daemon.refusal("reload", json!({})).message.contains("there is no such file"));
    assert_eq!([pid(&daemon, "web"), pid(&daemon, "db")], before);
    assert_eq!(registered(&daemon), ["db", "web"]);
}

/// Exit code, standard output and standard error of a call of `procmanctl`.
fn ctl(daemon: &Daemon, words: &[&str]) -> (i32, String, String) {
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_procmanctl"));
    let output = program.args(words).env("PROCMAN_ENDPOINT", daemon.endpoint()).stdin(std::process::Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let daemon = Daemon::start(&[sleeper("web", ""), sleeper("db", "")].concat());
    let before = [pid(&daemon, "web"), pid(&daemon, "db")];
    daemon.rewrite(&[sleeper("web", "nice = 1"), sleeper("new", "")].concat());
    let text = fs::read_to_string(daemon.path("procmand.toml")).unwrap().replace("[metrics]", "[metrics]\nprefix = 'x'");
    fs::write(daemon.path("procmand.toml"), text).unwrap();
    let plan: Reloaded = daemon.call("reload", json!({"dry_run": true}));
    assert_eq!((names(&plan.added), names(&plan.removed), names(&plan.restarted)), (vec!["new"], vec!["db"], vec!["web"]));
    assert_eq!(plan.ignored, ["metrics.prefix"]);
    let (code, out, err) = ctl(&daemon, &["reload", "--dry-run"]);
    let shown = "new: added\ndb: removed\nweb: changed, restarted\n\
                 nothing was changed, a reload would mean: 1 added, 1 changed (1 restarted), 1 removed, 0 unchanged\n";
    assert_eq!((code, out.as_str()), (0, shown));
    assert!(err.contains("metrics.prefix"), "{err}");
    assert_eq!([pid(&daemon, "web"), pid(&daemon, "db")], before);
    assert_eq!(registered(&daemon), ["db", "web"]);
    assert_eq!(reload(&daemon), plan, "what was said is done");
    until("it is done", || (registered(&daemon) == ["new", "web"]).then_some(()));
}

#[test]
fn sighup_reloads_and_a_mistake_is_logged() {
    let daemon = Daemon::start(&sleeper("web", ""));
    let web = pid(&daemon, "web");
    daemon.rewrite("[[process]]\nname = 'web'\n");
    daemon.signal(libc::SIGHUP);
    daemon.wait_for_log("nothing was changed");
    assert!(daemon.read("log").contains("process[web]"), "{}", daemon.read("log"));
    daemon.rewrite(&[sleeper("web", ""), sleeper("db", "")].concat());
    daemon.signal(libc::SIGHUP);
    until("the new one is there", || registered(&daemon).contains(&"db".to_owned()).then_some(()));
    assert_ne!(pid(&daemon, "db"), web);
    assert_eq!(pid(&daemon, "web"), web);
}

#[test]
fn included_files_and_instances_are_followed() {
    let setup = Setup::new("");
    fs::create_dir(setup.dir().join("conf.d")).unwrap();
    fs::write(setup.dir().join("conf.d/a.toml"), sleeper("web", "instances = 3")).unwrap();
    let daemon = setup.start();
    assert_eq!(registered(&daemon), [""; 0]);
    let text = fs::read_to_string(daemon.path("procmand.toml")).unwrap().replace("[daemon]", "[daemon]\ninclude = ['conf.d/*.toml']");
    fs::write(daemon.path("procmand.toml"), text).unwrap();
    assert_eq!(names(&reload(&daemon).added), ["web@1", "web@2", "web@3"]);
    let first = pid(&daemon, "web@1");
    pid(&daemon, "web@3");
    // Who requires all of them can be without one of them.
    let _: View = daemon.call("register", json!({"name": "user", "cmd": ["sleep", "1000"], "requires": ["web"]}));
    fs::write(daemon.path("conf.d/a.toml"), sleeper("web", "instances = 2")).unwrap();
    fs::write(daemon.path("conf.d/b.toml"), sleeper("db", "")).unwrap();
    let done = reload(&daemon);
    assert_eq!((names(&done.added), names(&done.removed), names(&done.unchanged)), (vec!["db"], vec!["web@3"], vec!["web@1", "web@2"]));
    until("it is gone", || (registered(&daemon) == ["db", "user", "web@1", "web@2"]).then_some(()));
    assert_eq!(pid(&daemon, "web@1"), first);
    // A mistake in an included file is one like any other.
    fs::write(daemon.path("conf.d/b.toml"), "[[process]]\nname = 'db'\n").unwrap();
    assert!(daemon.refusal("reload", json!({})).message.contains("conf.d/b.toml:1"));
}

#[test]
fn the_file_has_the_last_word_about_its_own_names_only() {
    let daemon = Daemon::start(&[sleeper("web", ""), sleeper("db", ""), sleeper("hub", "")].concat());
    let web = pid(&daemon, "web");
    // At run time: one is defined otherwise, one is forgotten, one is new and requires one of the file.
    let _: View = daemon.call("register", json!({"name": "web", "cmd": ["sleep", "2000"], "replace": true}));
    let _: Value = daemon.call("unregister", json!({"name": "db"}));
    let _: View = daemon.call("register", json!({"name": "mine", "cmd": ["sleep", "1000"], "requires": ["hub"]}));
    let done = reload(&daemon);
    assert_eq!((names(&done.added), names(&done.changed), names(&done.unchanged)), (vec!["db"], vec!["web"], vec!["hub"]));
    assert_eq!(names(&done.removed), [""; 0]);
    daemon.wait_for("web", |view| view.cmd == ["sleep", "1000"] && view.state == StateName::Running && view.pid != Some(web));

    // What somebody else could not be without is not taken away, and nothing else is done either.
    daemon.rewrite(&sleeper("web", "nice = 1"));
    let web = pid(&daemon, "web");
    for arguments in [json!({"dry_run": true}), json!({})] {
        let refused = daemon.refusal("reload", arguments);
        assert_eq!(refused.code, ErrorCode::BadRequest);
        assert!(refused.message.contains("mine") && refused.message.contains("requires hub"), "{}", refused.message);
    }
    assert_eq!((registered(&daemon).len(), pid(&daemon, "web")), (4, web));

    // A name of somebody else becomes the file's when the file says it.
    daemon.rewrite(&[sleeper("web", ""), sleeper("hub", ""), sleeper("mine", "requires = ['hub']")].concat());
    let done = reload(&daemon);
    assert_eq!((names(&done.changed), names(&done.removed)), (vec!["mine"], vec!["db"]));
    daemon.rewrite(&[sleeper("web", ""), sleeper("hub", "")].concat());
    assert_eq!(names(&reload(&daemon).removed), ["mine"]);
    until("they are gone", || (registered(&daemon) == ["hub", "web"]).then_some(()));
}

#[test]
fn what_is_removed_ends_in_reverse_and_before_what_is_new_starts() {
    let told = |name: &str, keys: &str| {
        let script = format!(
            "trap 'echo {name} down >> {{dir}}/order; exit 0' TERM; echo {name} up >> {{dir}}/order; touch {{dir}}/{name}-is-up; while :; do sleep 0.01; done"
        );
        let ready = format!("ready = {{ file = '{{dir}}/{name}-is-up' }}");
        format!("[[process]]\nname = '{name}'\ncmd = ['sh', '-c', '''{script}''']\nautostart = true\n{ready}\n{keys}\n")
    };
    let daemon = Daemon::start(&[told("a", ""), told("b", "requires = ['a']"), told("c", "after = ['b']")].concat());
    pid(&daemon, "c");
    assert_eq!(daemon.lines("order", 3), ["a up", "b up", "c up"]);
    daemon.rewrite(&[told("e", "requires = ['d']"), told("d", "")].concat());
    let done = reload(&daemon);
    assert_eq!((names(&done.added), names(&done.removed)), (vec!["d", "e"], vec!["a", "b", "c"]));
    assert_eq!(daemon.lines("order", 8)[3..], ["c down", "b down", "a down", "d up", "e up"]);
    until("they are gone", || (registered(&daemon) == ["d", "e"]).then_some(()));
}

#[test]
fn one_reload_follows_the_other() {
    let stubborn = "[[process]]\nname = 'slow'\ncmd = ['sh', '-c', 'trap \"\" TERM; echo up; exec sleep 1000']\nstdout = 'file:{dir}/up'\nautostart = true\nstop_timeout = 1\n";
    let daemon = Daemon::start(stubborn);
    daemon.lines("up", 1);
    let first = pid(&daemon, "slow");
    daemon.rewrite("");
    assert_eq!(names(&reload(&daemon).removed), ["slow"]);
    // It takes a second to end; meanwhile the file changes its mind.
    daemon.rewrite(stubborn);
    let peers: Vec<Peer> = (0..2).map(|_| Peer::connect(zmq::REQ, &daemon.endpoint())).collect();
    for peer in &peers {
        peer.send(&[frame(&json!({"command": "reload"}))]);
    }
    let mut added: Vec<Value> = peers.iter().map(|peer| value_of(&peer.receive()[0])["result"]["added"].clone()).collect();
    added.sort_by_key(|names| names.as_array().unwrap().len());
    assert_eq!(added, [json!([]), json!(["slow"])]);
    assert!(!is_alive(first));
    daemon.lines("up", 2);
}

#[test]
fn how_a_run_is_watched_changes_while_it_runs() {
    let daemon = Daemon::start(&sleeper("web", "restart = 'always'\nbackoff = { initial = 0 }\nstart_limit = { count = 0 }"));
    let first = pid(&daemon, "web");
    assert_eq!(daemon.view("web").health, None);
    let with = |keys: &str| {
        daemon.rewrite(&sleeper("web", &format!("restart = 'always'\nbackoff = {{ initial = 0 }}\nstart_limit = {{ count = 0 }}\n{keys}")))
    };
    // There was none before.
    executable(&daemon.path("well"), "");
    with("health = { file = '{dir}/well', interval = 0.05, failures = 1000000 }");
    let done = reload(&daemon);
    assert_eq!((names(&done.changed), names(&done.restarted)), (vec!["web"], vec![]));
    daemon.wait_for("web", |view| view.health.as_deref() == Some("passing"));
    // Another question.
    with("health = { file = '{dir}/ill', interval = 0.05, failures = 1000000 }");
    reload(&daemon);
    daemon.wait_for("web", |view| view.health.as_deref() == Some("failing"));
    // None any more.
    with("");
    reload(&daemon);
    assert_eq!(daemon.view("web").health, None);
    assert_eq!(pid(&daemon, "web"), first, "it has not been touched");
    // And one that ends it.
    with("health = { file = '{dir}/ill', interval = 0.05, failures = 1 }");
    reload(&daemon);
    daemon.wait_for("web", |view| view.state == StateName::Running && view.pid != Some(first));
    with("");
    reload(&daemon);
}

#[test]
fn a_wrong_question_about_readiness_is_put_right() {
    let daemon = Setup::new(&sleeper("web", "ready = { file = '{dir}/nowhere', timeout = 0 }")).start();
    let first = daemon.wait_for("web", |view| view.state == StateName::Starting && view.pid.is_some()).pid;
    daemon.rewrite(&sleeper("web", "ready = { file = '{dir}/procmand.toml', timeout = 0 }"));
    assert_eq!(names(&reload(&daemon).restarted), ["web"]);
    let second = daemon.wait_for("web", |view| view.state == StateName::Running && view.pid != first).pid;
    // One that is ready is left alone.
    daemon.rewrite(&sleeper("web", "ready = { file = '{dir}/nowhere', timeout = 0 }"));
    let done = reload(&daemon);
    assert_eq!((names(&done.changed), names(&done.restarted)), (vec!["web"], vec![]));
    assert_eq!(Some(pid(&daemon, "web")), second);
}

#[test]
fn what_is_now_to_start_by_itself_is_started_if_it_never_ran() {
    let by_hand = |name: &str| sleeper(name, "").replace("autostart = true", "");
    let daemon = Daemon::start(&[by_hand("new"), by_hand("stopped")].concat());
    daemon.execute("stopped");
    daemon.quit("stopped");
    daemon.rewrite(&[sleeper("new", ""), sleeper("stopped", "")].concat());
    assert_eq!(names(&reload(&daemon).changed), ["new", "stopped"]);
    pid(&daemon, "new");
    assert_eq!(daemon.view("stopped").state, StateName::Stopped, "an operator has stopped it");
}
