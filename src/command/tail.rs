//! `tail`: follows the queue through the private listener, so that it works while the gateway runs.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{Admin, Answer};
use super::{From, TailArgs, complain};
use crate::admin::api::{END, LAST_ID};
use crate::queue::START;

/// How long one request waits for a job before it is asked again.
const WAIT: Duration = Duration::from_secs(10);

/// How long an answer may take on top of that.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The pause after a gateway went away, before it is asked again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// How much of a payload is shown to people; `--json` shows all of it.
const SHOWN_CHARACTERS: usize = 2000;

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    job: &'a RawValue,
}

#[derive(Deserialize)]
struct Job<'a> {
    id: &'a str,
    integration: &'a str,
    received_at: &'a str,
    event: Option<String>,
    #[serde(borrow)]
    source: Source<'a>,
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Deserialize)]
struct Source<'a> {
    ip: &'a str,
}

#[derive(Deserialize)]
struct Data<'a> {
    format: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

pub(super) fn tail(flags: &TailArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(error);
            return ExitCode::FAILURE;
        }
    };
    let admin = match Admin::find(&flags.admin) {
        Ok(admin) => admin,
        Err(error) => {
            complain(error);
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(follow(&admin, flags)) {
        // The reader of the output went away, as `tail | head` does.
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(error);
            ExitCode::FAILURE
        }
    }
}

async fn follow(admin: &Admin, flags: &TailArgs) -> Result<(), String> {
    let mut after = match flags.from {
        From::Start => START.to_owned(),
        From::Now => END.to_owned(),
    };
    let mut has_answered = false;
    loop {
        let path = format!("/api/jobs?after={after}&wait={}s", WAIT.as_secs());
        let answer = match admin.get(&path, WAIT + ANSWER_TIMEOUT).await {
            Ok(answer) if answer.status.is_server_error() && has_answered => {
                pause(&describe(&answer)).await;
                continue;
            }
            Ok(answer) if !answer.status.is_success() => return Err(describe(&answer)),
            Ok(answer) => answer,
            // A gateway that is being restarted comes back; one that was never there is a mistake.
            Err(error) if has_answered => {
                pause(&error).await;
                continue;
            }
            Err(error) => {
                return Err(format!("{error}\nIs the gateway running? See --admin in `tail --help`."));
            }
        };
        has_answered = true;
        let last = answer.headers.get(LAST_ID).and_then(|last| last.to_str().ok());
        after = last.ok_or("the answer names no position; is this a retrieve-gateway?")?.to_owned();
        match print(&answer.body, flags.json) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(error) => return Err(error.to_string()),
        }
    }
}

async fn pause(why: &str) {
    complain(format_args!("{why}; trying again"));
    tokio::time::sleep(RETRY_PAUSE).await;
}

fn describe(answer: &Answer) -> String {
    format!("the private listener answered {}: {}", answer.status, String::from_utf8_lossy(&answer.body))
}

fn print(body: &[u8], json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line: Line<'_> = serde_json::from_slice(line)?;
        if json {
            writeln!(out, "{}", line.job.get())?;
        } else {
            write!(out, "{}", in_words(line.job.get()))?;
        }
    }
    out.flush()
}

/// A head line and the payload. Characters that could steer a terminal are escaped.
fn in_words(job: &str) -> String {
    let Ok(job) = serde_json::from_str::<Job<'_>>(job) else { return format!("{}\n", printable(job)) };
    let event = job.event.as_deref().unwrap_or("-");
    let payload = job.data.data.get();
    let mut shown: String = payload.chars().take(SHOWN_CHARACTERS).collect();
    if shown.len() < payload.len() {
        shown.push_str(&format!("… ({} bytes; --json shows all)", payload.len()));
    }
    format!(
        "{}  {}  {event}  {}  from {}  job {}\n  {}\n",
        job.received_at,
        job.integration,
        job.data.format,
        job.source.ip,
        job.id,
        printable(&shown),
    )
}

fn printable(text: &str) -> String {
    text.chars()
        .map(
            |character| {
                if character.is_control() { character.escape_default().to_string() } else { character.into() }
            },
        )
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_in_words_is_two_lines_without_control_characters() {
        let job = r#"{"v":1,"id":"0199","app":"default","integration":"demo","received_at":"2025-12-10T14:30:00.123456Z","source":{"preset":null,"ip":"127.0.0.1"},"event":null,"data":{"format":"json","data":{"a":"\u009b31m"},"raw":null}}"#;
        let job = job.replace("\\u009b", "\u{9b}");
        assert_eq!(
            in_words(&job),
            "2025-12-10T14:30:00.123456Z  demo  -  json  from 127.0.0.1  job 0199\n  {\"a\":\"\\u{9b}31m\"}\n"
        );
    }
}
