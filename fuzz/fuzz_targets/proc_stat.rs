//! Any line of `/proc/PID/stat` is either read or refused, and what is read can be asked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use procman::procfs::Stat;

fuzz_target!(|line: &[u8]| {
    if let Ok(stat) = Stat::parse(line) {
        let _ = (stat.name(), stat.state_word(), stat.identity(), stat.is_zombie());
    }
});
