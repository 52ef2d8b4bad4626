//! With real processes and sockets.

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Mutex;

use futures_util::{FutureExt, StreamExt, stream};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::output::{Notice, Outputs, Settings, Watcher};
use crate::procfs::testing::{PYTHON, until};
use crate::procfs::{Root, is_gone, read_stat};
use crate::protocol::definition::Definition;
use crate::subprocess::containment::Containment;
use crate::subprocess::spawn::Spawned;
use crate::subprocess::spec::probe::StopRequest;
use crate::sys::reaper::Mains;

use super::*;
use crate::subprocess::ledger::Written;
use crate::subprocess::tree;

/// Answers what it was told to; at last always the same.
#[derive(Default)]
struct Answers {
    answers: Mutex<VecDeque<Result<(), String>>>,
    asked: Mutex<Vec<Probe>>,
    /// How it is listed, one after the other; as whom it was followed.
    listings: Mutex<Vec<Listing>>,
    followed: Mutex<Vec<(String, String, bool)>>,
}

impl Ask for Arc<Answers> {
    fn ask(&self, probe: &Probe, _: Duration) -> BoxFuture<'static, Result<(), String>> {
        self.asked.lock().unwrap().push(probe.clone());
        let mut answers = self.answers.lock().unwrap();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        std::future::ready(answer.unwrap()).boxed()
    }

    fn follow(&self, name: &Name, service_type: &str, was_passing: bool) -> Option<BoxStream<'static, Listing>> {
        self.followed.lock().unwrap().push((name.to_string(), service_type.to_owned(), was_passing));
        let listings = self.listings.lock().unwrap().clone();
        // Not before it can be ready.
        let later = stream::once(tokio::time::sleep(Duration::from_millis(50))).flat_map(move |()| stream::iter(listings.clone()));
        Some(later.chain(stream::pending()).boxed())
    }
}

/// Is told nothing of logs: there are none.
struct Nobody;

