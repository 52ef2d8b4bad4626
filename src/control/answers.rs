//! Each command's answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt;
use serde::Serialize;

use crate::host::{self, Host};
use crate::procfs;
use crate::protocol::codec::encode_result;
use crate::protocol::definition::Seconds;
use crate::protocol::envelope::RequestId;
use crate::protocol::event::Event;
use crate::protocol::reply::{
    Each, Ended, Executed, Info, NamedProcess, Nothing, PastRun, Pong, Replay, RunningPids, Signalled, StatusOfAll, Unregistered, View,
    ViewWithStatus,
};
use crate::protocol::request::{
    Command, DEFAULT_HISTORY_LIMIT, DEFAULT_REAP_TIMEOUT, Events, Execute, History, IsProcessRunning, Items, List, Match, Quit, Reap,
    Register, Restart, SendSignal, Status, Target,
};
use crate::protocol::{EndedBy, ErrorCode, Name, Origin, Signal, VERSION, WireError};
use crate::subprocess::published::unix_seconds;
use crate::subprocess::spec::{check_env, instances};
use crate::subprocess::{CommandError, Launch, Published, SubProcessHandle};

use super::refusals;
use super::service::{Answer, Service};
use super::upkeep::CgseProblems;

/// How long a question about the whole host may take. Reading the command line of a process can block for as long as that process is stuck.
const HOST_DEADLINE: Duration = Duration::from_secs(10);
/// Who asks again within this finds the descriptors still open.
const HOST_IDLE: Duration = Duration::from_secs(10);

impl Service {
    /// Carries out a command that the caller may give.
    pub(super) async fn carry_out(&self, command: Command, id: Option<&RequestId>) -> Answer {
        match command {
            Command::Ping(_) => encode(&Pong { pong: true, time: unix_seconds(SystemTime::now()) }, id),
            Command::Info(_) => encode(&self.info(), id),
            Command::Register(request) => self.register(*request, id).await,
            Command::Unregister(request) => {
                let handle = self.find(&request.name)?;
                self.refuse_when_leaving()?;
                let definition = handle.published().spec.definition.clone();
                self.supervisor.unregister(&handle).await.map_err(|error| refusals::unregister(&request.name, error))?;
                self.neighbours.definitions.undefine(&request.name).await;
                // With the last of its instances a definition is gone.
                if definition != request.name && !self.supervisor.all().iter().any(|other| other.published().spec.definition == definition)
                {
                    self.neighbours.definitions.undefine(&definition).await;
                }
                encode(&Unregistered { name: request.name }, id)
            }
            Command::Execute(request) => encode(&self.execute(request).await?, id),
            Command::Quit(request) => self.quit(&request, id).await,
            Command::Reap(request) => encode(&self.reap(request).await?, id),
            Command::Restart(request) => self.restart(request, id).await,
            Command::Signal(request) => encode(&self.signal(request).await?, id),
            Command::List(request) => self.list(request, id).await,
            Command::Status(request) => self.status(request, id).await,
            Command::Zombies(_) => encode(&self.ask_host(|_| host::zombies()).await?, id),
            Command::Processes(request) => encode(&self.ask_host(move |host| host.processes(&matcher(&request))).await?, id),
            Command::ProcessInfo(request) => encode(&self.ask_host(move |host| host.process_info(&matcher(&request))).await?, id),
            Command::IsProcessRunning(request) => encode(&self.is_process_running(request).await?, id),
            Command::IsRunning(request) => encode(&self.published(&request.name)?.is_running(), id),
            Command::Exists(request) => encode(&self.published(&request.name)?.pid().is_some(), id),
            Command::Returncode(request) => encode(&self.published(&request.name)?.returncode(), id),
            Command::Children(request) => encode(&self.children(&request.name).await?, id),
            Command::Events(request) => encode(&self.events(&request), id),
            Command::History(request) => encode(&self.history(&request).await?, id),
            Command::Logs(request) => encode(&self.logs(request).await?, id),
            Command::Audit(request) => encode(&self.audit(request).await?, id),
            Command::Reload(request) => encode(&self.neighbours.upkeep.reload(request.dry_run).await?, id),
            Command::Upgrade(_) => {
                self.neighbours.upkeep.upgrade().await?;
                encode(&Nothing {}, id)
            }
            Command::Shutdown(request) => {
                self.neighbours.upkeep.shutdown(request.children)?;
                encode(&Nothing {}, id)
            }
        }
    }

