//! The embedded queue on a disk that fails: no receipt for what isn't safe, and the queue comes back by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use retrieve_gateway::queue::files::open_on_disk;
use retrieve_gateway::queue::{Health, Queue, QueueError, ReadRequest};
use tempfile::TempDir;

use crate::support::bad_disk::{FULL, HEALTHY, NO_NEW_FILES, SYNC_FAILS, UNREADABLE, on};
use crate::support::embedded_queue::{self, LIMIT_BYTES, append, close, comes_back, health_of};
use crate::support::eventually;

fn open(folder: &TempDir, fault: &Arc<AtomicU8>) -> (Arc<Queue>, std::thread::JoinHandle<()>) {
    open_with(folder, fault, LIMIT_BYTES)
}

fn open_with(
    folder: &TempDir,
    fault: &Arc<AtomicU8>,
    limit_bytes: u64,
) -> (Arc<Queue>, std::thread::JoinHandle<()>) {
    embedded_queue::open(folder.path(), on(fault, open_on_disk()), limit_bytes)
}

async fn documents(queue: &Queue) -> Vec<String> {
    let request = ReadRequest { after: Some("0".into()), limit: 1000, wait: Duration::ZERO };
    let page = queue.read(request).await.unwrap();
    page.entries.iter().map(|entry| String::from_utf8(entry.document.to_vec()).unwrap()).collect()
}

async fn positions(queue: &Queue) -> Vec<u64> {
    let request = ReadRequest { after: Some("0".into()), limit: 1000, wait: Duration::ZERO };
    let page = queue.read(request).await.unwrap();
    page.entries.iter().map(|entry| entry.position.parse().unwrap()).collect()
}

fn path(folder: &TempDir, generation: u32) -> std::path::PathBuf {
    folder.path().join(format!("jobs-{generation:06}.log"))
}

