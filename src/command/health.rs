//! `health`: the exit code of a container's probe.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use super::client::Admin;
use super::{HealthArgs, complain};

const TIMEOUT: Duration = Duration::from_secs(3);

pub(super) fn health(flags: &HealthArgs) -> ExitCode {
    match ask(flags) {
        Ok(words) => {
            let _ = writeln!(std::io::stdout(), "{words}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(error);
            ExitCode::FAILURE
        }
    }
}

fn ask(flags: &HealthArgs) -> Result<String, String> {
    let admin = Admin::find(&flags.admin)?;
    let path = if flags.ready { "/ready" } else { "/live" };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let answer = runtime.block_on(admin.get(path, TIMEOUT))?;
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    if answer.status.is_success() {
        Ok(body)
    } else {
        Err(format!("{path} answered {}: {body}", answer.status))
    }
}
