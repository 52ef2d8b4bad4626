//! The unit as it is shipped, run by a real systemd, which is booted in namespaces: what it promises of starts, restarts, crashes, upgrades and stops.
//! Needs root; where it cannot be done, that is said aloud.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

#[cfg(test)]
mod host;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use host::{Host, until};
use procman::protocol::reply::{AuditEntry, PastRun};
use procman::protocol::{Cause, StateName};
use serde_json::json;

const UNIT: &str = "procmand.service";

/// Each tells when it is ended; `notifier` says that it is ready, `forker` has a grandchild that is its own leader, `code` has an exit code.
const SITE: &str = r#"
[metrics]
listen = ""

[[process]]
name = "base"
cmd = ["sh", "-c", "trap 'echo base >> /tmp/ends; exit 0' TERM; while :; do sleep 0.05; done"]
autostart = true

[[process]]
name = "notifier"
cmd = ["/usr/bin/python3", "/etc/procman/notifier.py"]
ready = { notify = true }
requires = ["base"]
autostart = true

[[process]]
name = "forker"
cmd = ["sh", "-c", "(setsid sleep 1001 &); trap 'echo forker >> /tmp/ends; exit 0' TERM; while :; do sleep 0.05; done"]
after = ["notifier"]
autostart = true

[[process]]
name = "code"
cmd = ["sh", "-c", "trap 'exit 7' TERM; touch /tmp/minds; while :; do sleep 0.05; done"]
after = ["forker"]
autostart = true
"#;

const NOTIFIER: &str = "
import os, signal, socket, sys, time
def leave(*_):
    open('/tmp/ends', 'a').write('notifier\\n')
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
n = 0
while True:
    n += 1
    try: s.sendto(b'READY=1\\nSTATUS=turn %d' % n, os.environ['NOTIFY_SOCKET'])
    except OSError: pass
    time.sleep(0.05)
";

/// The PIDs of all sub-processes, each of which runs.
#[track_caller]
fn pids(host: &Host) -> BTreeMap<String, u32> {
    let views = host.views();
    let running = views.iter().map(|view| {
        assert_eq!(view.state, StateName::Running, "{view:?}");
        (view.name.to_string(), view.pid.unwrap())
    });
    running.collect()
}

/// Waits until a service that notifies was heard again.
#[track_caller]
fn hears(host: &Host) {
    let before = host.view("notifier").message;
    until("it is heard", || (host.view("notifier").message != before).then_some(()));
}

fn with_notifier(config: &str) -> String {
    // The daemon's configuration is copied to the host, and so is what is in it.
    config.replace("\"/etc/procman/notifier.py\"", &format!("\"-c\", '''{NOTIFIER}'''"))
}

