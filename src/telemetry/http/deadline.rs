//! A stream whose responses must be read in time. hyper has a deadline for the head of a request and none for a client that asks and then does not
//! read, or reads a byte a second.

use std::future::Future;
use std::io::{Error, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::time::{Instant, Sleep, sleep_until};

/// The clock of a write begins when the client does not take all of it at once, and ends when it has taken all.
pub(super) struct WriteDeadline<T> {
    io: T,
    allowed: Duration,
    running: Option<Pin<Box<Sleep>>>,
}

impl<T> WriteDeadline<T> {
    pub(super) fn new(io: T, allowed: Duration) -> Self {
        Self { io, allowed, running: None }
    }

    /// Passes on the outcome of a write, unless the client's time is over.
    fn judge<R>(&mut self, context: &mut Context<'_>, outcome: Poll<Result<R, Error>>) -> Poll<Result<R, Error>> {
        if outcome.is_pending() {
            let deadline = Instant::now() + self.allowed;
            let running = self.running.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if running.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the client did not read the response in time")));
            }
        } else if let Some(running) = &self.running {
            // It took some, but a byte now and then is no reading.
            if running.is_elapsed() || running.deadline() <= Instant::now() {
                return Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the client read the response too slowly")));
            }
        }
        outcome
    }
}

impl<T: Read + Unpin> Read for WriteDeadline<T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<T: Write + Unpin> Write for WriteDeadline<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Error>> {
        let outcome = Pin::new(&mut self.io).poll_write(context, bytes);
        self.judge(context, outcome)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<Result<usize, Error>> {
        let outcome = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        self.judge(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// hyper flushes when it has written all that it had.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let outcome = Pin::new(&mut self.io).poll_flush(context);
        if outcome.is_ready() {
            self.running = None;
        }
        outcome
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
