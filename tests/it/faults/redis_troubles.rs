//! One Redis that dies, stops, forgets its scripts, cuts its clients off and is full, under load.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use super::{Said, Site, finish};
use crate::support::attempts::Account;
use crate::support::fault_run::FaultRun;
use crate::support::random::{Random, from_environment};
use crate::support::redis_server::RedisServer;

const CLIENTS: usize = 4;
const PAUSE: Duration = Duration::from_millis(4);

/// A Redis that syncs its file for each command (`RedisServer` sets `appendfsync always`) keeps what it confirmed.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redis_loses_and_doubles_nothing() {
    let mut run = FaultRun::begin("Redis kill -9, appendfsync always", "redis", 50);
    let mut redis = RedisServer::start().await;
    // Slow enough that the journal becomes empty although Redis syncs its file for each of its batches.
    let site = Site::start(&redis.url(), CLIENTS, 3 * PAUSE).await;
    for _ in 0..run.rounds {
        tokio::time::sleep(run.random.moment(150)).await;
        redis.kill();
        tokio::time::sleep(run.random.moment(150)).await;
        redis.restart().await;
        // Some kills meet a gateway that sends directly, others one that sends its journal or connects.
        if run.random.below(8) == 0 {
            site.drained().await;
            site.goes_on().await;
        }
    }
    finish(run, site, &redis, json!({})).await;
}

/// How many servers are stopped at the same time, each with a gateway of its own.
const STOPPED: u64 = 8;
const SHORTEST_STOP: Duration = Duration::from_millis(100);

/// A stopped Redis executes later what lies in its socket. What matters are the gateway's own limits: after 300 ms its jobs
/// go to the journal (three quarters of `RETRIEVE_QUEUE_TIMEOUT`), after 1 s it gives the connection up and the copies
/// become late ones. So 3 s (`STOP_LIMIT_SECONDS`) reach every state; the longer stops of the evidence run only make the
/// journal longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_redis_that_executes_late_loses_and_doubles_nothing() {
    let run = FaultRun::begin("Redis SIGSTOP, SIGCONT", "redis", 50);
    let longest = Duration::from_secs(from_environment("STOP_LIMIT_SECONDS").unwrap_or(3));
    let lanes = (0..STOPPED).map(|lane| {
        let rounds = run.rounds / STOPPED + u64::from(lane < run.rounds % STOPPED);
        tokio::spawn(stop_one(rounds, longest, Random::new(run.random.seed.wrapping_add(lane))))
    });
    let (mut account, mut stopped, mut said) = (Account::default(), Duration::ZERO, Said::default());
    for lane in join_all(lanes).await {
        let (lane_account, lane_stopped, lane_said) = lane.unwrap();
        account += lane_account;
        stopped += lane_stopped;
        said += lane_said;
    }
    let more = json!({ "longest_stop_seconds": longest.as_secs(), "stopped_seconds": stopped.as_secs() });
    run.end(account, &said.beside(more));
}

async fn stop_one(rounds: u64, longest: Duration, mut random: Random) -> (Account, Duration, Said) {
    let redis = RedisServer::start().await;
    // A pause between answers, for all the servers share the machine.
    let site = Site::start(&redis.url(), 2, Duration::from_millis(40)).await;
    let mut stopped = Duration::ZERO;
    for _ in 0..rounds {
        tokio::time::sleep(random.moment(200)).await;
        let stop = random.log_moment(SHORTEST_STOP, longest);
        redis.freeze();
        tokio::time::sleep(stop).await;
        redis.thaw();
        stopped += stop;
        if random.below(2) == 0 {
            site.drained().await;
        }
    }
    let (attempts, said) = site.end().await;
    (attempts.account(&redis.jobs("default").await), stopped, said)
}

/// Without a journal what can't be confirmed is answered 503, though Redis may execute it later. Only then may a refused
/// job be there, and the log has to say that its outcome is unknown.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_journal_only_jobs_of_unknown_outcome_come_though_they_were_refused() {
    let mut run = FaultRun::begin("Redis kill -9 and SIGSTOP", "redis, no journal", 30);
    let mut redis = RedisServer::start().await;
    let no_journal = [("RETRIEVE_DATA_DIR", "off")];
    let site = Site::start_with(&redis.url(), &no_journal, CLIENTS * 2, Duration::from_millis(1)).await;
    for _ in 0..run.rounds {
        site.goes_on().await;
        if run.random.below(2) == 0 {
            redis.freeze();
            tokio::time::sleep(run.random.log_moment(SHORTEST_STOP, Duration::from_secs(2))).await;
            redis.thaw();
        } else {
            redis.kill();
            tokio::time::sleep(run.random.moment(700)).await;
            redis.restart().await;
        }
    }
    site.goes_on().await;
    finish(run, site, &redis, json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_flushed_every_100_ms_lose_and_double_nothing() {
    let run = FaultRun::begin("SCRIPT FLUSH every 100 ms", "redis", 50);
    command_each_round(run, &["SCRIPT", "FLUSH"], |_| Duration::from_millis(100)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_killed_all_the_time_lose_and_double_nothing() {
    let run = FaultRun::begin("CLIENT KILL", "redis", 50);
    let kill = ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"];
    command_each_round(run, &kill, |random| random.moment(200)).await;
}

async fn command_each_round(mut run: FaultRun, words: &[&str], pause: fn(&mut Random) -> Duration) {
    let redis = RedisServer::start().await;
    let site = Site::start(&redis.url(), CLIENTS, PAUSE).await;
    for _ in 0..run.rounds {
        redis.command(words).await;
        tokio::time::sleep(pause(&mut run.random)).await;
    }
    finish(run, site, &redis, json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_out_of_memory_loses_and_doubles_nothing() {
    let mut run = FaultRun::begin("Redis out of memory", "redis", 10);
    let redis = RedisServer::start().await;
    let site = Site::start(&redis.url(), CLIENTS, PAUSE).await;
    for _ in 0..run.rounds {
        redis.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
        tokio::time::sleep(run.random.moment(1000)).await;
        site.goes_on().await;
        redis.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
        if run.random.below(2) == 0 {
            site.drained().await;
        }
        site.goes_on().await;
    }
    finish(run, site, &redis, json!({})).await;
}