    fn info(&self) -> Info {
        let identity = &self.identity;
        Info {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: VERSION,
            pid: std::process::id(),
            uuid: identity.uuid.clone(),
            uptime: identity.started.elapsed().as_secs_f64(),
            started_at: identity.started_at,
            hostname: identity.hostname.clone(),
            endpoints: identity.endpoints.clone(),
            metrics_endpoint: identity.metrics_endpoint.clone(),
            capabilities: identity.capabilities,
            counts: self.supervisor.counts(),
            events_endpoints: Some(identity.events_endpoints.clone()),
            cgse_endpoints: Some(identity.cgse_endpoints.clone()).filter(|endpoints| !endpoints.is_empty()),
        }
    }

    fn find(&self, name: &Name) -> Result<SubProcessHandle, WireError> {
        self.supervisor
            .get(name.as_str())
            .ok_or_else(|| refusals::not_found(name, self.supervisor.all().into_iter().map(|handle| handle.name().clone())))
    }

    pub(super) fn published(&self, name: &Name) -> Result<Arc<Published>, WireError> {
        self.find(name).map(|handle| handle.published())
    }

    fn find_all(&self, target: &Target<'_>) -> Result<Vec<SubProcessHandle>, WireError> {
        match target {
            Target::Name(name) => self.find(name).map(|handle| vec![handle]),
            Target::All => Ok(self.supervisor.all()),
            Target::Group(group) => {
                let members = self.supervisor.group(group);
                if members.is_empty() { Err(refusals::no_group(group)) } else { Ok(members) }
            }
        }
    }

    fn refuse_when_leaving(&self) -> Result<(), WireError> {
        if self.supervisor.is_leaving() { Err(refusals::shutting_down()) } else { Ok(()) }
    }

    /// The view of what was registered, or with `instances` a list of them.
    async fn register(&self, request: Register, id: Option<&RequestId>) -> Answer {
        let Register { name, replace, definition } = request;
        let several = definition.instances.is_some();
        let specs = instances::resolve(&name, definition.clone()).map_err(|problems| refusals::wrong_definition(&problems))?;
        let handles = self.supervisor.register(specs, replace).await.map_err(refusals::register)?;
        self.neighbours.definitions.define(&name, &definition).await;
        let now = Instant::now();
        let views: Vec<View> = handles.iter().map(|handle| handle.published().view(now)).collect();
        match &views[..] {
            [view] if !several => encode(view, id),
            views => encode(&views, id),
        }
    }

    async fn execute(&self, request: Execute) -> Result<Executed, WireError> {
        let Execute { name, args, env, wait, timeout } = request;
        let handle = self.find(&name)?;
        self.refuse_when_leaving()?;
        let launch = launch("execute", args, env)?;
        let work = async {
            let executed = self.supervisor.execute(&handle, launch, Origin::Execute).await?;
            if wait { self.supervisor.ready(&handle, executed).await } else { Ok(executed) }
        };
        let done = match timeout.map(Seconds::duration) {
            Some(timeout) => tokio::time::timeout(timeout, work).await.map_err(|_| refusals::not_yet(&handle, wait, timeout))?,
            None => work.await,
        };
        done.map_err(|error| refusals::start(&name, error))
    }

    async fn quit(&self, request: &Quit, id: Option<&RequestId>) -> Answer {
        let target = request.target().map_err(|error| WireError::bad_request(format!("quit: {error}")))?;
        let handles = self.find_all(&target)?;
        let ends = self.supervisor.quit(handles, request.timeout.map(Seconds::duration), EndedBy::Quit).await;
        each(&target, ends, id)
    }

    async fn restart(&self, request: Restart, id: Option<&RequestId>) -> Answer {
        let target = request.target().map_err(|error| WireError::bad_request(format!("restart: {error}")))?;
        self.refuse_when_leaving()?;
        let timeout = request.timeout.map(Seconds::duration);
        let launch = launch("restart", request.args.clone(), request.env.clone())?;
        if let Target::Name(name) = target {
            let handle = self.find(name)?;
            let executed = self.supervisor.restart(&handle, launch, timeout).await.map_err(|error| refusals::command(name, error))?;
            return encode(&executed, id);
        }
        if !request.args.is_empty() || !request.env.is_empty() {
            return Err(WireError::bad_request("restart: `args` and `env` go with `name` only"));
        }
        let handles = self.find_all(&target)?;
        each(&target, self.supervisor.restart_all(handles, timeout).await, id)
    }