#[test]
fn it_keeps_what_runs_over_everything_but_a_stop() {
    let Some(host) = Host::boot(&with_notifier(SITE), UNIT, &[]) else { return };
    host.systemctl(&["start"]);
    let first = host.info();
    assert_eq!(host.property("SubState"), "running");
    assert_eq!(first.pid.to_string(), host.property("MainPID"));
    let before = pids(&host);
    assert_eq!(before.len(), 4);
    let of_unit = host.processes();
    assert!(before.values().all(|pid| of_unit.contains(pid)) && of_unit.len() > before.len(), "{before:?} {of_unit:?}");
    hears(&host);
    until("it minds", || host.path("/tmp/minds").exists().then_some(()));
    // Four processes, and the socket of one.
    until("descriptors are kept", || (host.property("NFileDescriptorStore") == "5").then_some(()));

    // Restarts that somebody asks for.
    let mut last = first;
    for verb in ["restart", "try-restart"] {
        host.systemctl(&[verb]);
        let info = host.wait_for_another(&last);
        assert_ne!(info.pid, last.pid);
        assert_eq!(pids(&host), before, "{verb}");
        hears(&host);
        last = info;
    }
    assert_eq!(host.property("NFileDescriptorStore"), "5");
    assert_eq!(host.complaints(), [""; 0], "nothing goes wrong so far");

    // A crash, and a process that ends before the next daemon is there.
    let code = before["code"];
    host.signal("KILL");
    until("the daemon is dead", || (host.property("MainPID") == "0").then_some(()));
    host.run(&["sh", "-c", &format!("kill -TERM {code}")]);
    let info = host.wait_for_another(&last);
    assert_ne!(info.pid, last.pid);
    let runs: Vec<PastRun> = host.ask("history", json!({"name": "code"})).unwrap();
    assert_eq!((runs.len(), runs[0].pid), (1, Some(code)), "{runs:?}");
    let expected = if info.capabilities.pidfd_exit_info { (Some(7), Cause::Exit) } else { (None, Cause::Lost) };
    assert_eq!((runs[0].returncode, runs[0].cause), expected, "as the descriptor tells that systemd kept");
    let _: serde_json::Value = host.ask("execute", json!({"name": "code"})).unwrap();
    let after = pids(&host);
    assert!(before.iter().all(|(name, pid)| name == "code" || after[name] == *pid), "{before:?} {after:?}");
    hears(&host);
    let (before, last) = (after, info);

    // Another configuration.
    let site = with_notifier(SITE);
    fs::write(
        host.path("/etc/procman/procmand.toml"),
        format!("{site}\n[[process]]\nname = 'new'\ncmd = ['sleep', '1000']\nautostart = true\n"),
    )
    .unwrap();
    host.systemctl(&["reload"]);
    until("the new one runs", || {
        host.views().iter().any(|view| view.name.as_str() == "new" && view.state == StateName::Running).then_some(())
    });
    let mut after = pids(&host);
    after.remove("new");
    assert_eq!(after, before);
    assert_eq!(host.info().uuid, last.uuid);
    let before = pids(&host);

    // Another program in the same process.
    let inode = host.install();
    host.signal("USR2");
    let info = host.wait_for_another(&last);
    assert_eq!(info.pid, last.pid);
    until("systemd has been told", || (host.property("SubState") == "running").then_some(()));
    assert_eq!((host.property("MainPID"), host.property("Result")), (info.pid.to_string(), "success".to_owned()));
    assert_eq!(fs::metadata(host.path(&format!("/proc/{}/exe", info.pid))).unwrap().ino(), inode);
    assert_eq!(pids(&host), before);
    hears(&host);
    // What is started from now on has the limits of the unit, and not those that the daemon had given itself.
    let started = host.ask::<serde_json::Value>("restart", json!({"name": "new"})).unwrap();
    assert!(started.is_object(), "{started}");
    let limits = host.read(&format!("/proc/{}/limits", host.view("new").pid.unwrap()));
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().nth(3), Some("1024"), "{files}");

    // It is still taken over after all that.
    let before = pids(&host);
    host.systemctl(&["restart"]);
    assert_eq!(pids(&host), before);
    let trail: Vec<AuditEntry> = host.ask("audit", json!({})).unwrap();
    for command in ["shutdown", "reload", "upgrade"] {
        assert!(trail.iter().any(|entry| entry.command == command && entry.outcome == "ok"), "{command}: {trail:?}");
    }

    // The end, in the reverse order.
    host.systemctl(&["stop"]);
    assert_eq!((host.property("SubState"), host.property("Result")), ("dead".to_owned(), "success".to_owned()));
    assert_eq!(host.read("/tmp/ends").lines().collect::<Vec<_>>(), ["forker", "notifier", "base"]);
    assert_eq!(host.processes(), [0; 0]);
    assert!(before.values().all(|pid| !host.path(&format!("/proc/{pid}")).exists()));
    assert_eq!(host.property("NFileDescriptorStore"), "0");
    let complaints = host.complaints();
    let expected = ["Main process exited, code=killed, status=9/KILL", "Failed with result 'signal'"];
    let (crash, others): (Vec<_>, Vec<_>) = complaints.iter().partition(|line| expected.iter().any(|words| line.contains(words)));
    assert!(crash.len() == 2 && others.is_empty(), "of the crash, and nothing else: {complaints:#?}");

    // A start after a stop begins anew.
    host.systemctl(&["start"]);
    assert!(pids(&host).iter().all(|(name, pid)| before.get(name) != Some(pid)));
    host.systemctl(&["stop"]);
    assert_eq!(host.processes(), [0; 0]);
}

