//! The binary: arguments in, exit code out. Everything else is the library.

use std::process::ExitCode;

use clap::Parser;
use retrieve_gateway::command::{CommandLine, run};

fn main() -> ExitCode {
    run(CommandLine::parse())
}
