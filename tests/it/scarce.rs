//! A daemon that runs out of descriptors goes on answering, starts what it can, and ends all it has started.

use std::collections::BTreeMap;

use procman::protocol::reply::{Each, Ended, Executed, Pong, View};
use procman::protocol::request::{Command, Execute, NoArgs};
use procman::protocol::{ErrorCode, Name, StateName};
use serde_json::json;

use super::harness::{Setup, is_alive, until};

#[test]
fn out_of_descriptors_it_refuses_starts_and_serves_on() {
    let daemon = Setup::new("").wrapped(&["sh", "-c", "ulimit -n 150; exec \"$@\"", "sh"]).start();
    let total = 90;
    for i in 0..total {
        let _: View = daemon.call("register", json!({"name": format!("p{i}"), "cmd": ["sleep", "1000"]}));
    }
    let started: Vec<Each<Executed>> = daemon.call("restart", json!({"all": true}));
    let mut pids = Vec::new();
    let mut refused = Vec::new();
    for each in started {
        match each {
            Each::Done(executed) => pids.push(executed.pid),
            Each::Refused { error, name } => {
                refused.push(name);
                assert_eq!(error.code, ErrorCode::Busy, "{error}");
                assert!(error.message.contains("no descriptor to spare"), "{error}");
            }
        }
    }
    assert!(!refused.is_empty() && pids.len() > 5, "{} of {total} were refused", refused.len());
    // One after the other a few more can be started, until only the reserve is left.
    let mut client = daemon.client();
    let mut execute = |name: &Name| {
        let request = Execute { name: name.clone(), args: Vec::new(), env: BTreeMap::new(), wait: false, timeout: None };
        client.request::<Executed>(&Command::Execute(request))
    };
    let busy = refused.iter().find(|name| match execute(name) {
        Ok(executed) => {
            pids.push(executed.pid);
            false
        }
        Err(error) => {
            assert!(error.to_string().contains("no descriptor to spare"), "{error}");
            true
        }
    });
    assert!(busy.is_some(), "there was room for all");
    // What is kept back is for those who come now: libzmq would end the daemon for want of a descriptor.
    let newcomers: Vec<_> = (0..8).map(|_| daemon.client()).collect();
    for mut newcomer in newcomers {
        assert!(newcomer.request::<Pong>(&Command::Ping(NoArgs {})).unwrap().pong);
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
