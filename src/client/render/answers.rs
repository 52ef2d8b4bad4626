//! Every answer that is not about what is registered: sentences, yes or no, tables of host processes.

use super::human::{count, duration, instant};
use super::table::{Align, Block, Cell, Table};
use super::text::{command_line, escape};
use super::{Report, Style, refused};
use crate::client::endpoint::Endpoint;
use crate::client::error::ClientError;
use crate::protocol::Signal;
use crate::protocol::reply::{
    Capabilities, Each, Ended, Executed, HostProcess, HostProcessInfo, Info, LogLines, NamedProcess, Pong, Reloaded, RunningPids,
    Signalled, Unregistered, View,
};
use crate::protocol::{Detail, MISTAKES};

/// `ping`
pub(super) fn pong(pong: &Pong, endpoint: &Endpoint, style: &Style) -> Report {
    Report::done(format!("procmand answers at {endpoint}, its clock says {}\n", instant(pong.time, &style.zone)))
}

/// `info`
pub(super) fn info(info: &Info, style: &Style) -> Report {
    let mut block = Block::new(vec![Cell::new(format!("procmand {} on {}", info.version, info.hostname))]);
    block.fact("Protocol", info.protocol.to_string());
    block.fact("PID", info.pid.to_string());
    block.fact("UUID", &info.uuid);
    block.fact("Started", format!("{} ({} ago)", instant(info.started_at, &style.zone), duration(info.uptime)));
    for endpoint in &info.endpoints {
        block.fact("Endpoint", endpoint);
    }
    for endpoint in info.events_endpoints.iter().flatten() {
        block.fact("Events", endpoint);
    }
    for endpoint in info.cgse_endpoints.iter().flatten() {
        block.fact("CGSE", endpoint);
    }
    block.fact("Metrics", info.metrics_endpoint.as_deref().unwrap_or("not served"));
    let Capabilities { cgroup, pidfd_exit_info, curve, subreaper } = info.capabilities;
    let able: Vec<_> = [("cgroup", cgroup), ("pidfd_exit_info", pidfd_exit_info), ("curve", curve), ("subreaper", subreaper)]
        .into_iter()
        .map(|(what, able)| format!("{what} {}", if able { "yes" } else { "no" }))
        .collect();
    block.fact("Capabilities", able.join(", "));
    let counts: Vec<_> = info.counts.iter().filter(|(_, number)| **number > 0).map(|(state, number)| format!("{number} {state}")).collect();
    block.fact("Sub-processes", if counts.is_empty() { "none".to_owned() } else { counts.join(", ") });
    Report::done(block.render(style))
}

/// `register`
pub(super) fn registered(views: &[View]) -> Report {
    Report::done(views.iter().map(|view| format!("{}: registered, {}\n", view.name, view.state)).collect::<String>())
}

/// `unregister`
pub(super) fn unregistered(gone: &Unregistered) -> Report {
    Report::done(format!("{}: unregistered\n", gone.name))
}

/// `execute` and `restart`
pub(super) fn executed(entries: &[Each<Executed>]) -> Report {
    let mut report = Report::done("");
    for entry in entries {
        match entry {
            Each::Done(run) => report.out += &format!("{}: {}, PID {}\n", run.name, run.state, run.pid),
            Each::Refused { name, error } => refused(&mut report, name, error),
        }
    }
    report
}

/// `quit` and `reap`
pub(super) fn ended(entries: &[Each<Ended>]) -> Report {
    let mut report = Report::done("");
    for entry in entries {
        match entry {
            Each::Done(end) => {
                report.out += &format!("{}: {}\n", end.name, how_it_ended(end));
                if end.survivors > 0 {
                    let survivors = count(end.survivors.into(), "process outlives", "processes outlive");
                    report.complain(&format_args!("{}: {survivors} SIGKILL", end.name));
                }
            }
            Each::Refused { name, error } => refused(&mut report, name, error),
        }
    }
    report
}

