//! Registered sub-processes: `list` and `status`.

use super::human::{count, duration, instant, percent, size};
use super::table::{Align, Block, Cell, Colour, Table};
use super::text::{command_line, escape};
use super::{Report, Style, runs};
use crate::protocol::reply::{CgseEntry, ProcessStatus, StatusOfAll, View, ViewWithStatus};
use crate::protocol::{Cause, Signal, StateName};

/// `list`: one line each.
pub(super) fn list(views: &[View], style: &Style) -> Report {
    let mut table = Table::new(&[
        ("NAME", Align::Left),
        ("GROUP", Align::Left),
        ("STATE", Align::Left),
        ("PID", Align::Right),
        ("UPTIME", Align::Left),
        ("RESTARTS", Align::Right),
        ("LAST END", Align::Left),
        ("COMMAND", Align::Left),
    ]);
    for view in views {
        table.row(vec![
            Cell::new(view.name.as_str()),
            Cell::maybe(view.group.as_ref()),
            state(view),
            Cell::maybe(view.pid),
            Cell::maybe(view.uptime.map(duration)),
            Cell::new(view.restarts.to_string()),
            Cell::maybe(last_end(view)),
            Cell::new(command(view)),
        ]);
    }
    Report::done(table.render(style))
}

/// `status NAME`: everything about one.
pub(super) fn status(one: &ViewWithStatus, style: &Style) -> Report {
    let view = &one.view;
    let mut title = vec![Cell::new(view.name.as_str()), state(view)];
    title.extend(view.uptime.map(|uptime| Cell::new(format!("for {}", duration(uptime)))));
    let mut block = Block::new(title);
    block.fact_if("Group", view.group.as_ref().map(|group| group.as_str()));
    block.fact("Wanted", view.wanted.as_str());
    block.fact("Ready", if view.ready { "yes" } else { "no" });
    block.fact_if("Health", view.health.as_deref());
    if let Some(entry) = &view.cgse {
        block.fact("In CGSE", listed(entry, style));
    }
    block.fact_if("PID", view.pid.map(|pid| pid.to_string()));
    block.fact_if("UUID", view.uuid.as_deref());
    block.fact_if("Started", view.started_at.map(|at| instant(at, &style.zone)));
    block.fact("Restarts", view.restarts.to_string());
    block.fact_if("Last end", last_end(view));
    block.fact_if("Because", view.message.as_deref());
    block.fact_if("Next start", view.next_start_at.map(|at| instant(at, &style.zone)));
    if let Some(status) = &one.status {
        living(&mut block, status);
    }
    block.fact_if("Directory", view.cwd.as_deref());
    block.fact("Output", format!("stdout to {}, stderr to {}", view.stdout, view.stderr));
    block.fact_if("Log", view.log_problem.as_deref());
    block.fact("Command", command(view));
    Report::verdict(block.render(style), runs(view.state))
}

/// How it is listed in the registry of CGSE: `LOG_CS passing since … as log_cs-1`.
fn listed(entry: &CgseEntry, style: &Style) -> String {
    let CgseEntry { service_type, id, health, since, problem } = entry;
    let since = since.map(|at| format!(" since {}", instant(at, &style.zone))).unwrap_or_default();
    let id = id.as_ref().map(|id| format!(" as {id}")).unwrap_or_default();
    let problem = problem.as_ref().map(|problem| format!(": {problem}")).unwrap_or_default();
    format!("{service_type} {health}{since}{id}{problem}")
}

/// What of a status has no place in the view.
fn living(block: &mut Block, status: &ProcessStatus) {
    let ProcessStatus { memory, cpu, io, context_switches, tree, .. } = status;
    let unique = memory.uss.map(|uss| format!("{} unique, ", size(uss))).unwrap_or_default();
    block.fact("Memory", format!("{} resident, {unique}{} virtual, {} swapped", size(memory.rss), size(memory.vms), size(memory.swap)));
    block.fact("CPU", format!("{} %, {:.2} s user, {:.2} s system", percent(cpu.percent), cpu.user, cpu.system));
    block.fact("Threads", status.threads.to_string());
    block.fact_if("Open files", status.fds.map(|fds| fds.to_string()));
    if let (Some(read), Some(written)) = (io.read_bytes, io.write_bytes) {
        block.fact("Storage", format!("{} read, {} written", size(read), size(written)));
    }
    block.fact("Switches", format!("{} voluntary, {} involuntary", context_switches.voluntary, context_switches.involuntary));
    let processes = count(tree.processes, "process", "processes");
    let charged = tree.memory.map(|bytes| format!(" ({} charged)", size(bytes))).unwrap_or_default();
    block.fact("Tree", format!("{processes}, {} resident{charged}, {} % CPU", size(tree.rss), percent(tree.cpu_percent)));
}

