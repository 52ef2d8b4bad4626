//! How a sub-process is asked whether it is ready, whether it is well, and to end.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Seconds;

/// Declares a table all of whose keys are optional, and the list of its keys, in one place.
macro_rules! table {
    ($(#[$meta:meta])* $name:ident { $($(#[$kmeta:meta])* $key:ident: $type:ty,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$kmeta])* #[serde(default, skip_serializing_if = "Option::is_none")] pub $key: Option<$type>,)+
        }

        impl $name {
            /// The name of every key.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($key),)+];
        }
    };
}

table! {
    /// The keys of `ready`: exactly one of `notify`, `zmq`, `tcp`, `unix`, `http`, `exec`, `file`, `cgse` and `delay`, and what goes with it.
    ReadyDefinition {
        /// It says so itself: `READY=1` to `$NOTIFY_SOCKET` (sd_notify(3)).
        notify: bool,
        /// It answers a ZeroMQ request at this endpoint.
        zmq: String,
        /// With `zmq`: "REQ" (the default) or "DEALER", which sends the frames as they are, without an empty delimiter.
        socket: String,
        /// With `zmq`: the frames of the request; one empty frame where not said.
        frames: Vec<String>,
        /// With `zmq`: a text that the reply must hold; any reply will do where not said.
        expect: String,
        /// It accepts connections at `HOST:PORT`.
        tcp: String,
        /// It accepts connections at this socket.
        unix: PathBuf,
        /// It answers `GET` of this `http://` address with a status from 200 to 399.
        http: String,
        /// This program, run as the sub-process itself would be, exits with 0.
        exec: Vec<String>,
        /// This file is there.
        file: PathBuf,
        /// A service of this type is listed as passing in the registry of CGSE.
        cgse: String,
        /// So many seconds have passed.
        delay: Seconds,
        /// Seconds from its start within which it must be ready; else the start has failed. 0 means for ever.
        timeout: Seconds,
        /// Seconds between two tries.
        interval: Seconds,
        /// Seconds that one try may take.
        try_timeout: Seconds,
    }
}

table! {
    /// The keys of `health`: exactly one of `notify`, `zmq`, `tcp`, `unix`, `http`, `exec`, `file` and `cgse`, and what goes with it.
    HealthDefinition {
        /// It keeps sending `WATCHDOG=1` (sd_notify(3)), at least once in each `interval`.
        notify: bool,
        /// As for `ready`.
        zmq: String,
        /// As for `ready`.
        socket: String,
        /// As for `ready`.
        frames: Vec<String>,
        /// As for `ready`.
        expect: String,
        /// As for `ready`.
        tcp: String,
        /// As for `ready`.
        unix: PathBuf,
        /// As for `ready`.
        http: String,
        /// As for `ready`.
        exec: Vec<String>,
        /// As for `ready`.
        file: PathBuf,
        /// As for `ready`.
        cgse: String,
        /// Seconds between two tries.
        interval: Seconds,
        /// Seconds that one try may take.
        timeout: Seconds,
        /// So many failures in a row end it.
        failures: u32,
    }
}

table! {
    /// The keys of `stop_request`: exactly one of `zmq`, `exec` and `cgse`, and what goes with it.
    StopRequestDefinition {
        /// Send the frames to this endpoint.
        zmq: String,
        /// As for `ready`.
        socket: String,
        /// The frames.
        frames: Vec<String>,
        /// Run this program, as the sub-process itself would be.
        exec: Vec<String>,
        /// Send `terminate` to the control server of this type, where the registry of CGSE says that it takes commands to itself.
        cgse: String,
        /// Seconds that the request may take, before the signal is sent after all.
        timeout: Seconds,
    }
}
