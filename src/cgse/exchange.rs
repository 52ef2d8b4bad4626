//! One question to the registry, one answer. It answers some questions never (what it does not understand), so each has its time; a socket that waited
//! in vain is of no more use, as the answer may come to the next question.

use std::time::Duration;

use crate::sys::readiness;

use super::words::{self, Action, Answer, REQUEST, RESPONSE};

/// The largest frame of an answer in bytes; libzmq cuts a connection that brings a larger one.
const MAX_FRAME: i64 = 4 << 20;

/// Which of its two doors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// For requests, with a word in front of the body.
    Requests,
    /// For heartbeats, which are the body alone.
    Heartbeats,
}

/// Asks at one endpoint.
pub struct Exchange {
    context: zmq::Context,
    endpoint: String,
    door: Door,
    socket: Option<zmq::Socket>,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("endpoint", &self.endpoint).field("door", &self.door).finish_non_exhaustive()
    }
}

impl Exchange {
    /// Nothing is connected before the first question.
    pub fn new(context: zmq::Context, endpoint: &str, door: Door) -> Self {
        Self { context, endpoint: endpoint.to_owned(), door, socket: None }
    }

    /// Asks, and waits so long for the answer.
    ///
    /// # Errors
    /// Why there is none, or none that is the registry's, in words for people.
    pub async fn ask(&mut self, action: &Action<'_>, within: Duration) -> Result<Answer, String> {
        let socket = match self.socket.take() {
            // What has come without a question would be taken for the answer to this one.
            Some(socket) if matches!(socket.recv_multipart(zmq::DONTWAIT), Err(zmq::Error::EAGAIN)) => socket,
            _ => self.open().map_err(|error| self.failed(error))?,
        };
        let body = words::encode(action);
        let sent = match self.door {
            Door::Requests => socket.send_multipart([REQUEST, &body], zmq::DONTWAIT),
            Door::Heartbeats => socket.send(&body, zmq::DONTWAIT),
        };
        sent.map_err(|error| self.failed(error))?;
        let (socket, frames) = match tokio::time::timeout(within, receive(socket)).await {
            Ok(received) => received.map_err(|error| format!("{}: {error}", self.endpoint))?,
            Err(_) => return Err(format!("{} does not answer within {} s", self.endpoint, within.as_secs_f64())),
        };
        let answer = match (self.door, &frames[..]) {
            (Door::Requests, [word, body]) if word == RESPONSE => words::decode(body),
            (Door::Heartbeats, [body]) => words::decode(body),
            (Door::Requests | Door::Heartbeats, _) => Err("what it answers is not the registry's".to_owned()),
        };
        let answer = answer.map_err(|error| format!("{}: {error}", self.endpoint))?;
        self.socket = Some(socket);
        Ok(answer)
    }

    fn open(&self) -> zmq::Result<zmq::Socket> {
        let socket = self.context.socket(zmq::DEALER)?;
        socket.set_linger(0)?;
        socket.set_maxmsgsize(MAX_FRAME)?;
        // A server that routes by what the client is called needs a name that nobody else has.
        socket.set_identity(format!("procman-{}", uuid::Uuid::new_v4()).as_bytes())?;
        socket.connect(&self.endpoint)?;
        Ok(socket)
    }

    fn failed(&self, error: zmq::Error) -> String {
        format!("cannot ask {}: {error}", self.endpoint)
    }
}

/// The next message, and the socket again.
async fn receive(socket: zmq::Socket) -> Result<(zmq::Socket, Vec<Vec<u8>>), String> {
    let signal = socket.get_fd().map_err(|error| error.to_string())?;
    let signal = readiness::watch_duplicate(signal).map_err(|error| error.to_string())?;
    loop {
        // The descriptor tells changes only: the socket is emptied before it is waited for.
        match socket.recv_multipart(zmq::DONTWAIT) {
            Ok(frames) => return Ok((socket, frames)),
            Err(zmq::Error::EAGAIN | zmq::Error::EINTR) => {}
            Err(error) => return Err(error.to_string()),
        }
        signal.readable().await.map_err(|error| error.to_string())?.clear_ready();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    /// Somebody who answers each question so many times, with its number.
    fn answerer(times: usize) -> (Exchange, std::thread::JoinHandle<()>) {
        let context = zmq::Context::new();
        let socket = context.socket(zmq::ROUTER).unwrap();
        socket.bind("tcp://127.0.0.1:*").unwrap();
        let endpoint = socket.get_last_endpoint().unwrap().unwrap();
        let exchange = Exchange::new(context, &endpoint, Door::Requests);
        let thread = std::thread::spawn(move || {
            for number in 0..3 {
                let asked = socket.recv_multipart(0).unwrap();
                let body = format!("{{\"success\": true, \"service_id\": \"{number}\"}}");
                for _ in 0..times {
                    socket.send_multipart([&asked[0][..], RESPONSE, body.as_bytes()], 0).unwrap();
                }
            }
        });
        (exchange, thread)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_answer_that_nobody_asked_for_is_not_the_next_ones() {
        for times in [1, 2, 5] {
            let (mut exchange, thread) = answerer(times);
            for number in 0..3 {
                let answer = exchange.ask(&Action::Renew { service_id: "x" }, SOON).await.unwrap();
                assert_eq!(answer.service_id, Some(number.to_string()), "of {times}");
                // The others may be on their way still.
                let more = || exchange.socket.as_ref().is_some_and(|socket| socket.poll(zmq::POLLIN, 10_000).unwrap() > 0);
                assert!(times == 1 || more());
            }
            thread.join().unwrap();
        }
    }
}