/// `status`: the daemon on one line, and a table of what the sub-processes use.
pub(super) fn status_of_all(all: &StatusOfAll, style: &Style) -> Report {
    let daemon = &all.daemon;
    let mut out = format!(
        "procmand: PID {}, up {}, {} % CPU, {} resident, {}\n",
        daemon.pid,
        duration(daemon.uptime),
        percent(daemon.cpu.percent),
        size(daemon.memory.rss),
        count(daemon.threads, "thread", "threads")
    );
    if let Some(problem) = &all.store_problem {
        out.push_str(&format!("not durable: {}\n", escape(problem)));
    }
    if let Some(problem) = &all.registry_problem {
        out.push_str(&format!("not in the registry of CGSE: {}\n", escape(problem)));
    }
    for (hub, problem) in [("events", &all.notify_hub_problem), ("metrics", &all.metrics_hub_problem)] {
        if let Some(problem) = problem {
            out.push_str(&format!("CGSE gets no {hub}: {}\n", escape(problem)));
        }
    }
    out.push('\n');
    let mut table = Table::new(&[
        ("NAME", Align::Left),
        ("STATE", Align::Left),
        ("PID", Align::Right),
        ("UPTIME", Align::Left),
        ("CPU%", Align::Right),
        ("RESIDENT", Align::Right),
        ("UNIQUE", Align::Right),
        ("THREADS", Align::Right),
        ("FILES", Align::Right),
        ("TREE", Align::Right),
        ("TREE RESIDENT", Align::Right),
    ]);
    for ViewWithStatus { view, status } in &all.processes {
        let status = status.as_ref();
        table.row(vec![
            Cell::new(view.name.as_str()),
            state(view),
            Cell::maybe(view.pid),
            Cell::maybe(view.uptime.map(duration)),
            Cell::maybe(status.map(|s| percent(s.cpu.percent))),
            Cell::maybe(status.map(|s| size(s.memory.rss))),
            Cell::maybe(status.and_then(|s| s.memory.uss).map(size)),
            Cell::maybe(status.map(|s| s.threads)),
            Cell::maybe(status.and_then(|s| s.fds)),
            Cell::maybe(status.map(|s| s.tree.processes)),
            Cell::maybe(status.map(|s| size(s.tree.rss))),
        ]);
    }
    out += &table.render(style);
    Report::done(out)
}

/// The state in the colour of what it means.
fn state(view: &View) -> Cell {
    let colour = match view.state {
        StateName::Running => Some(Colour::Green),
        StateName::Starting | StateName::Stopping | StateName::Backoff => Some(Colour::Yellow),
        StateName::Fatal | StateName::Lost => Some(Colour::Red),
        StateName::Exited if view.returncode == Some(0) => None,
        StateName::Exited => Some(Colour::Red),
        StateName::Stopped => Some(Colour::Dim),
    };
    Cell::new(view.state.as_str()).coloured(colour)
}

/// How the last run ended, in a few words; none where there was no end.
fn last_end(view: &View) -> Option<String> {
    let code = || view.returncode.filter(|code| *code >= 0).map(|code| format!("exit {code}"));
    let signal = || view.signal.and_then(|number| Signal::from_number(number.into()).ok()).map(|signal| format!("SIG{signal}"));
    let how = || signal().or_else(code);
    let with = |word: &str| how().map_or_else(|| word.to_owned(), |how| format!("{word}, {how}"));
    Some(match view.cause? {
        Cause::Exit | Cause::Signal => how().unwrap_or_else(|| "exit".to_owned()),
        Cause::CoreDump => with("core dump"),
        Cause::Oom => with("out of memory"),
        Cause::Quit => with("quit"),
        Cause::Health => with("unhealthy"),
        Cause::StartTimeout => with("not ready in time"),
        Cause::SpawnFailed => "could not start".to_owned(),
        Cause::Lost => "not seen".to_owned(),
    })
}