/// The next report of the queue's health.
async fn changes(queue: &Queue) -> Health {
    let mut health = health_of(queue);
    health.mark_unchanged();
    tokio::time::timeout(Duration::from_secs(10), health.changed()).await.expect("no report").unwrap();
    health.borrow().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_fsync_jobs_go_to_a_new_file_and_the_old_one_is_still_read() {
    let folder = TempDir::new().unwrap();
    let fault = Arc::new(AtomicU8::new(HEALTHY));
    let (queue, writer) = open(&folder, &fault);
    append(&queue, "1").await.unwrap();
    fault.store(SYNC_FAILS, Ordering::SeqCst);
    assert_eq!(append(&queue, "2").await.unwrap_err(), QueueError::Unconfirmed, "it may or may not be there");
    // The new file can't be made either, again and again, and what comes meanwhile is refused at once.
    for _ in 0..3 {
        let why = changes(&queue).await;
        assert!(matches!(why, Health::Down(_)), "{why:?}");
        assert!(matches!(append(&queue, "3").await, Err(QueueError::Unavailable(_))));
    }
    fault.store(HEALTHY, Ordering::SeqCst);
    comes_back(&queue).await;
    append(&queue, "4").await.unwrap();
    let before = documents(&queue).await;
    assert!(before == ["1", "4"] || before == ["1", "2", "4"], "{before:?}");
    assert!(folder.path().join("jobs-000002.log").exists());
    close(queue, writer).await;

    // A restart reads both files, in order, and goes on behind them.
    let (queue, writer) = open(&folder, &fault);
    append(&queue, "5").await.unwrap();
    assert_eq!(documents(&queue).await, [before, vec!["5".to_owned()]].concat());
    close(queue, writer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_refused_until_there_is_space_and_then_goes_on() {
    let folder = TempDir::new().unwrap();
    let fault = Arc::new(AtomicU8::new(HEALTHY));
    let (queue, writer) = open(&folder, &fault);
    for round in 0..3 {
        append(&queue, &format!("{round} before")).await.unwrap();
        fault.store(FULL, Ordering::SeqCst);
        append(&queue, &format!("{round} while full")).await.unwrap_err();
        assert!(matches!(changes(&queue).await, Health::Down(_)), "it isn't ready while the disk is full");
        fault.store(HEALTHY, Ordering::SeqCst);
        comes_back(&queue).await;
    }
    let expect: Vec<_> = (0..3).map(|round| format!("{round} before")).collect();
    assert_eq!(documents(&queue).await, expect, "nothing lost, nothing that was refused");
    close(queue, writer).await;
}

/// The note of what was refused lies in the next file, which may hold nothing else and go as acknowledged before that file.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_stays_refused_when_files_go_between() {
    let folder = TempDir::new().unwrap();
    let fault = Arc::new(AtomicU8::new(HEALTHY));
    let (queue, writer) = open(&folder, &fault);
    for text in ["1", "2"] {
        append(&queue, text).await.unwrap();
    }
    for _ in 0..2 {
        fault.store(SYNC_FAILS, Ordering::SeqCst);
        append(&queue, "refused").await.unwrap_err();
        fault.store(HEALTHY, Ordering::SeqCst);
        comes_back(&queue).await;
    }
    append(&queue, "5").await.unwrap();
    queue.acknowledge("1").await.unwrap();
    close(queue, writer).await;
    let (queue, writer) = open(&folder, &fault);
    assert_eq!(documents(&queue).await, ["2", "5"]);
    assert_eq!(queue.acknowledge("5").await.unwrap(), "5");
    close(queue, writer).await;
    assert!(!path(&folder, 1).exists() && !path(&folder, 2).exists(), "both go in the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_go_on_behind_a_new_file_that_is_still_empty() {
    let folder = TempDir::new().unwrap();
    let fault = Arc::new(AtomicU8::new(HEALTHY));
    let (queue, writer) = open(&folder, &fault);
    append(&queue, "1").await.unwrap();
    fault.store(FULL, Ordering::SeqCst);
    append(&queue, "refused").await.unwrap_err();
    fault.store(HEALTHY, Ordering::SeqCst);
    comes_back(&queue).await;
    close(queue, writer).await;
    let (queue, writer) = open(&folder, &fault);
    append(&queue, "2").await.unwrap();
    let request = ReadRequest { after: Some("1".into()), limit: 10, wait: Duration::ZERO };
    let page = queue.read(request).await.unwrap();
    assert_eq!(page.entries.len(), 1, "the second job has a number of its own behind the first");
    close(queue, writer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_of_a_file_being_made_is_no_queue() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("jobs-000001.log.new"), b"half a file").unwrap();
    let fault = Arc::new(AtomicU8::new(HEALTHY));
    let (queue, writer) = open(&folder, &fault);
    append(&queue, "1").await.unwrap();
    assert_eq!(documents(&queue).await, ["1"]);
    assert!(!folder.path().join("jobs-000001.log.new").exists());
    close(queue, writer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_old_file_is_set_aside_and_holds_up_nothing() {
    let folder = TempDir::new().unwrap();
    let fault = Arc::new(AtomicU8::new(HEALTHY));
    let (queue, writer) = open(&folder, &fault);
    append(&queue, "1").await.unwrap();
    fault.store(FULL, Ordering::SeqCst);
    append(&queue, "refused").await.unwrap_err();
    fault.store(HEALTHY, Ordering::SeqCst);
    comes_back(&queue).await;
    append(&queue, "2").await.unwrap();
    close(queue, writer).await;
    let old = folder.path().join("jobs-000001.log");
    let good = std::fs::read(&old).unwrap();
    for (number, damaged) in [b"damaged".to_vec(), Vec::new(), vec![0; good.len()]].iter().enumerate() {
        std::fs::write(&old, damaged).unwrap();
        let (queue, writer) = open(&folder, &fault);
        append(&queue, &format!("more {number}")).await.unwrap();
        assert_eq!(documents(&queue).await.len(), 2 + number, "all but the damaged file's");
        let backlog = queue.embedded_backlog().await.unwrap();
        assert_eq!((backlog.damaged_files, backlog.lost_jobs), (1, 1));
        close(queue, writer).await;
        let suffix = if number == 0 { String::new() } else { format!("-{}", number + 1) };
        let aside = folder.path().join(format!("jobs-000001.log.damaged{suffix}"));
        assert!(aside.exists() && !old.exists(), "set aside, not removed");
    }
    // Put back in place, it is read.
    std::fs::write(&old, good).unwrap();
    let (queue, writer) = open(&folder, &fault);
    assert_eq!(documents(&queue).await, ["1", "2", "more 0", "more 1", "more 2"]);
    close(queue, writer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_file_that_the_disk_does_not_give_holds_up_reading_but_not_new_jobs() {
    let folder = TempDir::new().unwrap();
    let fault = Arc::new(AtomicU8::new(HEALTHY));
    let (queue, writer) = open(&folder, &fault);
    append(&queue, "1").await.unwrap();
    fault.store(FULL, Ordering::SeqCst);
    append(&queue, "refused").await.unwrap_err();
    fault.store(HEALTHY, Ordering::SeqCst);
    comes_back(&queue).await;
    // The old file is opened anew to be read.
    fault.store(UNREADABLE, Ordering::SeqCst);
    let request = ReadRequest { after: Some("0".into()), limit: 10, wait: Duration::ZERO };
    let error = queue.read(request).await.unwrap_err().to_string();
    assert!(error.contains("jobs-000001.log"), "{error}");
    append(&queue, "2").await.unwrap();
    fault.store(HEALTHY, Ordering::SeqCst);
    assert_eq!(documents(&queue).await, ["1", "2"]);
    close(queue, writer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_no_new_file_can_be_made_the_last_one_grows_on() {
    let folder = TempDir::new().unwrap();
    let fault = Arc::new(AtomicU8::new(HEALTHY));
    let (queue, writer) = open_with(&folder, &fault, 1 << 20);
    fault.store(NO_NEW_FILES, Ordering::SeqCst);
    let text = "x".repeat(50_000);
    for _ in 0..15 {
        append(&queue, &text).await.unwrap();
    }
    assert_eq!(queue.health(), Health::Up, "three times the size of a file, and nobody noticed");
    assert!(!path(&folder, 2).exists());
    fault.store(HEALTHY, Ordering::SeqCst);
    eventually("the next file is begun", || async {
        queue.acknowledge("1").await.unwrap();
        let last = positions(&queue).await.pop().unwrap_or(0);
        append(&queue, &text).await.unwrap();
        queue.acknowledge(&last.to_string()).await.unwrap();
        (path(&folder, 2).exists() && !path(&folder, 1).exists()).then_some(())
    })
    .await;
    close(queue, writer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_works_on_a_disk_without_room_and_is_remembered() {
    let folder = TempDir::new().unwrap();
    let fault = Arc::new(AtomicU8::new(HEALTHY));
    let (queue, writer) = open(&folder, &fault);
    for text in ["1", "2", "3"] {
        append(&queue, text).await.unwrap();
    }
    fault.store(FULL, Ordering::SeqCst);
    append(&queue, "refused").await.unwrap_err();
    assert!(matches!(changes(&queue).await, Health::Down(_)));
    assert_eq!(queue.acknowledge("2").await.unwrap(), "2");
    fault.store(HEALTHY, Ordering::SeqCst);
    comes_back(&queue).await;
    assert_eq!(documents(&queue).await, ["3"]);
    assert_eq!(queue.acknowledge("3").await.unwrap(), "3");
    append(&queue, "5").await.unwrap();
    assert_eq!(queue.acknowledge("3").await.unwrap(), "3", "again, and the emptied file is removed");
    close(queue, writer).await;
    let (queue, writer) = open(&folder, &fault);
    assert!(!path(&folder, 1).exists() && path(&folder, 2).exists());
    assert_eq!(documents(&queue).await, ["5"]);
    assert_eq!(queue.acknowledge("1").await.unwrap(), "3", "less than before changes nothing");
    assert_eq!(documents(&queue).await, ["5"]);
    close(queue, writer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_never_used_twice_even_if_every_file_is_gone() {
    let folder = TempDir::new().unwrap();
    let fault = Arc::new(AtomicU8::new(HEALTHY));
    let (queue, writer) = open(&folder, &fault);
    for text in ["1", "2", "3"] {
        append(&queue, text).await.unwrap();
    }
    queue.acknowledge("3").await.unwrap();
    close(queue, writer).await;
    // By hand, or by a restore that lost them.
    std::fs::remove_file(path(&folder, 1)).unwrap();
    let (queue, writer) = open(&folder, &fault);
    append(&queue, "4").await.unwrap();
    assert_eq!(positions(&queue).await, [4]);
    close(queue, writer).await;

    // The newest file is damaged, and nobody knows which numbers it gave away.
    std::fs::write(path(&folder, 1), b"damaged").unwrap();
    let (queue, writer) = open(&folder, &fault);
    assert!(folder.path().join("jobs-000001.log.damaged").exists());
    append(&queue, "5").await.unwrap();
    let far = positions(&queue).await;
    assert!(far.len() == 1 && far[0] > 1_000_000, "{far:?}");
    close(queue, writer).await;
    let (queue, writer) = open(&folder, &fault);
    append(&queue, "6").await.unwrap();
    assert_eq!(positions(&queue).await, [far[0], far[0] + 1]);
    close(queue, writer).await;
}