/// `2 processes ended when asked, 1 was killed, exit code 0`
fn how_it_ended(end: &Ended) -> String {
    let mut parts = Vec::new();
    if !end.terminated.is_empty() {
        parts.push(format!("{} ended when asked", count(end.terminated.len() as u64, "process", "processes")));
    }
    if !end.killed.is_empty() {
        parts.push(format!("{} killed", count(end.killed.len() as u64, "process", "processes")));
    }
    if end.survivors > 0 {
        parts.push(format!("{} left", count(end.survivors.into(), "process", "processes")));
    }
    let at_rest = parts.is_empty();
    if at_rest {
        parts.push("nothing was left to end".to_owned());
    }
    let last = if at_rest { "its last run ended: " } else { "" };
    match (end.signal.and_then(|number| Signal::from_number(number.into()).ok()), end.returncode) {
        (Some(signal), _) => parts.push(format!("{last}by SIG{signal}")),
        (None, Some(code)) => parts.push(format!("{last}exit code {code}")),
        (None, None) => {}
    }
    parts.join(", ")
}

/// `signal`
pub(super) fn signalled(done: &Signalled, signal: Signal) -> Report {
    let pids: Vec<_> = done.signalled.iter().map(u32::to_string).collect();
    Report::done(format!("{}: SIG{signal} sent to PID {}\n", done.name, pids.join(" ")))
}

/// `zombies` and `children`
pub(super) fn named_processes(processes: &[NamedProcess], style: &Style) -> Report {
    let mut table = Table::new(&[("PID", Align::Right), ("NAME", Align::Left), ("COMMAND", Align::Left)]);
    for process in processes {
        let line = command_line(&process.cmdline);
        table.row(vec![Cell::new(process.pid.to_string()), Cell::new(&process.name), Cell::maybe((!line.is_empty()).then_some(line))]);
    }
    Report::done(table.render(style))
}

/// `processes`
pub(super) fn processes(processes: &[HostProcess], style: &Style) -> Report {
    let mut table = Table::new(&[("PID", Align::Right), ("STATUS", Align::Left), ("COMMAND", Align::Left)]);
    for process in processes {
        table.row(vec![Cell::new(process.pid.to_string()), Cell::new(&process.status), Cell::new(&process.cmdline)]);
    }
    Report::done(table.render(style))
}

/// `process-info`
pub(super) fn process_info(processes: &[HostProcessInfo], style: &Style) -> Report {
    let mut table = Table::new(&[("PID", Align::Right), ("CREATED", Align::Left), ("COMMAND", Align::Left)]);
    for process in processes {
        table.row(vec![
            Cell::new(process.pid.to_string()),
            Cell::new(instant(process.create_time, &style.zone)),
            Cell::new(command_line(&process.cmdline)),
        ]);
    }
    Report::done(table.render(style))
}

/// `is-process-running`
pub(super) fn running_pids(pids: &RunningPids) -> Report {
    match pids {
        RunningPids::First(pid) => Report::verdict(format!("{pid}\n"), *pid != 0),
        RunningPids::All(pids) => Report::verdict(pids.iter().map(|pid| format!("{pid}\n")).collect::<String>(), !pids.is_empty()),
    }
}

/// `is-running` and `exists`
pub(super) fn yes_or_no(yes: bool) -> Report {
    Report::verdict(if yes { "yes\n" } else { "no\n" }, yes)
}

/// `returncode`
pub(super) fn returncode(code: Option<i32>) -> Report {
    Report::done(code.map_or_else(|| "none\n".to_owned(), |code| format!("{code}\n")))
}

/// `reload`: one line for each name that anything is done to. A file that is wrong is told mistake by mistake.
pub(super) fn reloaded(result: Result<Reloaded, ClientError>, dry_run: bool) -> Result<Report, ClientError> {
    let done = match result {
        Ok(done) => done,
        Err(ClientError::Refused(error)) => {
            let Some(Detail::List(mistakes)) = error.details.get(MISTAKES) else { return Err(ClientError::Refused(error)) };
            let mut report = Report::done("");
            for mistake in mistakes {
                match mistake {
                    Detail::Text(mistake) => report.complain(mistake),
                    Detail::Int(_) | Detail::List(_) => {}
                }
            }
            report.complain(&format_args!("{}: nothing was changed", error.code));
            return Ok(report);
        }
        Err(error) => return Err(error),
    };
    let Reloaded { added, changed, removed, unchanged, restarted, ignored } = done;
    let mut out = String::new();
    for (names, what) in [(&added, "added"), (&removed, "removed")] {
        names.iter().for_each(|name| out += &format!("{name}: {what}\n"));
    }
    for name in &changed {
        let how = if restarted.contains(name) { ", restarted" } else { "" };
        out += &format!("{name}: changed{how}\n");
    }
    let what = if dry_run { "nothing was changed, a reload would mean" } else { "reloaded" };
    let [added, changed, restarted, removed, unchanged] = [added, changed, restarted, removed, unchanged].map(|names| names.len());
    out += &format!("{what}: {added} added, {changed} changed ({restarted} restarted), {removed} removed, {unchanged} unchanged\n");
    let mut report = Report::done(out);
    if !ignored.is_empty() {
        report.complaints.push(format!("these differ and need a restart of the daemon: {}", escape(&ignored.join(", "))));
    }
    Ok(report)
}