#[test]
fn whoever_asks_for_it_a_restart_keeps_and_a_stop_quits() {
    let part = "[Unit]\nPartOf=site.service\n";
    let site = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n";
    let unit = r"procmand@a\x2db:c-.d.service";
    let more = [("procmand@.service.d/part.conf", part), ("site.service", site)];
    let Some(host) = Host::boot(&with_notifier(SITE), unit, &more) else { return };
    host.run(&["systemctl", "start", "site.service", unit]);
    let before = pids(&host);
    let mut last = host.info();
    let restarts: [&[&str]; 4] = [
        &["systemctl", "restart", "--", unit],
        &["systemctl", "restart", "site.service"],
        &["systemctl", "restart", "procmand@*"],
        &["systemctl", "reload-or-restart", "site.service"],
    ];
    for words in restarts {
        host.run(words);
        let info = host.wait_for_another(&last);
        assert_eq!(pids(&host), before, "{words:?}");
        last = info;
        // systemd is what knows; it may itself be executed anew meanwhile.
        host.run(&["systemctl", "daemon-reexec"]);
    }
    let stops: [&[&str]; 3] =
        [&["systemctl", "stop", "site.service"], &["systemctl", "isolate", "boot.target"], &["systemctl", "stop", "--", unit]];
    for words in stops {
        host.run(words);
        until("it is dead", || (host.property("SubState") == "dead").then_some(()));
        assert_eq!(host.processes(), [0; 0], "{words:?}");
        assert_eq!(host.read("/tmp/ends").lines().collect::<Vec<_>>(), ["forker", "notifier", "base"]);
        fs::remove_file(host.path("/tmp/ends")).unwrap();
        host.run(&["systemctl", "start", "site.service", unit]);
    }
    // A daemon that leaves by itself, and what it keeps.
    let before = pids(&host);
    let _: serde_json::Value = host.ask("shutdown", json!({"children": "keep"})).unwrap();
    until("it has left", || (host.property("SubState") == "dead").then_some(()));
    assert_eq!(host.property("Result"), "success");
    host.systemctl(&["start"]);
    assert_eq!(pids(&host), before);
    hears(&host);
    assert_eq!(host.complaints(), [""; 0]);
}

#[test]
fn a_daemon_that_hangs_is_replaced_and_after_a_stop_nothing_is_left() {
    let quick = "[Service]\nWatchdogSec=1\nTimeoutAbortSec=1\n";
    let config = "[metrics]\nlisten = ''\n[[process]]\nname = 'stubborn'\nstop_timeout = 1000\n\
        cmd = ['sh', '-c', 'trap \"echo asked >> /tmp/asked\" TERM; touch /tmp/minds; while :; do sleep 0.05; done']\nautostart = true\n";
    let Some(host) = Host::boot(config, UNIT, &[("procmand.service.d/quick.conf", quick)]) else { return };
    host.systemctl(&["start"]);
    let (before, last) = (pids(&host), host.info());
    until("it minds", || host.path("/tmp/minds").exists().then_some(()));
    host.signal("STOP");
    let info = host.wait_for_another(&last);
    assert_ne!(info.pid, last.pid);
    assert_eq!(pids(&host), before);
    let said = |words: &str| host.journal().iter().any(|line| line.message.contains(words));
    assert!(said("Watchdog timeout"), "it was the watchdog");

    // It dies in the middle of a stop: nobody is there to end what it left but systemd.
    host.systemctl(&["stop", "--no-block"]);
    until("it is asked to end", || host.path("/tmp/asked").exists().then_some(()));
    host.signal("KILL");
    until("it is dead", || (host.property("ActiveState") == "failed").then_some(()));
    assert_eq!(host.processes(), [0; 0]);
    assert!(!host.path(&format!("/proc/{}", before["stubborn"])).exists());
}

#[test]
fn as_many_are_kept_as_a_program_may_have_descriptors() {
    let many = |name: &str, instances: u32| {
        format!("[[process]]\nname = '{name}'\ninstances = {instances}\ncmd = ['sleep', '1000']\nautostart = true\n")
    };
    let config = format!("[metrics]\nlisten = ''\n{}{}", many("some", 900), many("more", 150));
    let Some(host) = Host::boot(&config, UNIT, &[]) else { return };
    host.systemctl(&["start"]);
    until("all run", || host.views().iter().all(|view| view.state == StateName::Running).then_some(()));
    let (before, first) = (pids(&host), host.info());
    until("descriptors are kept", || (host.property("NFileDescriptorStore") == "1050").then_some(()));
    // More than systemd could hand over if it had to do so within 1024.
    host.systemctl(&["restart"]);
    let info = host.wait_for_another(&first);
    assert_eq!(pids(&host), before);
    host.signal("USR2");
    host.wait_for_another(&info);
    assert_eq!(pids(&host), before);
    host.systemctl(&["stop"]);
    assert_eq!(host.processes(), [0; 0]);
    // A daemon that waits long for a busy machine says so.
    let of_systemd: Vec<String> = host.complaints().into_iter().filter(|line| line.contains("systemd:")).collect();
    assert_eq!(of_systemd, [""; 0]);
}
