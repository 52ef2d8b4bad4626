//! A daemon that runs out of descriptors goes on answering, starts what it can, and ends all it has started.

use procman::protocol::reply::{Each, Ended, Executed, Pong, View};
use procman::protocol::{ErrorCode, StateName};
use serde_json::json;

use super::harness::{Peer, Setup, frame, is_alive, until};

#[test]
fn out_of_descriptors_it_refuses_starts_and_serves_on() {
    let daemon = Setup::new("").wrapped(&["sh", "-c", "ulimit -n 120; exec \"$@\"", "sh"]).start();
    let total = 120;
    for i in 0..total {
        let _: View = daemon.call("register", json!({"name": format!("p{i}"), "cmd": ["sleep", "1000"]}));
    }
    let started: Vec<Each<Executed>> = daemon.call("restart", json!({"all": true}));
    let (mut names, mut pids) = (Vec::new(), Vec::new());
    let mut refused = 0;
    for each in started {
        match each {
            Each::Done(executed) => {
                names.push(executed.name);
                pids.push(executed.pid);
            }
            Each::Refused { error, .. } => {
                refused += 1;
                assert!(error.code == ErrorCode::Busy && error.message.contains("descriptors"), "{error}");
            }
        }
    }
    assert!(refused > 0 && pids.len() > 5, "{refused} of {total} were refused");
    assert!(daemon.call::<Pong>("ping", json!({})).pong);
    // What is left over serves those who come now, one after the other, and tells them of the others.
    // They are started side by side: which of them had descriptors is chance.
    for _ in 0..20 {
        let newcomer = Peer::connect(zmq::REQ, &daemon.endpoint());
        let reply = newcomer.ask(&[frame(&json!({"command": "status", "name": names[0]}))]);
        assert_eq!((&reply["success"], &reply["result"]["status"]["pid"]), (&json!(true), &json!(pids[0])), "{reply}");
    }
    assert!(daemon.http("/metrics").contains("procman_process_up"));
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    // A process on the way to its program shows no environment, and so no marker, for a moment.
    until("a start that was refused has left no process", || (daemon.relatives().len() == pids.len() + 1).then_some(()));

    let ended: Vec<Each<Ended>> = daemon.call("quit", json!({"all": true}));
    assert!(ended.iter().all(|each| matches!(each, Each::Done(ended) if ended.survivors == 0)), "{ended:?}");
    assert_eq!(daemon.relatives(), [daemon.pid()]);
    // And then there is room again.
    daemon.execute("p0");
    assert_eq!(daemon.info().counts[&StateName::Running], 1);
}

#[test]
fn clients_that_use_up_the_descriptors_do_not_end_the_daemon() {
    let daemon = Setup::new("[[process]]\nname = 'web'\ncmd = ['sleep', '1000']\nautostart = true\n")
        .wrapped(&["sh", "-c", "ulimit -n 60; exec \"$@\"", "sh"])
        .start();
    let pid = daemon.wait_for_state("web", StateName::Running).pid.unwrap();
    // So many that the daemon has no descriptor for each of them.
    let clients: Vec<Peer> = (0..60).map(|_| Peer::connect(zmq::DEALER, &daemon.endpoint())).collect();
    let open = || std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).map_or(0, Iterator::count);
    until("they are used up", || (open() >= 60).then_some(()));
    drop(clients);
    assert!(daemon.call::<Pong>("ping", json!({})).pong, "there is room again");
    assert!(is_alive(pid));
}
