//! Any text is either a sound configuration or told what is wrong with it, at lines that exist. Nothing touches the file system.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use procman::config::{Config, Places, parse_processes};

fuzz_target!(|text: &str| {
    let file = Path::new("/etc/procman/procmand.toml");
    match Config::from_text(text, file, &Places::system()) {
        Ok(loaded) => {
            assert!(loaded.config.state_dir.is_absolute() && loaded.config.runtime_dir.is_absolute());
            assert!(!loaded.config.control.endpoints.is_empty());
        }
        Err(errors) => {
            assert!(!errors.0.is_empty());
            for error in errors.0 {
                assert!(error.line.is_none_or(|line| (1..=text.lines().count().max(1)).contains(&line)), "{error}");
                assert!(!error.to_string().contains('\n'));
            }
        }
    }
    let _ = parse_processes(text, file);
});
