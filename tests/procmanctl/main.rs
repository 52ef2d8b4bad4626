//! The client against a fake daemon that answers as it is told: the library's [`procman::client::Client`] and the real `procmanctl`.

// `cfg(test)` is always so here; it tells clippy that the helpers are tests, too.
#[cfg(test)]
mod cli;
#[cfg(test)]
mod client;
#[cfg(test)]
mod fake;
