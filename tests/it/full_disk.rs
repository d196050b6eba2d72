//! The real gateway on a small file system of its own that is filled up and relieved, again and again: 503 while it is
//! full, jobs again when there is room, and nothing lost, doubled or there against its answer.
//!
//! The file system is an ext4 in a file, mounted in a mount namespace of the gateway's process, so that nothing stays
//! mounted whatever happens. Where no loop device can be had it is a tmpfs of that size.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::attempts::Attempts;
use crate::support::client::{exchange, get};
use crate::support::eventually_within;
use crate::support::fault_run::FaultRun;
use crate::support::gateway::{acknowledgement, journal_is_sent_within};
use crate::support::process::{GatewayProcess, RunningGateway};
use crate::support::random::Random;
use crate::support::redis_server::RedisServer;

const DISK_BYTES: u64 = 16 << 20;

/// Room for some jobs and a new file.
const ENOUGH_BYTES: u64 = 6 << 20;

/// Mounts the disk and becomes the gateway.
const MOUNT: &str = r#"
if ! mount -o loop "$1" "$2" 2>/dev/null && ! mount -t tmpfs -o "size=$3" none "$2"; then
    echo "this test needs root and a loop device, or a tmpfs in a user namespace: neither can be mounted here" >&2
    exit 1
fi
shift 3
exec "$@"
"#;

/// A gateway with its disk.
struct OnDisk {
    gateway: RunningGateway,
    /// The disk, seen through the process.
    disk: PathBuf,
}

impl OnDisk {
    async fn start(folder: &TempDir, more: &[(&str, &str)]) -> OnDisk {
        let (image, disk) = (folder.path().join("image"), folder.path().join("disk"));
        std::fs::File::create(&image).unwrap().set_len(DISK_BYTES).unwrap();
        std::fs::create_dir(&disk).unwrap();
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
        let made = std::process::Command::new("mkfs.ext4").env("PATH", path).arg("-q").arg(&image).status();
        assert!(made.expect("mkfs.ext4; scripts/setup installs it").success());
        let is_root = rustix::process::geteuid().is_root();
        let unshare = if is_root { "-m" } else { "-rm" };
        let (image, disk) = (image.display().to_string(), disk.display().to_string());
        let size = DISK_BYTES.to_string();
        let program = ["unshare", unshare, "sh", "-c", MOUNT, "sh", &image, &disk, &size];
        let data = format!("{disk}/data");
        let queue = format!("embedded:{data}");
        let mut settings = vec![("RETRIEVE_QUEUE", queue.as_str()), ("RETRIEVE_DATA_DIR", data.as_str())];
        settings.extend_from_slice(more);
        let gateway = GatewayProcess::start_under(&program, folder, &settings).await;
        let gateway = gateway.expect("no gateway on a disk of its own; its words are above");
        let disk = PathBuf::from(format!("/proc/{}/root{disk}", gateway.id()));
        let gateway = gateway.with_log(|_| {});
        assert!(std::fs::exists(disk.join("data")).unwrap(), "the disk isn't mounted");
        OnDisk { gateway, disk }
    }

    /// Sends until it is refused, as a full disk has to be.
    async fn fill(&self, attempts: &Arc<Attempts>) {
        let clients = attempts.start_clients(self.gateway.address, 4);
        let refused = || attempts.refused().get(&503).copied().unwrap_or(0);
        let before = refused();
        eventually_within(120, "the disk is full", || async { (refused() > before + 20).then_some(()) })
            .await;
        assert!(attempts.all_said_when_to_come_again());
        // While they go on: with less to write there may be room for a moment.
        eventually_within(120, "it isn't ready", || async {
            (get(self.gateway.admin, "/ready").await.status == 503).then_some(())
        })
        .await;
        attempts.finish();
        clients.join_all().await;
    }

    /// Waits until jobs are taken again.
    async fn takes_jobs(&self, attempts: &Arc<Attempts>) {
        let clients = attempts.start_clients(self.gateway.address, 4);
        attempts.go_on_within(120, 50).await;
        attempts.finish();
        clients.join_all().await;
        eventually_within(120, "it is ready", || async {
            (get(self.gateway.admin, "/ready").await.status == 200).then_some(())
        })
        .await;
    }