/// What is run: for a shell the line that it gets, else the words.
fn command(view: &View) -> String {
    let words: Vec<String> = view.cmd.iter().chain(&view.args).cloned().collect();
    if view.shell { words.join(" ") } else { command_line(&words) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::exit::Exit;
    use crate::protocol::reply::{ContextSwitches, Cpu, Io, Memory, Tree};
    use crate::protocol::{RegistryHealth, Wanted};

    fn view(name: &str, state: StateName) -> View {
        let up = runs(state);
        View {
            name: name.parse().unwrap(),
            group: Some("core".parse().unwrap()),
            state,
            wanted: if up { Wanted::Up } else { Wanted::Down },
            pid: up.then_some(4711),
            uuid: Some("f3f9e3b2-c7a1-11f0-8de9-0242ac120002".into()),
            started_at: Some(1_795_082_585.0),
            uptime: up.then_some(273_600.0),
            ready: up,
            health: None,
            returncode: None,
            signal: None,
            cause: None,
            restarts: 2,
            next_start_at: None,
            cmd: vec!["python3".into(), "-m".into(), "egse.registry.server".into()],
            args: vec!["start".into()],
            shell: false,
            cwd: None,
            stdout: "null".into(),
            stderr: "file:/var/log/registry.err".into(),
            message: None,
            log_problem: None,
            cgse: None,
        }
    }

    fn living() -> ProcessStatus {
        ProcessStatus {
            pid: 4711,
            uuid: "f3f9e3b2-c7a1-11f0-8de9-0242ac120002".into(),
            create_time: 1_795_082_585.0,
            uptime: 273_600.0,
            memory: Memory { rss: 24_536_678, uss: Some(18_874_368), vms: 1 << 30, swap: 0 },
            cpu: Cpu { percent: 2.46, user: 12.3, system: 4.56, count: Some(2) },
            threads: 5,
            fds: Some(12),
            io: Io { read_bytes: Some(1_258_291), write_bytes: Some(0) },
            context_switches: ContextSwitches { voluntary: 1024, involuntary: 7 },
            tree: Tree { processes: 3, rss: 42_046_849, cpu_percent: 3.0, ..Tree::default() },
        }
    }

    #[test]
    fn a_list_is_a_table() {
        let mut broken = view("zed", StateName::Exited);
        (broken.returncode, broken.cause, broken.group, broken.restarts) = (Some(3), Some(Cause::Exit), None, 0);
        broken.args = vec!["a b".into(), "\x1b[2J".into()];
        let report = list(&[view("registry", StateName::Running), broken], &Style::plain());
        assert_eq!(report.exit, Exit::Done);
        assert_eq!(
            report.out,
            "\
NAME      GROUP  STATE     PID  UPTIME  RESTARTS  LAST END  COMMAND
registry  core   running  4711  3d 4h          2  -         python3 -m egse.registry.server start
zed       -      exited      -  -              0  exit 3    python3 -m egse.registry.server 'a b' \\x1b[2J
"
        );
        let empty = list(&[], &Style::plain());
        assert_eq!(empty.out, "NAME  GROUP  STATE  PID  UPTIME  RESTARTS  LAST END  COMMAND\n");
    }

    #[test]
    fn a_state_has_its_colour() {
        let style = Style { colour: true, ..Style::plain() };
        for (state, code) in [(StateName::Running, "32"), (StateName::Backoff, "33"), (StateName::Fatal, "31"), (StateName::Exited, "31")] {
            let out = list(&[view("a", state)], &style).out;
            assert!(out.contains(&format!("\x1b[{code}m{state}\x1b[0m")), "{out:?}");
        }
    }

    #[test]
    fn the_status_of_one_is_a_block() {
        let report = status(&ViewWithStatus { view: view("registry", StateName::Running), status: Some(living()) }, &Style::plain());
        assert_eq!(report.exit, Exit::Done);
        assert_eq!(
            report.out,
            "\
registry running for 3d 4h
       Group: core
      Wanted: up
       Ready: yes
         PID: 4711
        UUID: f3f9e3b2-c7a1-11f0-8de9-0242ac120002
     Started: 2026-11-19 10:03:05 UTC
    Restarts: 2
      Memory: 23.4 MiB resident, 18.0 MiB unique, 1.0 GiB virtual, 0 B swapped
         CPU: 2.5 %, 12.30 s user, 4.56 s system
     Threads: 5
  Open files: 12
     Storage: 1.2 MiB read, 0 B written
    Switches: 1024 voluntary, 7 involuntary
        Tree: 3 processes, 40.1 MiB resident, 3.0 % CPU
      Output: stdout to null, stderr to file:/var/log/registry.err
     Command: python3 -m egse.registry.server start
"
        );
    }

    #[test]
    fn how_it_is_listed_in_cgse_is_one_fact() {
        let entry = CgseEntry {
            service_type: "LOG_CS".into(),
            id: Some("log_cs-1".into()),
            health: RegistryHealth::Passing,
            since: Some(1_795_082_585.0),
            problem: None,
        };
        let shown = |entry: CgseEntry| {
            let view = View { cgse: Some(entry), ..view("log_cs", StateName::Running) };
            let out = status(&ViewWithStatus { view, status: None }, &Style::plain()).out;
            out.lines().find_map(|line| line.trim().strip_prefix("In CGSE: ").map(str::to_owned)).unwrap()
        };
        assert_eq!(shown(entry.clone()), "LOG_CS passing since 2026-11-19 10:03:05 UTC as log_cs-1");
        let unknown = CgseEntry { id: None, health: RegistryHealth::Unknown, since: None, problem: Some("no\x1b answer".into()), ..entry };
        assert_eq!(shown(unknown), "LOG_CS unknown: no\\x1b answer");
    }

    #[test]
    fn the_status_of_one_that_does_not_run_says_how_it_ended() {
        let mut dead = view("web", StateName::Backoff);
        (dead.returncode, dead.signal, dead.cause) = (Some(-11), Some(11), Some(Cause::CoreDump));
        (dead.next_start_at, dead.shell, dead.cwd, dead.group) = (Some(1_795_356_185.0), true, Some("/srv".into()), None);
        let report = status(&ViewWithStatus { view: dead, status: None }, &Style::plain());
        assert_eq!(report.exit, Exit::No);
        assert_eq!(
            report.out,
            "\
web backoff
      Wanted: down
       Ready: no
        UUID: f3f9e3b2-c7a1-11f0-8de9-0242ac120002
     Started: 2026-11-19 10:03:05 UTC
    Restarts: 2
    Last end: core dump, SIGSEGV
  Next start: 2026-11-22 14:03:05 UTC
   Directory: /srv
      Output: stdout to null, stderr to file:/var/log/registry.err
     Command: python3 -m egse.registry.server start
"
        );
    }

    #[test]
    fn the_status_of_all_is_a_table() {
        let all = StatusOfAll {
            daemon: ProcessStatus { pid: 812, uptime: 300_000.0, ..living() },
            processes: vec![
                ViewWithStatus { view: view("registry", StateName::Running), status: Some(living()) },
                ViewWithStatus { view: view("web", StateName::Stopped), status: None },
            ],
            store_problem: None,
            registry_problem: None,
            notify_hub_problem: None,
            metrics_hub_problem: Some("nobody takes connections at tcp://127.0.0.1:6130".into()),
        };
        assert_eq!(
            status_of_all(&all, &Style::plain()).out,
            "\
procmand: PID 812, up 3d 11h, 2.5 % CPU, 23.4 MiB resident, 5 threads
CGSE gets no metrics: nobody takes connections at tcp://127.0.0.1:6130

NAME      STATE     PID  UPTIME  CPU%  RESIDENT    UNIQUE  THREADS  FILES  TREE  TREE RESIDENT
registry  running  4711  3d 4h    2.5  23.4 MiB  18.0 MiB        5     12     3       40.1 MiB
web       stopped     -  -          -         -         -        -      -     -              -
"
        );
    }

    #[test]
    fn every_cause_has_its_words() {
        let shown: Vec<_> = Cause::ALL
            .iter()
            .map(|cause| {
                let mut view = view("a", StateName::Exited);
                (view.cause, view.returncode, view.signal) = (Some(*cause), Some(-9), Some(9));
                last_end(&view).unwrap()
            })
            .collect();
        let words = "SIGKILL|SIGKILL|core dump, SIGKILL|out of memory, SIGKILL|quit, SIGKILL|unhealthy, SIGKILL|not ready in time, SIGKILL|could not start|not seen";
        assert_eq!(shown.join("|"), words);
    }
}
