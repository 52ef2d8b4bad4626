//! `status` of one of 100 sub-processes, against a plain libzmq REP socket that answers as many bytes: what any server over libzmq takes at least.
//!
//! Twice: with the client, the daemon and the echo server all on one processor, which compares what each of them does and comes out the same
//! whenever it is run; and wherever the kernel puts them, which is what users see, and where waking a thread on another processor, or not having
//! to, may outweigh everything else.

use std::process::{Child, Command as Process, Stdio};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use procman::protocol::codec::encode_request;
use procman::protocol::request::{Command, NoArgs, Status};

use crate::Outcome;
use crate::daemon::{Daemon, names};
use crate::sample::Samples;
use crate::table::Row;

/// The argument that makes this program the echo server.
pub(crate) const ECHO: &str = "echo";

const SUBPROCESSES: usize = 100;
/// In each set the echo server and all connections are new: on which processors two that talk find themselves at first changes times severalfold,
/// and stays so for long.
const SETS: usize = 12;
/// Each round asks everybody in turn, so that a busy minute of the machine is busy for all of them.
const ROUNDS: usize = 5;
const REQUESTS: usize = 100;

/// One that is asked.
struct Server {
    socket: zmq::Socket,
    requests: Vec<Vec<u8>>,
}

impl Server {
    fn connect(context: &zmq::Context, endpoint: &str, requests: Vec<Vec<u8>>) -> Outcome<Self> {
        let socket = context.socket(zmq::REQ)?;
        socket.set_linger(0)?;
        socket.set_rcvtimeo(10_000)?;
        socket.connect(endpoint)?;
        Ok(Self { socket, requests })
    }

    fn ask(&self, number: usize) -> Outcome<zmq::Message> {
        self.socket.send(self.requests[number % self.requests.len()].as_slice(), 0)?;
        Ok(self.socket.recv_msg(0)?)
    }

    fn round(&self, round: usize, samples: &mut Samples) -> Outcome<()> {
        (0..REQUESTS).try_for_each(|number| samples.time(|| self.ask(round * REQUESTS + number)).map(drop))
    }
}

/// A REP server in a process of its own, as the daemon is one; killed when dropped.
struct EchoServer(Child);

impl Drop for EchoServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The life of the echo server: binds to the first argument and answers every request with as many bytes as the second says.
pub(crate) fn echo(arguments: &[String]) -> Outcome<()> {
    let [endpoint, bytes] = arguments else { return Err("say an endpoint and a number of bytes".into()) };
    let reply = vec![0_u8; bytes.parse()?];
    let context = zmq::Context::new();
    let socket = context.socket(zmq::REP)?;
    socket.bind(endpoint)?;
    // Where it is, for who started it.
    println!("{}", socket.get_last_endpoint()?.map_err(|_| "the endpoint is no text")?);
    let mut request = zmq::Message::new();
    loop {
        socket.recv(&mut request, 0)?;
        socket.send(reply.as_slice(), 0)?;
    }
}

fn start_echo(endpoint: &str, bytes: usize) -> Outcome<(EchoServer, String)> {
    let mut child = Process::new(std::env::current_exe()?)
        .args([ECHO, endpoint, &bytes.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map(EchoServer)?;
    let stdout = child.0.stdout.take().ok_or("the echo server has no output")?;
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
    Ok((child, line.trim().to_owned()))
}

/// This process, and all that it starts from here on, on one processor; everywhere again when dropped.
struct Pinned(CpuSet);

impl Pinned {
    fn to_one() -> Outcome<Self> {
        let this = Pid::from_raw(0);
        let before = sched_getaffinity(this)?;
        let last = (0..CpuSet::count()).rev().find(|&cpu| before.is_set(cpu).unwrap_or(false)).ok_or("no processor is allowed")?;
        let mut one = CpuSet::new();
        one.set(last)?;
        sched_setaffinity(this, &one)?;
        Ok(Self(before))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Err(error) = sched_setaffinity(Pid::from_raw(0), &self.0) {
            eprintln!("floors: still on one processor: {error}");
        }
    }
}

pub(crate) fn measure() -> Outcome<Vec<Row>> {
    let pinned = Pinned::to_one()?;
    let mut rows = measure_here("one processor", &[(0.5, "p50")])?;
    drop(pinned);
    rows.extend(measure_here("free", &[(0.5, "p50"), (0.99, "p99")])?);
    Ok(rows)
}

fn measure_here(place: &str, shares: &[(f64, &str)]) -> Outcome<Vec<Row>> {
    let mut daemon = Daemon::start()?;
    let names = names(0..SUBPROCESSES)?;
    daemon.register(&names)?;
    daemon.execute(&names)?;
    let requests: Vec<Vec<u8>> =
        names.iter().map(|name| encode_request(&Command::Status(Status { name: Some(name.clone()) }), None)).collect::<Result<_, _>>()?;
    let ping = encode_request(&Command::Ping(NoArgs {}), None)?;
    let one = vec![requests[0].clone()];

    let directory = tempfile::tempdir()?;
    let mut rows = Vec::new();
    for (scheme, echo_at) in [("ipc", format!("ipc://{}/echo", directory.path().display())), ("tcp", "tcp://127.0.0.1:*".to_owned())] {
        let endpoint = daemon.endpoint(scheme)?;
        let bytes = Server::connect(&zmq::Context::new(), &endpoint, one.clone())?.ask(0)?.len();
        let mut samples: [Samples; 4] = Default::default();
        for _ in 0..SETS {
            let (_echo, echo_endpoint) = start_echo(&echo_at, bytes)?;
            let context = zmq::Context::new();
            let servers = [
                Server::connect(&context, &echo_endpoint, one.clone())?,
                Server::connect(&context, &endpoint, one.clone())?,
                Server::connect(&context, &endpoint, requests.clone())?,
                Server::connect(&context, &endpoint, vec![ping.clone()])?,
            ];
            // The first round connects and warms up.
            for server in &servers {
                server.round(0, &mut Samples::default())?;
            }
            for round in 1..=ROUNDS {
                for (server, samples) in servers.iter().zip(&mut samples) {
                    server.round(round, samples)?;
                }
            }
        }
        let [echo, same, rotating, ping] = samples;
        for &(share, word) in shares {
            let row = |what: &str, samples: &Samples| {
                let measure = format!("{what}, {scheme}, {place}, {word}");
                Row::new(measure, samples.quantile(share)).against(echo.quantile(share), "libzmq REP echo")
            };
            let status = row("status of one", &same);
            rows.push(if share == 0.5 { status.ratio_at_most(1.25) } else { status });
            rows.push(row("status of 100 in turn", &rotating));
            if share == 0.5 {
                rows.push(row("ping", &ping));
            }
        }
    }
    daemon.leave()?;
    Ok(rows)
}
