//! Which run a process belongs to by its control group, which it cannot leave by forking.

use std::fs;

/// The run whose group, or a group below that, this process is in; `None` where it is in none, or gone.
pub(super) fn run_of(pid: u32, is_run: &dyn Fn(&str) -> bool) -> Option<String> {
    named(&fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?, is_run).map(str::to_owned)
}

/// `text` is as in cgroups(7): version 2 has the line `0::/path`. The group of a run is named after its sub-process, a dot and its UUID.
fn named<'t>(text: &'t str, is_run: &dyn Fn(&str) -> bool) -> Option<&'t str> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    path.split('/').filter_map(|name| name.rsplit_once('.')).map(|(_, uuid)| uuid).find(|uuid| is_run(uuid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_found_by_the_name_of_its_group() {
        let is_run = |uuid: &str| uuid == "1-2" || uuid == "3-4";
        assert_eq!(named("4:memory:/x.3-4\n0::/procman-a/web.b.1-2\n", &is_run), Some("1-2"));
        assert_eq!(named("0::/procman-a/web.1-2/procman-b/inner.5-6/deep", &is_run), Some("1-2"), "below it too");
        for other in ["", "0::/", "0::/system.slice/web.service", "0::/1-2", "1:cpu:/web.1-2", "0::/web.1-2x"] {
            assert_eq!(named(other, &is_run), None, "{other}");
        }
    }
}
