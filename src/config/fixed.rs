//! What the daemon takes from its file once, when it starts: its directories and its doors.

use super::{Config, Control, Events, Metrics};

impl Config {
    /// The keys outside of the definitions that another reading of the file says otherwise, such as `control.endpoints`, in the order of the documented
    /// file. A new key does not compile until it is decided here.
    pub fn fixed_differences(&self, other: &Self) -> Vec<&'static str> {
        let Self { state_dir, runtime_dir, cgroup, control, events, metrics, limits, cgse, processes: _, source: _ } = self;
        // The keys, and who is known, hold as soon as they are read; whether there are any is decided once.
        let Control { endpoints, guarded, max_request_bytes, socket_mode, socket_group, secret_key_file, access: _, allow_programs } =
            control;
        let Events { endpoints: events_endpoints, socket_mode: events_mode, socket_group: events_group } = events;
        let Metrics { listen, refresh_interval, prefix } = metrics;
        let all = [
            ("daemon.state_dir", *state_dir != other.state_dir),
            ("daemon.runtime_dir", *runtime_dir != other.runtime_dir),
            ("daemon.cgroup", *cgroup != other.cgroup),
            ("control.endpoints", *endpoints != other.control.endpoints),
            ("control.max_request_bytes", *max_request_bytes != other.control.max_request_bytes),
            ("control.socket_mode", *socket_mode != other.control.socket_mode),
            ("control.socket_group", *socket_group != other.control.socket_group),
            ("control.allow_programs", *allow_programs != other.control.allow_programs),
            ("control.endpoint", *guarded != other.control.guarded),
            ("control.curve", secret_key_file.is_some() != other.control.secret_key_file.is_some()),
            ("events.endpoints", *events_endpoints != other.events.endpoints),
            ("events.socket_mode", *events_mode != other.events.socket_mode),
            ("events.socket_group", *events_group != other.events.socket_group),
            ("metrics.listen", *listen != other.metrics.listen),
            ("metrics.refresh_interval", *refresh_interval != other.metrics.refresh_interval),
            ("metrics.prefix", *prefix != other.metrics.prefix),
            ("limits", *limits != other.limits),
            ("cgse", *cgse != other.cgse),
        ];
        all.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Places;

    #[test]
    fn each_key_that_differs_is_named() {
        let read = |text: &str| Config::from_text(text, Path::new("/etc/p.toml"), &Places::system()).unwrap().config;
        let plain = read("");
        assert_eq!(plain.fixed_differences(&read("[[process]]\nname = 'a'\ncmd = ['b']\n")), [""; 0]);
        let other = "[daemon]\nstate_dir = '/s'\nruntime_dir = '/r'\ncgroup = 'off'\n[control]\nendpoints = ['ipc:///x']\nmax_request_bytes = 2048\n\
                     socket_mode = 0o600\nsocket_group = 'g'\nallow_programs = ['/x']\n[events]\nendpoints = []\n[metrics]\nlisten = ''\nrefresh_interval = 2.0\nprefix = 'x'\n[limits]\nprocesses = 5\n";
        let cgse = "[control]\nendpoints = ['tcp://127.0.0.1:6150']\n";
        assert_eq!(read(cgse).fixed_differences(&read(&format!("{cgse}[cgse]\n"))), ["cgse"]);
        let all = plain.fixed_differences(&read(other));
        assert_eq!(all.len(), 15, "{all:?}");
        let curve = "[control.curve]\nsecret_key_file = 's'\n[[control.endpoint]]\nendpoint = 'ipc:///r'\nrole = 'read'\n";
        assert_eq!(plain.fixed_differences(&read(curve)), ["control.endpoint", "control.curve"]);
        assert_eq!(read(curve).fixed_differences(&read(&curve.replace("'s'", "'t'"))), [""; 0], "keys are read again");
        assert_eq!(plain.fixed_differences(&read("[metrics]\nprefix = 'x'\n")), ["metrics.prefix"]);
        // The directory of the sockets moves the doors with it.
        let moved = plain.fixed_differences(&read("[daemon]\nruntime_dir = '/r'\n"));
        assert_eq!(moved, ["daemon.runtime_dir", "control.endpoints", "events.endpoints"]);
    }
}
