//! The command line: `serve`, `check`, `send`, `tail`, `health`.

pub mod check;
pub mod client;
pub mod health;
pub mod send;
pub mod serve;
pub mod tail;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::env::VARIABLES;

/// The exit code for settings that can't be used (EX_CONFIG of sysexits.h).
pub const EXIT_CONFIG: u8 = 78;

/// Takes webhooks, makes each a durable JSON job, and answers 200 only then.
///
/// Every setting is an environment variable; the list is below. Integrations may also stand in
/// config/integrations.toml.
///
/// Try it:
///
///   RETRIEVE_INTEGRATIONS=hello retrieve-gateway
///   curl -d '{"id":1}' -H 'content-type: application/json' http://127.0.0.1:8080/integration/hello
///   retrieve-gateway tail --from start
#[derive(Debug, Parser)]
#[command(name = "retrieve-gateway", version = crate::VERSION, verbatim_doc_comment, after_help = settings_help())]
pub struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the gateway (this is what no command stands for)
    Serve,
    /// Reads all settings, prints every problem with its origin and a hint; exits 0 or 78
    Check(CheckArgs),
    /// Sends a sample webhook, signed as its sender signs, and prints the answer
    ///
    /// The sample is small and made up; headers and signature are the sender's.
    /// Exits 0 if the answer is a 2xx, 1 if it is another, 2 if there is none.
    ///
    /// Try it:
    ///
    ///   url=http://localhost:8080/integration
    ///   retrieve-gateway send $url/demo
    ///   retrieve-gateway send $url/shop --source shopify --secret env:SHOPIFY_SECRET
    ///   retrieve-gateway send $url/shop --source woocommerce \
    ///       --event order.updated --secret file:secret.txt --data order.json
    ///   retrieve-gateway send --list
    ///
    /// A sender that signs with a private key (Discord, SendGrid, Adobe Commerce) takes
    /// one here, in PEM; the gateway has its public half. Adobe I/O, PayPal, Amazon SNS
    /// and eBay sign with keys of their own, so nobody else can.
    #[command(verbatim_doc_comment)]
    Send(Box<send::SendArgs>),
    /// Follows jobs as they are queued, through the gateway's private listener
    Tail(TailArgs),
    /// Asks the running gateway whether it is alive; exits 0 or 1 (for container probes)
    Health(HealthArgs),
}

/// Flags of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Flags of `tail`.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// Where to begin: with the first job that the queue holds, or with the next one that arrives
    #[arg(long, value_enum, default_value = "now")]
    from: From,
    /// Print each job as it is, one a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Flags of `health`.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// Ask whether it takes webhooks now, too: listener and queue
    #[arg(long)]
    ready: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// How to reach the private listener.
#[derive(Debug, Args)]
pub struct AdminArgs {
    /// Address of the private listener; by default what RETRIEVE_ADMIN_LISTEN says
    #[arg(long, value_name = "HOST:PORT")]
    admin: Option<String>,
}

/// Where `tail` begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum From {
    /// The first job.
    Start,
    /// The next job.
    Now,
}

/// Runs the command that the arguments name.
pub fn run(arguments: CommandLine) -> ExitCode {
    match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => serve::serve(),
        Command::Check(flags) => check::check(&flags),
        Command::Send(flags) => send::send(&flags),
        Command::Tail(flags) => tail::tail(&flags),
        Command::Health(flags) => health::health(&flags),
    }
}

fn settings_help() -> String {
    let mut help = String::from("Settings (environment variables, with their defaults):\n");
    for variable in VARIABLES {
        let default = if variable.default.is_empty() { "none" } else { variable.default };
        help.push_str(&format!("  {:<27} {} [{default}]\n", variable.name, variable.help));
    }
    help.push_str(
        "URLs of a Redis: redis://[user:password@]host[:port][/database],\n  \
         redis-sentinel://[user:password@]host[:port],host[:port]/master-name[/database]\n  \
         (?sentinel_user= and ?sentinel_password= where the sentinels want a login),\n  \
         redis-cluster://[user:password@]host[:port],host[:port]; rediss… instead of redis… for TLS.\n\n\
         A secret RETRIEVE_X (RETRIEVE_ADMIN_TOKEN, RETRIEVE_QUEUE) may be given as RETRIEVE_X_FILE.",
    );
    help
}

/// Says what went wrong, on standard error, without a stack trace.
fn complain(message: impl std::fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "retrieve-gateway: {message}");
}
