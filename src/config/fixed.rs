//! What the daemon takes from its file once, when it starts: its directories and its doors.

use super::{Config, Control, Events, Metrics};

impl Config {
    /// The keys outside of the definitions that another reading of the file says otherwise, such as `control.endpoints`, in the order of the documented
    /// file. A new key does not compile until it is decided here.
    pub fn fixed_differences(&self, other: &Self) -> Vec<&'static str> {
        let Self { state_dir, runtime_dir, cgroup, control, events, metrics, cgse, processes: _, source: _ } = self;
        let Control { endpoints, max_request_bytes, socket_mode, socket_group } = control;
        let Events { endpoints: events_endpoints } = events;
        let Metrics { listen, refresh_interval, prefix } = metrics;
        let all = [
            ("daemon.state_dir", *state_dir != other.state_dir),
            ("daemon.runtime_dir", *runtime_dir != other.runtime_dir),
            ("daemon.cgroup", *cgroup != other.cgroup),
            ("control.endpoints", *endpoints != other.control.endpoints),
            ("control.max_request_bytes", *max_request_bytes != other.control.max_request_bytes),
            ("control.socket_mode", *socket_mode != other.control.socket_mode),
            ("control.socket_group", *socket_group != other.control.socket_group),
            ("events.endpoints", *events_endpoints != other.events.endpoints),
            ("metrics.listen", *listen != other.metrics.listen),
            ("metrics.refresh_interval", *refresh_interval != other.metrics.refresh_interval),
            ("metrics.prefix", *prefix != other.metrics.prefix),
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
                     socket_mode = 0o600\nsocket_group = 'g'\n[events]\nendpoints = []\n[metrics]\nlisten = ''\nrefresh_interval = 2.0\nprefix = 'x'\n";
        let cgse = "[control]\nendpoints = ['tcp://127.0.0.1:6150']\n";
        assert_eq!(read(cgse).fixed_differences(&read(&format!("{cgse}[cgse]\n"))), ["cgse"]);
        let all = plain.fixed_differences(&read(other));
        assert_eq!(all.len(), 11, "{all:?}");
        assert_eq!(plain.fixed_differences(&read("[metrics]\nprefix = 'x'\n")), ["metrics.prefix"]);
        // The directory of the sockets moves the doors with it.
        let moved = plain.fixed_differences(&read("[daemon]\nruntime_dir = '/r'\n"));
        assert_eq!(moved, ["daemon.runtime_dir", "control.endpoints", "events.endpoints"]);
    }
}