impl Watcher for Nobody {
    fn notice(&self, _: &Notice<'_>) {}
}

struct Bench {
    shared: Arc<VigilShared>,
    answers: Arc<Answers>,
    dir: TempDir,
}

/// A run; its main is killed and reaped when it is dropped.
struct Run {
    spawned: Spawned,
    uuid: String,
    _root: Root,
}

impl Drop for Run {
    fn drop(&mut self) {
        drop(self.spawned.fd.send_signal(libc::SIGKILL));
        until(|| !matches!(self.spawned.fd.reap(), Ok(None)));
    }
}

impl Bench {
    fn new() -> Self {
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        let answers = Arc::new(Answers::default());
        let dir = tempfile::tempdir().unwrap();
        let places = Settings { logs: dir.path().join("logs"), journal: dir.path().join("journal") };
        let spawner = Spawner::new(
            "test".into(),
            Arc::new(Mains::default()),
            None,
            Arc::new(Containment::new(None)),
            Outputs::new(places, Arc::new(Nobody)),
        );
        let shared = VigilShared::new(Arc::new(answers.clone()), spawner, Forest::new(), Arc::default());
        Self { shared: Arc::new(shared), answers, dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn answer(&self, answers: &[Result<(), &str>]) {
        *self.answers.answers.lock().unwrap() = answers.iter().map(|answer| answer.map_err(str::to_owned)).collect();
    }

    fn asked(&self) -> usize {
        self.answers.asked.lock().unwrap().len()
    }

    /// Starts this Python program, which has the text of `notify` before it, as a sub-process with these keys.
    async fn start(&self, program: &str, keys: Value) -> (Run, Vigil) {
        let mut definition = json!({"cmd": [PYTHON, "-c", format!("{NOTIFY}\n{program}")]});
        definition.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        let definition: Definition = serde_json::from_value(definition).unwrap();
        let spec = Arc::new(Spec::resolve("test".parse().unwrap(), definition).unwrap());
        let uuid = uuid::Uuid::new_v4().to_string();
        let notify = NotifySocket::is_wanted(&spec).then(|| NotifySocket::bind(self.dir.path(), &uuid).unwrap());
        let mut launch = Launch { env: BTreeMap::from([("DIR".to_owned(), self.path(""))]), ..Launch::default() };
        let plain = launch.clone();
        launch.env.extend(notify.iter().flat_map(|notify| notify.environment(&spec)));
        let spawned = self.shared.spawner.clone().spawn(spec.clone(), launch, uuid.clone(), Written::after(|| (), |_| ())).await.unwrap();
        let root = self.shared.forest.plant(&uuid, spawned.identity);
        let watched = WatchedRun { spec, launch: plain, uuid: uuid.clone(), main: spawned.identity, notify, shared: self.shared.clone() };
        (Run { spawned, uuid, _root: root }, Vigil::begin(watched))
    }
}

const NOTIFY: &str = r#"
import os, socket, sys, time
def notify(*lines):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto("\n".join(lines).encode(), os.environ["NOTIFY_SOCKET"])
def said(name, text):
    with open(os.environ["DIR"] + name + ".new", "w") as f: f.write(str(text))
    os.rename(os.environ["DIR"] + name + ".new", os.environ["DIR"] + name)
"#;

const SOON: Duration = Duration::from_secs(20);

async fn next(vigil: &mut Vigil) -> Sign {
    tokio::time::timeout(SOON, vigil.next()).await.expect("a sign")
}

/// Whether a process is gone, or would be if anybody here reaped orphans.
fn is_over(pid: u32) -> bool {
    match read_stat(pid) {
        Ok(stat) => stat.is_dead(),
        Err(error) => is_gone(&error),
    }
}

fn pid_in(path: &str) -> u32 {
    until(|| Path::new(path).exists());
    std::fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

async fn over(pids: &[u32]) {
    for pid in pids {
        let ended = async {
            while !is_over(*pid) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, ended).await.unwrap_or_else(|_| panic!("{pid} still lives"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_says_what_it_does() {
    let bench = Bench::new();
    let program = r#"
assert "WATCHDOG_PID" not in os.environ
notify("STATUS=Reading\x1b[1m", "X_OWN=1")
notify("EXTEND_TIMEOUT_USEC=5000000")
notify("RELOADING=1")
notify("READY=1", "STATUS=Serving " + os.environ["WATCHDOG_USEC"])
notify("STATUS=Serving " + os.environ["WATCHDOG_USEC"], "WATCHDOG=1")
notify("RELOADING=1")
notify("READY=1")
notify("x" * 5000 + "\nSTATUS=long")
notify("WATCHDOG=trigger")
notify("WATCHDOG=trigger")
notify("STOPPING=1")
time.sleep(1000)
"#;
    let keys = json!({"ready": {"notify": true}, "health": {"notify": true, "interval": 60}, "stop_timeout": 0.05});
    let (_run, mut vigil) = bench.start(program, keys).await;
    for expected in [
        Sign::Status("Reading[1m".into()),
        Sign::ExtendTimeout(Duration::from_secs(5)),
        Sign::Ready,
        Sign::Status("Serving 60000000".into()),
        Sign::Health(Health::Passing),
        Sign::Reloading,
        Sign::Ready,
        Sign::Unhealthy { message: "it says itself that something is wrong with it (WATCHDOG=trigger)".into() },
        Sign::Stopping,
    ] {
        assert_eq!(next(&mut vigil).await, expected);
    }
    // It was told once that it is ill; that it does not end either is nothing new.
    assert!(tokio::time::timeout(Duration::from_millis(200), vigil.next()).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_says_it_ends_and_does_not_is_ill() {
    let bench = Bench::new();
    let program = "notify('READY=1', 'STOPPING=1')\ntime.sleep(1000)";
    let (_run, mut vigil) = bench.start(program, json!({"ready": {"notify": true}, "stop_timeout": 0.1})).await;
    assert_eq!((next(&mut vigil).await, next(&mut vigil).await), (Sign::Ready, Sign::Stopping));
    let Sign::Unhealthy { message } = next(&mut vigil).await else { panic!() };
    assert_eq!(message, "it said that it is about to end, and has not within 0.1 s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_not_heard_and_the_whole_tree_is() {
    let bench = Bench::new();
    // A child with a session and an environment of its own, whose parent has ended: only a look at all processes tells whose it is.
    let program = r#"
while not os.path.exists(os.environ["DIR"] + "go"): time.sleep(0.01)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(0.1)
        notify("STATUS=from a daemon", "MAINPID=1")
        time.sleep(1000)
    os._exit(0)
os.wait()
time.sleep(1000)
"#;
    let (run, mut vigil) = bench.start(program, json!({"ready": {"notify": true}})).await;
    let path = bench.dir.path().join("notify").join(&run.uuid);
    let stranger = UnixDatagram::unbound().unwrap();
    for _ in 0..3 {
        stranger.send_to(b"READY=1\nSTATUS=from a stranger", &path).unwrap();
    }
    assert!(tokio::time::timeout(Duration::from_millis(200), vigil.next()).await.is_err());
    stranger.send_to(b"READY=1", &path).unwrap();
    std::fs::write(bench.path("go"), "").unwrap();
    assert_eq!(next(&mut vigil).await, Sign::Status("from a daemon".into()));
    stranger.send_to(b"READY=1", &path).unwrap();
    assert_eq!(vigil.drain(), [], "nor when there is no time to look");
    let look = bench.shared.forest.look().await.unwrap();
    let members: Vec<u32> = look.members(&run.uuid).iter().map(|stat| stat.pid).collect();
    assert_eq!(members.len(), 2);
    for pid in members {
        drop(tree::hold(read_stat(pid).unwrap().identity()).unwrap().unwrap().send_signal(libc::SIGKILL));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_names_another_main_and_leaves_is_heard() {
    let bench = Bench::new();
    let program = r#"
r, w = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(w, b"%d" % os.getpid())
        time.sleep(1000)
    os._exit(0)
os.wait()
notify("MAINPID=" + os.read(r, 20).decode(), "READY=1")
"#;
    let (run, mut vigil) = bench.start(program, json!({"ready": {"notify": true}})).await;
    until(|| matches!(run.spawned.fd.reap(), Ok(Some(_)) | Err(_)));
    let signs = vigil.drain();
    let [Sign::MainPid(main), Sign::Ready] = signs[..] else { panic!("{signs:?}") };
    assert_eq!(read_stat(main.pid).unwrap().ppid, std::process::id());
    drop(tree::hold(main).unwrap().unwrap().send_signal(libc::SIGKILL));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keep_alive_that_does_not_come_is_missed_once() {
    let bench = Bench::new();
    let program = r#"
notify("READY=1")
for i in range(5):
    time.sleep(0.05)
    notify("WATCHDOG=1")
notify("WATCHDOG_USEC=100000")
time.sleep(1000)
"#;
    let (_run, mut vigil) = bench.start(program, json!({"ready": {"notify": true}, "health": {"notify": true, "interval": 5}})).await;
    assert_eq!(next(&mut vigil).await, Sign::Ready);
    assert_eq!(next(&mut vigil).await, Sign::Health(Health::Passing));
    assert_eq!(next(&mut vigil).await, Sign::Health(Health::Failing(1)));
    assert_eq!(next(&mut vigil).await, Sign::Unhealthy { message: "it did not say within 0.1 s that it is alive (WATCHDOG=1)".into() });
    assert!(tokio::time::timeout(Duration::from_millis(200), vigil.next()).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_does_not_keep_the_daemon_busy_nor_hide_the_last_word() {
    let bench = Bench::new();
    let program = r#"
i = 0
while True:
    i += 1
    notify("STATUS=%d" % i)
"#;
    let (_run, mut vigil) = bench.start(program, json!({"ready": {"notify": true}})).await;
    let mut heard = 0;
    let listening = async {
        loop {
            vigil.next().await;
            heard += 1;
        }
    };
    assert!(tokio::time::timeout(Duration::from_millis(1500), listening).await.is_err());
    assert!((2..=900).contains(&heard), "{heard} messages in 1.5 s");
    assert!(vigil.drain().len() <= listener::MOST_AT_ONCE);
}

#[tokio::test]
async fn it_is_ready_when_it_answers_and_then_well_as_long_as_it_does() {
    let bench = Bench::new();
    bench.answer(&[Err("refused"), Err("still refused"), Ok(())]);
    let keys = json!({
        "ready": {"tcp": "localhost:1", "interval": 0.01},
        "health": {"unix": "/nowhere", "interval": 0.01, "failures": 3},
    });
    let (_run, mut vigil) = bench.start("time.sleep(1000)", keys).await;
    assert_eq!(next(&mut vigil).await, Sign::Ready);
    assert_eq!((bench.asked(), vigil.refusal()), (3, None));
    assert_eq!(next(&mut vigil).await, Sign::Health(Health::Passing));
    assert_eq!(bench.answers.asked.lock().unwrap().last(), Some(&Probe::Unix("/nowhere".into())));
    bench.answer(&[Err("a"), Err("b"), Ok(()), Err("c"), Err("d"), Err("e")]);
    for expected in [1, 2, 0, 1, 2, 3] {
        let health = if expected == 0 { Health::Passing } else { Health::Failing(expected) };
        assert_eq!(next(&mut vigil).await, Sign::Health(health));
    }
    assert_eq!(next(&mut vigil).await, Sign::Unhealthy { message: "3 tries in a row to see whether it is well failed: e".into() });
    let asked = bench.asked();
    assert!(tokio::time::timeout(Duration::from_millis(100), vigil.next()).await.is_err());
    assert_eq!(bench.asked(), asked, "nobody asks any more");
}

#[tokio::test]
async fn readiness_by_time_and_from_outside() {
    let bench = Bench::new();
    let (_run, mut vigil) = bench.start("time.sleep(1000)", json!({"ready": {"delay": 0.05}})).await;
    assert_eq!(next(&mut vigil).await, Sign::Ready);
    vigil.ready();
    assert!(tokio::time::timeout(Duration::from_millis(50), vigil.next()).await.is_err(), "said once");

    bench.answer(&[Ok(())]);
    let (_run, mut vigil) = bench.start("time.sleep(1000)", json!({"health": {"file": "/x", "interval": 0.02}})).await;
    assert!(tokio::time::timeout(Duration::from_millis(100), vigil.next()).await.is_err());
    assert_eq!(bench.asked(), 0, "not before it is ready");
    vigil.ready();
    assert_eq!(next(&mut vigil).await, Sign::Health(Health::Passing));
    vigil.stop_asking();
    assert!(tokio::time::timeout(Duration::from_millis(100), vigil.next()).await.is_err());
    assert_eq!(bench.asked(), 1);
}

fn listing(health: RegistryHealth, ill: Option<&str>) -> Listing {
    Listing { id: Some("a".into()), health, since: SystemTime::UNIX_EPOCH, problem: None, ill: ill.map(str::to_owned) }
}

#[tokio::test]
async fn how_it_is_listed_is_told_and_ends_it_where_nothing_else_decides() {
    use RegistryHealth::{Critical, Missing, Passing, Unknown};
    let bench = Bench::new();
    let why = "A_CS has been critical in the registry of CGSE for 31 s";
    let ill = Some(why);
    *bench.answers.listings.lock().unwrap() =
        [(Missing, None), (Passing, None), (Unknown, None), (Critical, None), (Critical, ill), (Critical, ill)]
            .map(|(health, ill)| listing(health, ill))
            .to_vec();
    let listed = |health, problem: Option<&str>, is_news| Sign::Listed {
        listing: Listing { problem: problem.map(str::to_owned), ..listing(health, None) },
        is_news,
    };
    let told = [listed(Missing, None, false), listed(Passing, None, true), listed(Unknown, None, false), listed(Critical, None, true)];

    let keys = json!({"cgse_service_type": "A_CS", "ready": {"delay": 0}});
    let (_run, mut vigil) = bench.start("time.sleep(1000)", keys.clone()).await;
    assert_eq!(next(&mut vigil).await, Sign::Ready);
    for expected in
        told.iter().chain(&[listed(Critical, ill, true), Sign::Unhealthy { message: why.to_owned() }, listed(Critical, None, true)])
    {
        assert_eq!(next(&mut vigil).await, *expected);
    }
    assert!(vigil.next().now_or_never().is_none(), "it is told once that it is ill");

    // Another check decides; it is not ready yet; it is being ended.
    bench.answer(&[Ok(())]);
    let checked = json!({"cgse_service_type": "A_CS", "ready": {"delay": 0}, "health": {"tcp": "a:1", "interval": 1000}});
    let unready = json!({"cgse_service_type": "A_CS", "ready": {"delay": 1000}});
    for (keys, first) in [(checked, vec![Sign::Ready]), (unready, vec![])] {
        let (_run, mut vigil) = bench.start("time.sleep(1000)", keys).await;
        for expected in first.iter().chain(&told) {
            let mut sign = next(&mut vigil).await;
            if sign == Sign::Health(Health::Passing) {
                sign = next(&mut vigil).await;
            }
            assert_eq!(sign, *expected);
        }
        let more = tokio::time::timeout(Duration::from_millis(50), vigil.next()).await;
        assert!(!matches!(more, Ok(Sign::Unhealthy { .. } | Sign::Listed { .. })), "{more:?}");
    }
    let (_run, mut vigil) = bench.start("time.sleep(1000)", keys).await;
    vigil.stop_asking();
    assert!(vigil.next().now_or_never().is_none());
    assert_eq!(bench.answers.followed.lock().unwrap()[0], ("test".to_owned(), "A_CS".to_owned(), false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_asks_as_the_service_would_and_says_why_not() {
    let bench = Bench::new();
    let script = r#"
test -n "$MAINPID" && test -z "$NOTIFY_SOCKET" && test "$COLOUR" = red && test "$PWD" = "$0" || exit 7
test -e go && exit 0
seq 100000
echo 'not yet' >&2
exit 3
"#;
    let dir = bench.dir.path().canonicalize().unwrap();
    let keys = json!({
        "cwd": dir, "env": {"COLOUR": "red"}, "args": ["ignored"],
        "ready": {"exec": ["sh", "-c", script, dir], "interval": 0.05},
    });
    let (_run, mut vigil) = bench.start("time.sleep(1000)", keys).await;
    let refused = tokio::time::timeout(SOON, async {
        while vigil.refusal().is_none() {
            drop(tokio::time::timeout(Duration::from_millis(20), vigil.next()).await);
        }
    });
    refused.await.unwrap();
    assert_eq!(vigil.refusal(), Some("the program exited with 3: not yet"));
    std::fs::write(bench.path("go"), "").unwrap();
    assert_eq!(next(&mut vigil).await, Sign::Ready);
    bench.shared.programs_ended().await;
}

/// Starts what no program should leave behind, and then does this.
fn breeder(then: &str) -> String {
    format!(
        r#"{NOTIFY}
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        said("orphan", os.getpid())
        while True: os.write(1, b"x" * 65536)
    os._exit(0)
os.wait()
while not os.path.exists(os.environ["DIR"] + "orphan"): time.sleep(0.001)
said("main", os.getpid())
{then}
"#
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_is_ended_whole() {
    for (then, good) in [("time.sleep(1000)", false), ("while True: print('y' * 1000)", false), ("sys.exit(0)", true)] {
        let bench = Bench::new();
        let request = json!({"exec": [PYTHON, "-c", breeder(then)], "timeout": 1.5});
        let request = StopRequest::resolve(&serde_json::from_value(request).unwrap()).unwrap();
        let definition = serde_json::from_value(json!({"cmd": ["true"]})).unwrap();
        let spec = Arc::new(Spec::resolve("test".parse().unwrap(), definition).unwrap());
        let launch = Launch { env: BTreeMap::from([("DIR".to_owned(), bench.path(""))]), ..Launch::default() };
        let asked = ask_to_stop(spec, request, launch, Some(1), bench.shared.clone()).await;
        assert_eq!(asked.is_ok(), good, "{asked:?}");
        assert!(good || asked.unwrap_err().starts_with("the program took longer than 1.5 s"));
        tokio::time::timeout(SOON, bench.shared.programs_ended()).await.unwrap();
        over(&[pid_in(&bench.path("main")), pid_in(&bench.path("orphan"))]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_vigil_has_started_ends_with_it() {
    let bench = Bench::new();
    let keys = json!({"ready": {"exec": [PYTHON, "-c", breeder("time.sleep(1000)")], "try_timeout": 1000}});
    let (_run, mut vigil) = bench.start("time.sleep(1000)", keys).await;
    let main = bench.path("main");
    let started = async {
        while !Path::new(&main).exists() {
            drop(tokio::time::timeout(Duration::from_millis(10), vigil.next()).await);
        }
    };
    tokio::time::timeout(SOON, started).await.unwrap();
    let pids = [pid_in(&main), pid_in(&bench.path("orphan"))];
    assert!(pids.iter().all(|pid| !is_over(*pid)));
    drop(vigil);
    tokio::time::timeout(SOON, bench.shared.programs_ended()).await.unwrap();
    over(&pids).await;
}

#[tokio::test]
async fn a_program_that_cannot_be_run_says_so() {
    let bench = Bench::new();
    let request = StopRequest::resolve(&serde_json::from_value(json!({"exec": ["/no/such"]})).unwrap()).unwrap();
    let definition = serde_json::from_value(json!({"cmd": ["true"]})).unwrap();
    let spec = Arc::new(Spec::resolve("test".parse().unwrap(), definition).unwrap());
    let refused = ask_to_stop(spec, request, Launch::default(), None, bench.shared.clone()).await.unwrap_err();
    assert!(refused.contains("/no/such") && refused.contains("ENOENT"), "{refused}");
    bench.shared.programs_ended().await;
}
