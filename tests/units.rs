//! The files for systemd are read by systemd's own programs, and mean what the rest of the project takes for granted.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file of the directory `systemd`.
fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(file(name)).unwrap()
}

/// Runs one of systemd's programs; it must succeed without a word, as what it does not understand it only warns about.
fn runs_silently(program: &str, arguments: &[&str]) {
    if let Some(complaint) = complaint(program, arguments) {
        panic!("{program} {}\n{complaint}", arguments.join(" "));
    }
}

/// What the program says, or that it failed.
fn complaint(program: &str, arguments: &[&str]) -> Option<String> {
    let output =
        Command::new(program).args(arguments).env("LC_ALL", "C").env("SYSTEMD_LOG_LEVEL", "info").output().unwrap_or_else(|error| {
            panic!("cannot run {program}, which this test needs: {error}; `make test` installs it, or: apt-get install systemd")
        });
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (!output.status.success() || !said.is_empty()).then(|| format!("{}\n{said}", output.status))
}

/// The value of a key that the unit has exactly once.
fn value<'a>(unit: &'a str, key: &str) -> &'a str {
    let found: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect();
    let [value] = found[..] else { panic!("{key}= occurs {} times", found.len()) };
    value
}

/// Writes the unit to a directory, with the daemon that was built in place of the installed one.
fn with_built_daemon(unit: &str, directory: &Path) -> String {
    let (installed, built) = ("/usr/bin/procmand", env!("CARGO_BIN_EXE_procmand"));
    assert_eq!(unit.matches(&format!("{installed} ")).count(), 3, "the daemon is started and stopped");
    let path = directory.join("procmand.service");
    fs::write(&path, unit.replace(&format!("{installed} "), &format!("{built} "))).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn systemd_understands_the_unit() {
    let directory = tempfile::tempdir().unwrap();
    let unit = text("procmand.service");
    runs_silently("systemd-analyze", &["verify", &with_built_daemon(&unit, directory.path())]);
    // The check can fail: systemd only warns about a key that it does not know.
    let misspelt = with_built_daemon(&unit.replace("KillMode=", "KilMode="), directory.path());
    let complaint = complaint("systemd-analyze", &["verify", &misspelt]).unwrap();
    assert!(complaint.contains("KilMode"), "{complaint}");
}

#[test]
fn the_unit_keeps_the_promises_of_the_daemon() {
    let unit = text("procmand.service");
    for (key, expected) in [
        ("Type", "notify"),
        ("ExecReload", "/bin/kill -HUP $MAINPID"),
        ("NotifyAccess", "main"),
        ("Restart", "on-failure"),
        ("KillMode", "process"),   // sub-processes are quit by the daemon, in its order, or left to the next one
        ("OOMPolicy", "continue"), // else one sub-process out of memory stops them all
        ("ExecStop", "-/usr/bin/procmand --exec-stop %n"),
        ("ExecStopPost", "-/usr/bin/procmand --exec-stop-post %n"),
        ("RuntimeDirectoryPreserve", "yes"), // in it are sockets of what lives on
        ("StateDirectory", "procman"),
        ("RuntimeDirectory", "procman"),
    ] {
        assert_eq!(value(&unit, key), expected, "{key}");
    }
    // As many descriptors as programs that use select(2) can handle.
    assert_eq!(value(&unit, "ExecStart"), "/usr/bin/procmand --config /etc/procman/procmand.toml --nofile 1024");
    assert!(value(&unit, "WatchdogSec").parse::<u32>().is_ok_and(|seconds| seconds > 0));
    let (soft, hard) = value(&unit, "LimitNOFILE").split_once(':').unwrap();
    let number = |text: &str| text.parse::<usize>().unwrap();
    let (kept, soft, hard) = (number(value(&unit, "FileDescriptorStoreMax")), number(soft), number(hard));
    // systemd moves what it has kept to the numbers from 3 on, in a process that is held to the soft limit already, and needs more behind them.
    assert!(2 * kept + 100 <= soft && soft <= hard);
    // Their names are one variable of the environment, with colons between them.
    assert!(kept * "notify.00000000-0000-0000-0000-000000000000:".len() < (128 << 10) - 1000);
    // EX_CONFIG of sysexits.h: a file that is wrong now will be wrong a second later.
    assert!(value(&unit, "RestartPreventExitStatus").split(' ').any(|code| code == "78"));
}

#[test]
fn the_unit_leaves_sub_processes_their_freedom() {
    let unit = text("procmand.service");
    for key in [
        "User",
        "NoNewPrivileges",
        "CapabilityBoundingSet",
        "PrivateTmp",
        "PrivateDevices",
        "ProtectHome",
        "ProtectProc",
        "ProtectClock",
        "RestrictRealtime",
        "RestrictNamespaces",
        "RestrictSUIDSGID",
        "MemoryDenyWriteExecute",
        "SystemCallFilter",
    ] {
        assert!(
            !unit.lines().any(|line| line.starts_with(&format!("{key}="))),
            "{key} is inherited by sub-processes, which it would break"
        );
    }
    for line in unit.lines().filter(|line| line.starts_with("#   ")) {
        assert!(line.len() > 30, "every key that is not set has its reason: {line}");
    }
}

#[test]
fn systemd_understands_the_group() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    let (root_option, conf) = (format!("--root={}", root.path().display()), file("sysusers.d/procman.conf"));
    let arguments = [root_option.as_str(), conf.to_str().unwrap()];
    // It tells of the group that it makes, so silence is not to be expected: only that it makes the group, and nothing else.
    let said = complaint("systemd-sysusers", &arguments).unwrap_or_default();
    let group = fs::read_to_string(root.path().join("etc/group")).unwrap_or_else(|error| panic!("no group was made: {error}\n{said}"));
    assert!(group.lines().count() == 1 && group.starts_with("procman:"), "{group}");
    assert!(fs::read(root.path().join("etc/passwd")).unwrap_or_default().is_empty(), "no account is needed");
    assert!(!said.contains("conf:"), "{said}");
}

#[test]
fn systemd_understands_the_directories() {
    let root = tempfile::tempdir().unwrap();
    let (root_option, conf) = (format!("--root={}", root.path().display()), file("tmpfiles.d/procman.conf"));
    // Reads every line, and has nothing to do.
    runs_silently("systemd-tmpfiles", &["--clean", &root_option, conf.to_str().unwrap()]);
    // Only root can give a directory to root.
    if nix::unistd::geteuid().is_root() {
        runs_silently("systemd-tmpfiles", &["--create", &root_option, conf.to_str().unwrap()]);
        for (path, mode) in [("etc/procman/conf.d", 0o755), ("var/lib/procman", 0o750), ("run/procman", 0o755)] {
            let metadata = fs::metadata(root.path().join(path)).unwrap();
            assert_eq!((metadata.is_dir(), metadata.permissions().mode() & 0o7777), (true, mode), "{path}");
        }
    }
}
