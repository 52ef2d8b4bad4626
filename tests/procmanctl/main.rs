//! The client against a fake daemon that answers as it is told: the library's [`procman::client::Client`] and the real `procmanctl`.

mod cli;
mod client;
mod fake;