    async fn reap(&self, request: Reap) -> Result<Ended, WireError> {
        let handle = self.find(&request.name)?;
        let timeout = request.timeout.map_or(Duration::from_secs_f64(DEFAULT_REAP_TIMEOUT), Seconds::duration);
        if request.children_only {
            return handle.reap_children(timeout).await.map_err(|error| refusals::command(&request.name, error));
        }
        let reap =
            move |handle: SubProcessHandle| async move { handle.quit(Some(Signal::TERM), Some(timeout), EndedBy::Reap).await }.boxed();
        let mut ends = self.supervisor.end(vec![handle], reap).await;
        let ended = ends.remove(&request.name).unwrap_or(Err(CommandError::Gone));
        ended.map_err(|error| refusals::command(&request.name, error))
    }

    async fn signal(&self, request: SendSignal) -> Result<Signalled, WireError> {
        let SendSignal { name, signal, tree } = request;
        let handle = self.find(&name)?;
        let signalled = handle.signal(signal, tree).await.map_err(|error| refusals::command(&name, error))?;
        Ok(Signalled { name, signalled })
    }

    async fn list(&self, request: List, id: Option<&RequestId>) -> Answer {
        let List { group, state, items, contains, case_sensitive } = request;
        let Some(items) = items else {
            if contains.is_some() || case_sensitive.is_some() {
                return Err(WireError::bad_request("list: `contains` and `case_sensitive` go with `items` only"));
            }
            let now = Instant::now();
            let views: Vec<_> = self
                .supervisor
                .all()
                .iter()
                .map(SubProcessHandle::published)
                .filter(|published| group.as_ref().is_none_or(|group| published.spec.group.as_ref() == Some(group)))
                .filter(|published| state.is_none_or(|state| published.state == state))
                .map(|published| published.view(now))
                .collect();
            return encode(&views, id);
        };
        if group.is_some() || state.is_some() {
            return Err(WireError::bad_request("list: `group` and `state` do not go with `items`, which asks for processes of the host"));
        }
        let request = Match { items, contains: contains.unwrap_or(true), case_sensitive: case_sensitive.unwrap_or(false) };
        encode(&self.ask_host(move |host| host.processes(&matcher(&request))).await?, id)
    }

    async fn status(&self, request: Status, id: Option<&RequestId>) -> Answer {
        if let Some(name) = request.name {
            let published = self.published(&name)?;
            return encode(&status_of(&published).await, id);
        }
        let all = self.supervisor.all();
        let published: Vec<_> = all.iter().map(SubProcessHandle::published).collect();
        // All together on one thread: a thousand samples are a matter of milliseconds, a thousand threads are not.
        let watched: Vec<_> = published.iter().filter_map(|published| published.watched().cloned()).collect();
        let (daemon, statuses) = tokio::join!(self.monitor.daemon_status(), self.monitor.fresh_all(&watched));
        let mut statuses = statuses.into_iter();
        let now = Instant::now();
        let processes = published
            .iter()
            .map(|published| {
                let status = published.watched().and_then(|_| statuses.next().flatten());
                ViewWithStatus { view: published.view(now), status: status.map(|status| (*status).clone()) }
            })
            .collect();
        let store_problem = self.neighbours.definitions.trouble();
        let CgseProblems { registry, notify_hub, metrics_hub } = self.neighbours.upkeep.cgse_problems();
        let all = StatusOfAll {
            daemon,
            processes,
            store_problem,
            registry_problem: registry,
            notify_hub_problem: notify_hub,
            metrics_hub_problem: metrics_hub,
        };
        encode(&all, id)
    }

    async fn is_process_running(&self, request: IsProcessRunning) -> Result<RunningPids, WireError> {
        let IsProcessRunning { items, contains, case_sensitive, as_list } = request;
        let request = Match { items, contains, case_sensitive };
        let pids = self.ask_host(move |host| host.running_pids(&matcher(&request))).await?;
        Ok(if as_list { RunningPids::All(pids) } else { RunningPids::First(pids.first().copied().unwrap_or(0)) })
    }

    async fn children(&self, name: &Name) -> Result<Vec<NamedProcess>, WireError> {
        let published = self.published(name)?;
        let Some(run) = published.run.clone() else { return Ok(Vec::new()) };
        let look = self.supervisor.look().await.map_err(|error| host_unreadable(&error))?;
        self.ask_host(move |_| {
            let members = look.members(&run.uuid).into_iter().filter(|stat| Some(stat.pid) != run.pid);
            Ok(members
                .map(|stat| NamedProcess { pid: stat.pid, name: stat.name(), cmdline: procfs::read_cmdline(stat.pid).unwrap_or_default() })
                .collect())
        })
        .await
    }