/// `logs`: the lines as they are, but what a terminal would act on.
pub(in crate::client) fn log_lines(answer: &LogLines, style: &Style) -> Report {
    let mut out = String::with_capacity(answer.lines.iter().map(|line| line.len() + 1).sum());
    for line in &answer.lines {
        if style.terminal {
            // A tab acts, too, but nobody was ever harmed by one.
            let parts: Vec<_> = line.split('\t').map(escape).collect();
            out += &parts.join("\t");
        } else {
            out += line;
        }
        out.push('\n');
    }
    let mut report = Report::done(out);
    if answer.truncated {
        report.complaints.push("some of the lines that were asked for are not kept any more, or do not fit into one answer".to_owned());
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::exit::Exit;
    use crate::protocol::{ErrorCode, StateName, WireError};

    fn end(terminated: &[u32], killed: &[u32], survivors: u32, returncode: Option<i32>, signal: Option<i32>) -> Each<Ended> {
        let (terminated, killed) = (terminated.to_vec(), killed.to_vec());
        Each::Done(Ended { name: "web".parse().unwrap(), survivors, returncode, signal, terminated, killed })
    }

    fn no() -> WireError {
        WireError::new(ErrorCode::Busy, "its queue is full\x1b[2J; try again")
    }

    #[test]
    fn an_end_is_told_with_what_it_took() {
        let cases = [
            (end(&[1], &[], 0, Some(0), None), "web: 1 process ended when asked, exit code 0\n"),
            (end(&[1, 2], &[3], 0, Some(-15), Some(15)), "web: 2 processes ended when asked, 1 process killed, by SIGTERM\n"),
            (end(&[], &[], 0, None, None), "web: nothing was left to end\n"),
        ];
        for (entry, shown) in cases {
            assert_eq!(ended(&[entry]), Report::done(shown));
        }
    }

    #[test]
    fn survivors_and_refusals_are_failures() {
        let entries = [end(&[], &[7], 2, None, None), Each::Refused { name: "db".parse().unwrap(), error: no() }];
        let report = ended(&entries);
        assert_eq!(report.out, "web: 1 process killed, 2 processes left\n");
        assert_eq!(report.complaints, ["web: 2 processes outlive SIGKILL", "db: busy: its queue is full\\x1b[2J; try again"]);
        assert_eq!(report.exit, Exit::No);
    }

    #[test]
    fn a_reload_is_told_name_by_name_and_a_wrong_file_mistake_by_mistake() {
        let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        let done = Reloaded {
            added: names(&["a"]),
            changed: names(&["b", "c"]),
            removed: names(&["d"]),
            unchanged: names(&["e", "f"]),
            restarted: names(&["c"]),
            ignored: vec!["metrics.listen".into()],
        };
        let report = reloaded(Ok(done), false).unwrap();
        let shown =
            "a: added\nd: removed\nb: changed\nc: changed, restarted\nreloaded: 1 added, 2 changed (1 restarted), 1 removed, 2 unchanged\n";
        assert_eq!((report.out.as_str(), report.exit), (shown, Exit::Done));
        assert_eq!(report.complaints, ["these differ and need a restart of the daemon: metrics.listen"]);
        let mistakes = Detail::List(vec![Detail::Text("f:1: x: no".into()), Detail::Text("f:2: y: no\x1b".into())]);
        let wrong = WireError::bad_request("long").with(MISTAKES, mistakes);
        let report = reloaded(Err(ClientError::Refused(wrong)), false).unwrap();
        assert_eq!(report.complaints, ["f:1: x: no", "f:2: y: no\\x1b", "bad_request: nothing was changed"]);
        assert_eq!((report.out.as_str(), report.exit), ("", Exit::No));
        assert!(reloaded(Err(ClientError::Refused(no())), true).is_err());
    }

    #[test]
    fn a_start_is_told_with_its_pid() {
        let run = Executed { name: "web".parse().unwrap(), pid: 12, uuid: "u".into(), state: StateName::Starting };
        let report = executed(&[Each::Done(run), Each::Refused { name: "db".parse().unwrap(), error: no() }]);
        assert_eq!((report.out.as_str(), report.complaints.len(), report.exit), ("web: starting, PID 12\n", 1, Exit::No));
    }

    #[test]
    fn questions_answer_by_their_exit_code_too() {
        assert_eq!(yes_or_no(true), Report::done("yes\n"));
        assert_eq!((yes_or_no(false).out.as_str(), yes_or_no(false).exit), ("no\n", Exit::No));
        assert_eq!(running_pids(&RunningPids::First(12)), Report::done("12\n"));
        assert_eq!(running_pids(&RunningPids::First(0)).exit, Exit::No);
        assert_eq!(running_pids(&RunningPids::All(vec![3, 4])), Report::done("3\n4\n"));
        assert_eq!((running_pids(&RunningPids::All(vec![])).out.as_str(), running_pids(&RunningPids::All(vec![])).exit), ("", Exit::No));
        assert_eq!((returncode(Some(-9)), returncode(None)), (Report::done("-9\n"), Report::done("none\n")));
    }

    #[test]
    fn host_processes_cannot_speak_to_the_terminal() {
        let evil = "\x1b]0;owned\x07\nroot 1 init".to_owned();
        let named = NamedProcess { pid: 7, name: evil.clone(), cmdline: vec![evil.clone(), "\u{202e}".into()] };
        let zombie = NamedProcess { pid: 12345, name: "sh".into(), cmdline: vec![] };
        assert_eq!(
            named_processes(&[named, zombie], &Style::plain()).out,
            "  PID  NAME                           COMMAND
    7  \\x1b]0;owned\\x07\\nroot 1 init  '\\x1b]0;owned\\x07\\nroot 1 init' \\u{202e}
12345  sh                             -
"
        );
        let process = HostProcess { pid: 7, status: "sleeping".into(), cmdline: evil.clone() };
        assert_eq!(processes(&[process], &Style::plain()).out, "PID  STATUS    COMMAND\n  7  sleeping  \\x1b]0;owned\\x07\\nroot 1 init\n");
        let process = HostProcessInfo { pid: 7, cmdline: vec![evil], create_time: 0.0 };
        assert_eq!(
            process_info(&[process], &Style::plain()).out,
            "PID  CREATED                  COMMAND\n  7  1970-01-01 00:00:00 UTC  '\\x1b]0;owned\\x07\\nroot 1 init'\n"
        );
    }

    #[test]
    fn info_is_a_block() {
        let info_reply = Info {
            events_endpoints: Some(vec!["ipc:///run/procman/events.sock".into()]),
            cgse_endpoints: None,
            version: "0.1.0".into(),
            protocol: 1,
            pid: 812,
            uuid: "u".into(),
            uptime: 300.0,
            started_at: 1_795_356_185.0,
            hostname: "bench".into(),
            endpoints: vec!["ipc:///a".into(), "tcp://127.0.0.1:6200".into()],
            metrics_endpoint: None,
            capabilities: Capabilities { cgroup: false, pidfd_exit_info: true, curve: true, subreaper: true },
            counts: StateName::ALL.iter().map(|state| (*state, u64::from(*state == StateName::Running) * 3)).collect(),
        };
        assert_eq!(
            info(&info_reply, &Style::plain()).out,
            "\
procmand 0.1.0 on bench
       Protocol: 1
            PID: 812
           UUID: u
        Started: 2026-11-22 14:03:05 UTC (5m 00s ago)
       Endpoint: ipc:///a
       Endpoint: tcp://127.0.0.1:6200
         Events: ipc:///run/procman/events.sock
        Metrics: not served
   Capabilities: cgroup no, pidfd_exit_info yes, curve yes, subreaper yes
  Sub-processes: 3 running
"
        );
    }
}
