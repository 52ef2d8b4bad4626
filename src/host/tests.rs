//! The questions, put to real processes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;
use crate::procfs::testing::{TestProcess, until};

fn matcher(items: &[&str]) -> Matcher {
    Matcher::new(&items.iter().map(|&item| item.to_owned()).collect::<Vec<_>>(), true, false)
}

/// One for all tests of this file, so that they ask also where descriptors are kept of what others started and ended.
static HOST: LazyLock<Host> = LazyLock::new(|| Host::new(200));

fn processes(matcher: &Matcher) -> io::Result<Vec<HostProcess>> {
    HOST.processes(matcher)
}

fn process_info(matcher: &Matcher) -> io::Result<Vec<HostProcessInfo>> {
    HOST.process_info(matcher)
}

fn running_pids(matcher: &Matcher) -> io::Result<Vec<u32>> {
    HOST.running_pids(matcher)
}

/// A word that no other process has, whichever test runs beside this one.
fn word(test: &str) -> String {
    format!("Procman-{}-{test}", std::process::id())
}

/// A shell that waits for its input, called by one word and given another.
fn called(name: &str, argument: &[u8]) -> TestProcess {
    let script = ["-c", "read x"];
    TestProcess::start(Command::new("/bin/sh").arg0(name).args(script).arg(OsStr::from_bytes(argument)).stdin(Stdio::piped()))
}

#[test]
fn a_process_is_found_by_its_words() {
    let word = word("found");
    let (first, second) = (called(&word, b"b c"), called(&word, b"d"));
    let mut both = [first.id(), second.id()];
    both.sort_unstable();
    assert_eq!(running_pids(&matcher(&[&word.to_uppercase()])).unwrap(), both);
    assert_eq!(running_pids(&matcher(&[&word])).unwrap().first(), Some(&both[0]));
    assert_eq!(running_pids(&matcher(&[&word, "b c"])).unwrap(), [first.id()]);
    assert!(running_pids(&matcher(&[&format!("{word} -c")])).unwrap().is_empty(), "the joined line does not count");
    assert!(running_pids(&matcher(&[&word, "nothing like this"])).unwrap().is_empty());
    assert!(running_pids(&matcher(&[])).unwrap().is_empty());

    let info = process_info(&matcher(&[&word, "b c"])).unwrap();
    assert_eq!(info.len(), 1);
    assert_eq!(info[0].cmdline, [&word, "-c", "read x", "b c"]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - info[0].create_time).abs() < 60.0, "{info:?}");
    until(|| processes(&matcher(&[&word, "b c"])).unwrap()[0].status == "sleeping");
    let listed = processes(&matcher(&[&word, "b c"])).unwrap();
    assert_eq!((listed[0].pid, &listed[0].cmdline), (first.id(), &format!("{word} -c read x b c")));
}

#[test]
fn a_zombie_is_listed_as_one_and_matches_nothing() {
    let word = word("zombie");
    let mut child = called(&word, b"");
    child.kill();
    assert!(running_pids(&matcher(&[&word])).unwrap().is_empty());
    assert!(running_pids(&matcher(&[""])).unwrap().iter().all(|&pid| pid != child.id()));
    let expected = NamedProcess { pid: child.id(), name: "sh".into(), cmdline: Vec::new() };
    assert!(zombies().unwrap().contains(&expected));
    child.end();
    assert!(!zombies().unwrap().contains(&expected));
}

#[test]
fn everything_with_a_command_line_matches_the_empty_item() {
    let all = running_pids(&matcher(&[""])).unwrap();
    assert!(all.contains(&std::process::id()), "our own process too");
    assert!(all.is_sorted());
    let kernel_threads = Table::scan().unwrap().children_of(2).map(|stat| stat.pid).collect::<Vec<_>>();
    let has_kernel_threads = crate::procfs::read_stat(2).is_ok_and(|stat| stat.name() == "kthreadd");
    assert!(!has_kernel_threads || kernel_threads.iter().all(|pid| !all.contains(pid)));
}

