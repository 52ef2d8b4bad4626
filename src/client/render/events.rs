//! Events, one line each, because they are shown as they come; and `history`.

use serde_json::Value;

use super::human::{duration, instant};
use super::table::{Align, Cell, Table};
use super::text::{command_line, escape, escape_json};
use super::{Report, Style};
use crate::protocol::event::{Event, Noted, StateChanged};
use crate::protocol::reply::{AuditEntry, PastRun, Replay};
use crate::protocol::{Cause, EndedBy, Signal};

/// An event as a line for people, with its line feed: when, its number, who, what.
pub fn line(event: &Event, style: &Style) -> String {
    let (seq, time, name, what) = match event {
        Event::StateChanged(change) => (change.seq, change.time, change.name.as_str(), change_of_state(change)),
        Event::Noted(Noted { seq, time, event, name, message, .. }) => {
            (*seq, *time, name.as_ref().map_or("procmand", |name| name.as_str()), format!("{event}: {message}"))
        }
    };
    format!("{}  #{seq}  {name}  {}\n", instant(time, &style.zone), escape(&what))
}

/// `running -> stopping, by SIGKILL`
fn change_of_state(change: &StateChanged) -> String {
    let mut text = format!("{} -> {}", change.from, change.to);
    if let Some(pid) = change.pid {
        text += &format!(", PID {pid}");
    }
    if let Some(end) = end(change.cause, change.returncode, change.signal) {
        text += &format!(", {end}");
    }
    text
}

/// How a run ended: `exit 1`, `SIGSEGV, core_dump`, `quit, SIGTERM`.
fn end(cause: Option<Cause>, returncode: Option<i32>, signal: Option<i32>) -> Option<String> {
    let how = match (signal.and_then(|number| Signal::from_number(number.into()).ok()), returncode) {
        (Some(signal), _) => Some(format!("SIG{signal}")),
        (None, Some(code)) => Some(format!("exit {code}")),
        (None, None) => None,
    };
    match (cause, how) {
        // How it ended says it all.
        (Some(Cause::Exit | Cause::Signal) | None, Some(how)) => Some(how),
        (Some(cause), Some(how)) => Some(format!("{cause}, {how}")),
        (Some(cause), None) => Some(cause.to_string()),
        (None, None) => None,
    }
}

/// An event as it came, as JSON on one line.
pub fn json_line(event: &Value) -> String {
    format!("{}\n", escape_json(&event.to_string()))
}

/// `events`, without following.
pub(super) fn events(replay: &Replay, style: &Style) -> Report {
    Report::done(replay.events.iter().map(|event| line(event, style)).collect::<String>())
}

/// `history`
pub(super) fn history(runs: &[PastRun], style: &Style) -> Report {
    let mut table = Table::new(&[
        ("NAME", Align::Left),
        ("PID", Align::Right),
        ("STARTED", Align::Left),
        ("BY", Align::Left),
        ("LIVED", Align::Left),
        ("ENDED", Align::Left),
        ("END", Align::Left),
        ("BY", Align::Left),
        ("REMARK", Align::Left),
    ]);
    for run in runs {
        let arguments = (!run.args.is_empty()).then(|| format!("with {}", command_line(&run.args)));
        let (is_seen, ended) = (run.cause != Cause::Lost, instant(run.ended_at, &style.zone));
        let remark: Vec<_> = run.message.iter().cloned().chain(arguments).collect();
        table.row(vec![
            Cell::new(run.name.as_str()),
            Cell::maybe(run.pid),
            Cell::new(instant(run.started_at, &style.zone)),
            Cell::new(run.started_by.as_str()),
            // Of one whose end nobody saw, it is known when it was missed.
            Cell::new(if is_seen { duration(run.duration) } else { format!("< {}", duration(run.duration)) }),
            Cell::new(if is_seen { ended } else { format!("by {ended}") }),
            Cell::maybe(end(Some(run.cause), run.returncode, run.signal)),
            Cell::maybe((run.ended_by != EndedBy::Itself).then_some(run.ended_by)),
            Cell::maybe((!remark.is_empty()).then(|| remark.join("; "))),
        ]);
    }
    Report::done(table.render(style))
}