    /// Fills the disk and frees what was taken of it besides jobs: every other round most of it, by other data. Returns how
    /// many bytes that are.
    async fn fill_and_free(&self, round: u64, random: &mut Random, attempts: &Arc<Attempts>) -> u64 {
        let ballast = self.disk.join("ballast");
        let taken = if round.is_multiple_of(2) { self.take_room(&ballast, random.below(4 << 20)) } else { 0 };
        self.fill(attempts).await;
        println!("round {round}: full; {}", usage(&self.disk));
        if taken > 0 {
            std::fs::remove_file(ballast).unwrap();
        }
        taken
    }

    /// Takes all room but some, and at least a byte.
    fn take_room(&self, path: &Path, but_bytes: u64) -> u64 {
        let status = rustix::fs::statvfs(&self.disk).unwrap();
        let free = status.f_bavail * status.f_frsize;
        let file = std::fs::File::create(path).unwrap();
        let length = free.saturating_sub(but_bytes).max(1);
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, length).unwrap();
        length
    }
}

/// Reads everything and acknowledges it.
async fn handle_all(admin: SocketAddr, jobs: &mut Vec<Value>) {
    loop {
        let page = get(admin, "/api/jobs?after=0&limit=1000").await;
        assert_eq!(page.status, 200, "{}", page.body);
        let mut last = None;
        for line in page.body.lines() {
            let mut line: Value = serde_json::from_str(line).unwrap();
            jobs.push(line["job"].take());
            last = line["id"].as_str().map(str::to_owned);
        }
        let Some(last) = last else { return };
        let answer = exchange(admin, acknowledgement(admin, last)).await;
        assert_eq!(answer.status, 200, "an acknowledgement works on a full disk: {}", answer.body);
    }
}

fn usage(folder: &Path) -> String {
    let files = std::fs::read_dir(folder.join("data")).unwrap().map(|entry| entry.unwrap());
    files.map(|file| format!("{} {}; ", file.file_name().display(), file.metadata().unwrap().len())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_the_embedded_queue_refuses_until_there_is_room() {
    let mut run = FaultRun::begin("disk full", "embedded", 4);
    let folder = TempDir::new().unwrap();
    let mut site = OnDisk::start(&folder, &[]).await;
    let attempts = Arc::new(Attempts::padded(8000));
    let mut jobs = Vec::new();
    for round in 0..run.rounds {
        // Where jobs had taken the room, they have to give some.
        if site.fill_and_free(round, &mut run.random, &attempts).await < ENOUGH_BYTES {
            handle_all(site.gateway.admin, &mut jobs).await;
        }
        site.takes_jobs(&attempts).await;
        assert!(site.gateway.is_running());
    }
    handle_all(site.gateway.admin, &mut jobs).await;
    run.end(attempts.account(&jobs), &json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_the_journal_refuses_until_redis_has_what_fills_it() {
    let mut run = FaultRun::begin("disk full", "journal", 4);
    let folder = TempDir::new().unwrap();
    let mut redis = RedisServer::start().await;
    redis.kill();
    let url = redis.url();
    // Time enough for a slow Redis: a job that is on its way to it when the journal has no room may arrive although its
    // sender is told to come again. While Redis is away nobody waits for that time.
    let settings = [("RETRIEVE_QUEUE", url.as_str()), ("RETRIEVE_QUEUE_TIMEOUT", "20s")];
    let mut site = OnDisk::start(&folder, &settings).await;
    let attempts = Arc::new(Attempts::padded(8000));
    for round in 0..run.rounds {
        if site.fill_and_free(round, &mut run.random, &attempts).await < ENOUGH_BYTES {
            redis.restart().await;
            journal_is_sent_within(120, site.gateway.admin).await;
        }
        site.takes_jobs(&attempts).await;
        assert!(site.gateway.is_running());
        redis.kill();
    }
    redis.restart().await;
    journal_is_sent_within(120, site.gateway.admin).await;
    run.end(attempts.account(&redis.jobs("default").await), &json!({}));
}
