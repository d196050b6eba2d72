//! `check`: all problems of the settings, and what they come to.

use std::io::Write;
use std::process::ExitCode;

use super::{CheckArgs, EXIT_CONFIG};
use crate::config::problems::{Problems, Severity};
use crate::config::{Environment, env};

pub(super) fn check(flags: &CheckArgs) -> ExitCode {
    let (config, problems) = env::read(&Environment);
    let report = if flags.json {
        let report = serde_json::json!({ "ok": config.is_some(), "problems": problems.to_json() });
        format!("{report}\n")
    } else {
        in_words(&problems)
    };
    // A reader that went away has seen enough.
    let _ = std::io::stdout().write_all(report.as_bytes());
    if config.is_some() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_CONFIG) }
}

fn in_words(problems: &Problems) -> String {
    let (errors, warnings) = (problems.count(Severity::Error), problems.count(Severity::Warning));
    let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    let verdict = if errors > 0 { "The gateway wouldn't start" } else { "The settings are good" };
    format!("{problems}{verdict}: {}, {}.\n", plural(errors, "error"), plural(warnings, "warning"))
}