/// `audit`
pub(super) fn audit(entries: &[AuditEntry], style: &Style) -> Report {
    let mut table = Table::new(&[
        ("TIME", Align::Left),
        ("WHO", Align::Left),
        ("FROM", Align::Left),
        ("ENDPOINT", Align::Left),
        ("COMMAND", Align::Left),
        ("TARGET", Align::Left),
        ("OUTCOME", Align::Left),
        ("REQUEST", Align::Left),
        ("REMARK", Align::Left),
    ]);
    for entry in entries {
        table.row(vec![
            Cell::new(instant(entry.time, &style.zone)),
            Cell::new(&entry.principal),
            Cell::maybe(entry.peer.as_ref()),
            Cell::new(&entry.endpoint),
            Cell::new(&entry.command),
            Cell::maybe(entry.target.as_ref()),
            Cell::new(&entry.outcome),
            Cell::maybe(entry.request_id.as_ref()),
            Cell::maybe(entry.message.as_ref()),
        ]);
    }
    Report::done(table.render(style))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::event::Stamp;
    use crate::protocol::{EventName, Origin, StateName};

    fn change() -> StateChanged {
        StateChanged {
            seq: 12,
            time: 1_795_356_185.9,
            name: "web".parse().unwrap(),
            from: StateName::Running,
            to: StateName::Stopping,
            pid: None,
            returncode: Some(-9),
            signal: Some(9),
            cause: Some(Cause::Signal),
            daemon: "u".into(),
        }
    }

    #[test]
    fn an_event_is_a_line() {
        let shown = |change| line(&Event::StateChanged(change), &Style::plain());
        assert_eq!(shown(change()), "2026-11-22 14:03:05 UTC  #12  web  running -> stopping, SIGKILL\n");
        let running = StateChanged {
            from: StateName::Starting,
            to: StateName::Running,
            pid: Some(7),
            returncode: None,
            signal: None,
            cause: None,
            ..change()
        };
        assert_eq!(shown(running), "2026-11-22 14:03:05 UTC  #12  web  starting -> running, PID 7\n");
        let stamp = Stamp { seq: 3, time: 0.0, daemon: "u".into() };
        let noted = Event::Noted(Noted::new(stamp, EventName::GaveUp, None, "no\x1b[2J\nmore"));
        assert_eq!(line(&noted, &Style::plain()), "1970-01-01 00:00:00 UTC  #3  procmand  gave_up: no\\x1b[2J\\nmore\n");
    }

    #[test]
    fn an_end_says_how_and_why() {
        for (cause, code, signal, shown) in [
            (Some(Cause::Exit), Some(3), None, Some("exit 3")),
            (Some(Cause::Signal), Some(-15), Some(15), Some("SIGTERM")),
            (Some(Cause::Quit), Some(-15), Some(15), Some("quit, SIGTERM")),
            (Some(Cause::CoreDump), Some(-11), Some(11), Some("core_dump, SIGSEGV")),
            (Some(Cause::SpawnFailed), None, None, Some("spawn_failed")),
            (None, None, None, None),
        ] {
            assert_eq!(end(cause, code, signal).as_deref(), shown);
        }
    }

    #[test]
    fn a_run_is_a_row() {
        let run = PastRun {
            name: "web".parse().unwrap(),
            uuid: "u".into(),
            pid: None,
            args: vec!["-v".into()],
            started_at: 0.0,
            ended_at: 61.0,
            returncode: None,
            signal: None,
            cause: Cause::SpawnFailed,
            duration: 61.0,
            core_dump: false,
            started_by: Origin::Autostart,
            ended_by: EndedBy::Itself,
            message: Some("no such program".into()),
        };
        let out = history(&[run], &Style::plain()).out;
        let row = out.lines().nth(1).unwrap();
        assert_eq!(
            row,
            "web     -  1970-01-01 00:00:00 UTC  autostart  1m 01s  1970-01-01 00:01:01 UTC  spawn_failed  -   no such program; with -v"
        );
    }
}