#[test]
fn odd_names_and_words_hide_nobody() {
    let word = word("odd");
    let odd = called(&word, b"\xff\n) R 1 (");
    let mut named = TestProcess::spawn(b") Z 1 (\n\xfe");
    let info = process_info(&matcher(&[&word])).unwrap();
    assert_eq!((info[0].pid, info[0].cmdline[3].as_str()), (odd.id(), "\u{fffd}\n) R 1 ("));
    let listed = processes(&matcher(&[""])).unwrap();
    let found = listed.iter().find(|process| process.pid == named.id()).unwrap();
    assert!(found.status != "zombie" && found.cmdline.contains("/proc/self/comm"), "{found:?}");
    named.kill();
    assert!(zombies().unwrap().iter().any(|zombie| zombie.pid == named.id() && zombie.name == ") Z 1 (\n\u{fffd}"));
}

#[test]
fn processes_that_vanish_meanwhile_spoil_no_answer() {
    let word = word("vanish");
    let child = called(&word, b"");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                Command::new("/bin/true").status().unwrap();
            }
        });
        for _ in 0..300 {
            assert_eq!(process_info(&matcher(&[&word])).unwrap()[0].pid, child.id());
            assert!(processes(&matcher(&[""])).unwrap().iter().any(|process| process.pid == child.id()));
            zombies().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// What is read through a descriptor that stayed open is what the process is now, not what it was when it was opened.
#[test]
fn an_exec_shows_behind_an_open_descriptor() {
    let (before, after) = (word("before-exec"), word("after-exec"));
    let host = Host::new(100_000);
    let script = format!("read x; exec -a {after} sleep 1000");
    let mut child = TestProcess::start(Command::new("/bin/bash").arg0(&before).args(["-c", &script]).stdin(Stdio::piped()));
    let first = host.process_info(&matcher(&[&before, "exec -a"])).unwrap();
    assert_eq!(first.iter().map(|info| info.pid).collect::<Vec<_>>(), [child.id()]);
    assert!(host.kept.open_now() > 0);
    // The whole word: the shell has it within its script.
    let called_so = Matcher::new(std::slice::from_ref(&after), false, true);
    child.say("");
    until(|| host.running_pids(&called_so).unwrap() == [child.id()]);
    let then = host.process_info(&called_so).unwrap();
    assert_eq!((then[0].pid, &then[0].cmdline), (child.id(), &vec![after.clone(), "1000".to_owned()]));
    assert!((then[0].create_time - first[0].create_time).abs() < f64::EPSILON, "the same process: {first:?} {then:?}");
    assert!(host.running_pids(&matcher(&[&before, "exec -a"])).unwrap().is_empty());
    child.kill();
    assert!(host.running_pids(&called_so).unwrap().is_empty(), "a zombie");
}

#[test]
fn answers_are_the_same_however_few_descriptors_are_kept() {
    let word = word("few");
    let children: Vec<_> = (0..20).map(|_| called(&word, b"x")).collect();
    let mut pids: Vec<_> = children.iter().map(TestProcess::id).collect();
    pids.sort_unstable();
    for most in [0, 1, 7, 100_000] {
        let host = Host::new(most);
        for _ in 0..3 {
            assert_eq!(host.running_pids(&matcher(&[&word])).unwrap(), pids);
            let infos = host.process_info(&matcher(&[&word])).unwrap();
            assert_eq!(infos, Host::new(0).process_info(&matcher(&[&word])).unwrap());
            assert_eq!(host.processes(&matcher(&[&word])).unwrap().iter().map(|process| process.pid).collect::<Vec<_>>(), pids);
            assert!(host.kept.open_now() <= most, "{} of {most}", host.kept.open_now());
        }
        assert!(host.kept.open_now() >= most.min(pids.len()));
    }
}

#[test]
fn descriptors_are_closed_when_nobody_asks() {
    let host = Host::new(100_000);
    let (start, idle) = (Instant::now(), Duration::from_secs(10));
    host.running_pids(&matcher(&[""])).unwrap();
    assert!(host.answered(start), "the first one has somebody wait");
    assert!(!host.answered(start + Duration::from_secs(4)), "somebody waits");
    assert_eq!(host.release(idle, start + idle), Some(Duration::from_secs(4)));
    assert!(host.kept.open_now() > 0);
    assert_eq!(host.release(idle, start + Duration::from_secs(14)), None);
    assert_eq!(host.kept.open_now(), 0);
    assert!(host.answered(start + Duration::from_secs(15)), "and the next one again");
}
