//! What can be said to `procmanctl`. Help, completions and man pages are generated from these types, so their doc comments speak to users.
//!
//! - [`Cli`]: what is common to all verbs;
//! - [`verbs`]: one variant for each verb, with its arguments;
//! - [`task`]: what a verb stands for, and how long it may take;
//! - `parse`: texts to values.

mod parse;
pub mod task;
pub mod verbs;

use std::path::PathBuf;

use clap::Parser;

use crate::protocol::definition::Seconds;
pub use task::{Task, deadline};
pub use verbs::Verb;

/// What `--help` says after everything else.
const AFTER_HELP: &str = "\
Where the daemon is:
  --endpoint, else $PROCMAN_ENDPOINT, else `endpoint` of client.toml, else
  ipc:///run/procman/control.sock for root and ipc://$XDG_RUNTIME_DIR/procman/control.sock for
  everybody else.

Keys, where a TCP endpoint takes known clients alone (CURVE):
  --server-key and --secret-key-file, else ~/.config/procman/client.toml (or below
  $XDG_CONFIG_HOME), with the lines
    endpoint = \"tcp://host:port\"
    server_key = \"what is in the daemon's server.public\"
    secret_key_file = \"client.secret\"     # beside this file
  'procmand keygen client' makes client.secret and client.public; the text of the latter is
  entered in a [[control.client]] of the daemon's configuration.

Two times:
  --timeout is the patience of procmanctl, connecting included: 5 seconds for questions; for verbs
  that have the daemon start or end something (register, unregister, execute, quit, reap, restart,
  reload, upgrade, shutdown) 60 seconds plus --stop-timeout or --start-timeout, and 600 for execute --wait without
  one. When it is over procmanctl leaves with exit code 4, and the daemon goes on with what it was
  told.
  --start-timeout of execute is when the daemon itself answers that a start is not done.
  --stop-timeout of quit, reap and restart is what the daemon grants a process to end before it
  kills it.

Exit codes:
  0  done; for a yes-or-no question: yes
  1  the daemon said no (its code and sentence are on standard error); for a question: no
  2  the arguments are wrong, or the file that they name
  3  no daemon was reached: nobody is there, the connection broke before the answer, or what
     answers is no procmand
  4  no answer within the time given with --timeout

Examples:
  procmanctl list
  procmanctl execute registry -- --verbose
  procmanctl --json status registry | jq .result.status.memory.rss
  procmanctl quit --group core --stop-timeout 10

'procmanctl help VERB' explains a verb.";

/// Ask procmand, the process manager, and tell it what to do
///
/// procmanctl sends one request to the daemon procmand, prints the answer and leaves. On a terminal states are coloured (unless NO_COLOR is set) and
/// command lines cut to its width; a pipe gets the same columns plain and whole. With --json it is the daemon's own reply, with exact numbers.
#[derive(Debug, Parser)]
#[command(name = "procmanctl", version, after_help = AFTER_HELP, max_term_width = 100, subcommand_value_name = "VERB", subcommand_help_heading = "Verbs")]
pub struct Cli {
    /// Where the daemon is: ipc:///path/of/the/socket or tcp://host:port
    #[arg(long, value_name = "ENDPOINT", global = true, help_heading = "Options of every verb")]
    pub endpoint: Option<String>,

    /// The daemon's public CURVE key, for a TCP endpoint that takes known clients alone
    #[arg(long, value_name = "KEY", allow_hyphen_values = true, global = true, help_heading = "Options of every verb")]
    pub server_key: Option<String>,

    /// The file of your own secret CURVE key, mode 0600
    #[arg(long, value_name = "FILE", global = true, help_heading = "Options of every verb")]
    pub secret_key_file: Option<PathBuf>,

    /// Print the daemon's reply as JSON: indented on a terminal, on one line in a pipe
    #[arg(long, global = true, help_heading = "Options of every verb")]
    pub json: bool,

    /// Wait at most this long for the answer [default: 5, where work is to be done 60]
    #[arg(long, value_name = "SECONDS", value_parser = parse::patience, global = true, help_heading = "Options of every verb")]
    pub timeout: Option<Seconds>,

    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_explains_itself() {
        for verb in Cli::command().get_subcommands_mut().filter(|verb| verb.get_name() != "help") {
            let long = verb.get_long_about().unwrap_or_default().to_string();
            assert!(long.len() > verb.get_about().unwrap().to_string().len(), "{} has no long help", verb.get_name());
            let help = verb.render_long_help().to_string();
            assert!(help.contains("Examples:\n  procmanctl "), "{help}");
            assert!(help.lines().all(|line| line.chars().count() <= 120), "{help}");
        }
    }

    #[test]
    fn the_help_tells_the_exit_codes() {
        let help = Cli::command().render_long_help().to_string();
        for code in 0..=4 {
            assert!(help.contains(&format!("\n  {code}  ")), "{help}");
        }
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    }

    #[test]
    fn what_is_common_may_stand_anywhere() {
        for line in ["procmanctl --json --timeout 2.5 --endpoint ipc:///x ping", "procmanctl ping --json --timeout 2.5 --endpoint ipc:///x"]
        {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert!(cli.json);
            assert_eq!((cli.timeout.map(Seconds::get), cli.endpoint.as_deref()), (Some(2.5), Some("ipc:///x")));
        }
    }

    #[test]
    fn a_key_may_begin_with_a_hyphen() {
        let cli = Cli::try_parse_from(["procmanctl", "--server-key", "-x", "ping"]).unwrap();
        assert_eq!(cli.server_key.as_deref(), Some("-x"));
    }

    #[test]
    fn wrong_arguments_are_usage_errors() {
        for (line, kind) in [
            ("procmanctl", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
            ("procmanctl conjure web", ErrorKind::InvalidSubcommand),
            ("procmanctl ping --timeout 0", ErrorKind::ValueValidation),
            ("procmanctl ping --timeout nan", ErrorKind::ValueValidation),
            ("procmanctl execute", ErrorKind::MissingRequiredArgument),
            ("procmanctl execute a/b", ErrorKind::ValueValidation),
            ("procmanctl execute a --env =x", ErrorKind::ValueValidation),
            ("procmanctl execute a arg", ErrorKind::UnknownArgument),
            ("procmanctl quit", ErrorKind::MissingRequiredArgument),
            ("procmanctl quit a --all", ErrorKind::ArgumentConflict),
            ("procmanctl quit a --stop-timeout=-1", ErrorKind::ValueValidation),
            ("procmanctl restart --all -- x", ErrorKind::ArgumentConflict),
            ("procmanctl restart --group g --env A=b", ErrorKind::ArgumentConflict),
            ("procmanctl signal a NOPE", ErrorKind::ValueValidation),
            ("procmanctl list --state asleep", ErrorKind::InvalidValue),
            ("procmanctl processes", ErrorKind::MissingRequiredArgument),
        ] {
            assert_eq!(Cli::try_parse_from(line.split(' ')).unwrap_err().kind(), kind, "{line}");
        }
    }
}