    fn events(&self, request: &Events) -> Replay<Arc<Event>> {
        let limit = request.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        self.neighbours.records.events(request.since.unwrap_or(1), request.daemon.as_deref(), limit)
    }

    /// One that was unregistered has its history for as long as that is kept; a name that means nothing is told as such.
    async fn history(&self, request: &History) -> Result<Vec<Arc<PastRun>>, WireError> {
        let limit = usize::try_from(request.limit.unwrap_or(DEFAULT_HISTORY_LIMIT)).unwrap_or(usize::MAX);
        let mut runs = self.neighbours.records.history(request.name.as_ref(), limit.max(1)).await;
        if let Some(name) = &request.name
            && runs.is_empty()
        {
            self.find(name)?;
        }
        runs.truncate(limit);
        Ok(runs)
    }

    /// Asks something that reads all of `/proc`, off the runtime and not too much at a time.
    async fn ask_host<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Host) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, WireError> {
        let asked = async {
            let permit = self.host_questions.clone().acquire_owned().await;
            let host = self.host.clone();
            // The permit goes along: a question that hangs keeps its place until it is over, also when nobody waits for it any more.
            tokio::task::spawn_blocking(move || {
                let _permit = permit;
                let answer = question(&host);
                if host.answered(Instant::now()) {
                    tokio::spawn(release_when_idle(host));
                }
                answer
            })
            .await
        };
        match tokio::time::timeout(HOST_DEADLINE, asked).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(error))) => Err(host_unreadable(&error)),
            Ok(Err(_)) => Err(refusals::internal("reading the processes of the host failed half-way")),
            Err(_) => {
                Err(WireError::new(ErrorCode::Timeout, format!("the processes of the host could not be read within {HOST_DEADLINE:?}")))
            }
        }
    }
}

/// Closes the descriptors that answers about the host's processes left open, once nobody has asked for a while.
async fn release_when_idle(host: Arc<Host>) {
    let mut wait = HOST_IDLE;
    loop {
        tokio::time::sleep(wait).await;
        let closing = host.clone();
        match tokio::task::spawn_blocking(move || closing.release(HOST_IDLE, Instant::now())).await {
            Ok(Some(left)) => wait = left,
            Ok(None) | Err(_) => return,
        }
    }
}

fn host_unreadable(error: &std::io::Error) -> WireError {
    refusals::internal(&format!("cannot read the processes of the host: {error}"))
}

fn encode<T: Serialize>(result: &T, id: Option<&RequestId>) -> Answer {
    encode_result(result, id).map_err(|error| refusals::internal(&format!("cannot encode the result: {error}")))
}

/// The result itself for a name, a list in the order of the names for a group or all.
fn each<T: Serialize>(target: &Target<'_>, results: BTreeMap<Name, Result<T, CommandError>>, id: Option<&RequestId>) -> Answer {
    let mut results = results.into_iter();
    if let Target::Name(name) = target {
        let (_, result) = results.next().ok_or_else(|| refusals::internal("a name was found and lost"))?;
        return encode(&result.map_err(|error| refusals::command(name, error))?, id);
    }
    let entries: Vec<_> = results
        .map(|(name, result)| match result {
            Ok(result) => Each::Done(result),
            Err(error) => Each::Refused { error: refusals::command(&name, error), name },
        })
        .collect();
    encode(&entries, id)
}

fn launch(command: &str, args: Vec<String>, env: BTreeMap<String, String>) -> Result<Launch, WireError> {
    check_env(&env).map_err(|message| WireError::bad_request(format!("{command}: `env`: {message}")))?;
    if args.iter().any(|word| word.contains('\0')) {
        return Err(WireError::bad_request(format!("{command}: `args`: a word holds a NUL byte, which no argument can")));
    }
    Ok(Launch { args, env, ..Launch::default() })
}

fn matcher(request: &Match) -> host::Matcher {
    let items: &Items = &request.items;
    host::Matcher::new(items.texts(), request.contains, request.case_sensitive)
}

/// A view with a status that is up to date. On the hot path, when the last one is young enough, this waits for nobody.
async fn status_of(published: &Published) -> ViewWithStatus {
    let status = match published.watched() {
        None => None,
        Some(watched) => match watched.cached() {
            Some(status) => Some(status),
            None => watched.fresh().await,
        },
    };
    ViewWithStatus { view: published.view(Instant::now()), status: status.map(|status| (*status).clone()) }
}
