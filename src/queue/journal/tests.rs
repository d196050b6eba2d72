//! The journal on a disk that fails, fills and forgets.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;

use tempfile::TempDir;
use tokio::runtime::Handle;

use super::*;
use crate::queue::bad_disk::{self, HEALTHY, NO_ROOM, SYNC_FAILS, UNREADABLE};
use crate::queue::files::open_on_disk;
use crate::random::{Random, rounds};

const LIMIT_BYTES: u64 = 1 << 30;
const LANE: u32 = 0;

/// A journal, and what its one lane knows.
struct Lane {
    journal: Journal,
    thread: JoinHandle<()>,
    identity: Identity,
    recovered: Recovered,
    next: Position,
    place: u64,
    fault: Arc<AtomicU8>,
}

impl Lane {
    fn open(folder: &TempDir) -> Lane {
        Lane::open_with(folder, LIMIT_BYTES)
    }

    fn open_with(folder: &TempDir, limit_bytes: u64) -> Lane {
        let fault = Arc::new(AtomicU8::new(HEALTHY));
        let open = bad_disk::on(&fault, open_on_disk());
        let folder = Folder::open(folder.path()).unwrap();
        let (journal, writer, identity, recovered) = Journal::open(folder, open, 1, limit_bytes).unwrap();
        let runtime = Handle::current();
        let thread = std::thread::spawn(move || writer.run(&runtime));
        let recovered = recovered[0].clone();
        let next = Position { epoch: identity.epoch, seq: 2 };
        let place = recovered.next_place;
        Lane { journal, thread, identity, recovered, next, place, fault }
    }

    fn breaks(&self, fault: u8) {
        self.fault.store(fault, Ordering::SeqCst);
    }

    /// Writes batches of one job each.
    async fn append(&mut self, texts: &[&str]) -> Result<Run, JournalError> {
        let run = Run { first: self.next, place: self.place, len: texts.len() as u64 };
        // Refused or not, neither numbers nor places are used twice.
        self.next.seq += run.len;
        self.place += run.len;
        let document = |text: &&str| -> Batch {
            [Document { bytes: text.as_bytes().to_vec().into(), dedupe: None }].into()
        };
        let batches = texts.iter().map(document).collect();
        let promised = self.recovered.promised;
        self.journal.change(Change::Append { lane: LANE, run, promised, batches }).await?;
        Ok(run)
    }

    async fn forget(&self, resolved_below: u64) -> Result<u64, JournalError> {
        let promised = self.recovered.promised;
        let change = || Change::Forget { lane: LANE, resolved_below, promised };
        self.journal.change(change()).await?;
        // Files are removed after the answer, and before the next one.
        self.journal.change(change()).await
    }

    async fn read(&self, run: Run) -> Result<Vec<String>, JournalError> {
        let mut texts = Vec::new();
        while (texts.len() as u64) < run.len {
            let done = texts.len() as u64;
            for batch in self.journal.read(LANE, run.place + done, run.len - done).await? {
                let words = batch.iter().map(|job| String::from_utf8(job.bytes.to_vec()).unwrap());
                texts.push(words.collect());
            }
        }
        Ok(texts)
    }

    /// Number and text of everything that was found at the start.
    async fn found(&self) -> Vec<(Position, String)> {
        let mut found = Vec::new();
        for run in &self.recovered.runs {
            for (behind, text) in (0..).zip(self.read(*run).await.unwrap()) {
                found.push((Position { seq: run.first.seq + behind, ..run.first }, text));
            }
        }
        found
    }

    async fn texts(&self) -> Vec<String> {
        self.found().await.into_iter().map(|(_, text)| text).collect()
    }

    async fn close(self) {
        drop(self.journal);
        tokio::task::spawn_blocking(|| self.thread.join()).await.unwrap().unwrap();
    }

    async fn comes_back(&mut self) {
        let up = self.journal.health.wait_for(|health| *health == Health::Up);
        tokio::time::timeout(std::time::Duration::from_secs(10), up).await.expect("it doesn't").unwrap();
    }
}

fn files(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name.starts_with("journal-"));
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_fsync_refused_is_nowhere_and_what_was_taken_is_found_in_order() {
    let folder = TempDir::new().unwrap();
    let mut lane = Lane::open(&folder);
    let mut expect = Vec::new();
    for round in 0..4 {
        let [before, refused, later] = ["before", "refused", "later"].map(|text| format!("{round} {text}"));
        lane.append(&[&before]).await.unwrap();
        lane.breaks(SYNC_FAILS);
        assert!(matches!(lane.append(&[&refused, &refused]).await, Err(JournalError::Write(_))));
        assert!(!lane.journal.takes_jobs());
        lane.append(&[&later]).await.expect_err("the disk is still broken");
        lane.breaks(HEALTHY);
        lane.comes_back().await;
        expect.push(before);
    }
    lane.append(&["last"]).await.unwrap();
    expect.push("last".into());
    lane.close().await;
    let lane = Lane::open(&folder);
    assert_eq!(lane.texts().await, expect);
    assert!(lane.found().await.is_sorted(), "numbers grow");
    assert_eq!(lane.journal.usage().jobs(), 5);
    assert_eq!(lane.journal.usage().lost_batches(), 0);
    assert!(files(folder.path()).len() > 4, "a generation for each failure");

    // Everything is resolved: the older files go.
    lane.forget(lane.place).await.unwrap();
    assert_eq!((lane.journal.usage().jobs(), lane.journal.usage().bytes()), (0, 0));
    let left = files(folder.path());
    assert_eq!(left.len(), 2, "the active file and the one made ahead: {left:?}");
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_jobs_are_refused_and_what_redis_confirms_is_noted_and_makes_room() {
    let folder = TempDir::new().unwrap();
    let mut lane = Lane::open(&folder);
    let first = lane.append(&["1", "2", "3"]).await.unwrap();
    lane.breaks(NO_ROOM);
    // A file is longer than what is in it, so it takes some to fill it.
    let large = "x".repeat(300_000);
    let mut taken = 3;
    while lane.append(&[&large]).await.is_ok() {
        taken += 1;
        assert!(taken < 100, "it is never full");
    }
    lane.append(&["refused"]).await.expect_err("no room for another file");
    assert!(!lane.journal.takes_jobs());
    // All that Redis is given goes through the notes.
    let next_epoch = lane.journal.change(Change::NextEpoch).await.unwrap();
    assert_eq!(next_epoch, lane.identity.epoch + 1);
    assert_eq!(lane.read(first).await.unwrap(), ["1", "2", "3"]);
    for place in 0..200 {
        lane.forget(place.min(2)).await.unwrap();
    }
    assert_eq!(lane.journal.usage().jobs(), taken, "an older file counts until it is gone");
    lane.append(&["refused"]).await.expect_err("still no room");
    lane.forget(lane.place).await.unwrap();
    assert_eq!(lane.journal.usage().jobs(), 0);
    let left = files(folder.path());
    assert_eq!(left.len(), 1, "what filled the disk is removed: {left:?}");
    lane.breaks(HEALTHY);
    lane.comes_back().await;
    lane.append(&["4"]).await.unwrap();
    lane.close().await;
    let lane = Lane::open(&folder);
    assert_eq!(lane.texts().await, ["4"]);
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_on_a_full_disk_finds_everything_and_goes_on_when_there_is_room() {
    let folder = TempDir::new().unwrap();
    let mut lane = Lane::open(&folder);
    lane.append(&["1", "2"]).await.unwrap();
    lane.close().await;
    let fault = Arc::new(AtomicU8::new(NO_ROOM));
    let open = bad_disk::on(&fault, open_on_disk());
    let opened = Journal::open(Folder::open(folder.path()).unwrap(), open, 1, LIMIT_BYTES).unwrap();
    let (mut journal, writer, _, recovered) = opened;
    assert!(!journal.takes_jobs());
    let runtime = Handle::current();
    let thread = std::thread::spawn(move || writer.run(&runtime));
    assert_eq!(recovered[0].runs[0].len, 2);
    assert_eq!(journal.read(LANE, 0, 2).await.unwrap().len(), 2);
    fault.store(HEALTHY, Ordering::SeqCst);
    journal.health.wait_for(|health| *health == Health::Up).await.unwrap();
    drop(journal);
    tokio::task::spawn_blocking(|| thread.join()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_disk_does_not_give_for_a_while_is_read_afterwards() {
    let folder = TempDir::new().unwrap();
    let mut lane = Lane::open(&folder);
    let first = lane.append(&["1", "2"]).await.unwrap();
    lane.breaks(SYNC_FAILS);
    lane.append(&["refused"]).await.unwrap_err();
    lane.breaks(HEALTHY);
    lane.comes_back().await;
    // The older file is opened anew to be read.
    lane.breaks(UNREADABLE);
    assert!(matches!(lane.read(first).await, Err(JournalError::Read(_))));
    let second = lane.append(&["3"]).await.unwrap();
    lane.breaks(HEALTHY);
    assert_eq!(lane.read(first).await.unwrap(), ["1", "2"]);
    assert_eq!(lane.read(second).await.unwrap(), ["3"]);
    assert_eq!(lane.journal.usage().lost_batches(), 0);
    lane.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_numbers_hold_for_batches_of_older_files_as_well() {
    let folder = TempDir::new().unwrap();
    let mut lane = Lane::open(&folder);
    lane.append(&["1", "2", "3"]).await.unwrap();
    lane.breaks(SYNC_FAILS);
    lane.append(&["refused"]).await.unwrap_err();
    lane.breaks(HEALTHY);
    lane.comes_back().await;
    lane.append(&["5", "6"]).await.unwrap();
    // The first was confirmed; the rest is numbered anew, in the next epoch.
    let epoch = lane.journal.change(Change::NextEpoch).await.unwrap();
    let at = |seq| Position { epoch, seq };
    let runs = vec![Run { first: at(2), place: 1, len: 2 }, Run { first: at(4), place: 4, len: 2 }];
    let promised = Position { epoch: epoch - 1, seq: 2 };
    let renumber = Change::Renumber { lane: LANE, runs: runs.clone(), resolved_below: 1, promised };
    lane.journal.change(renumber).await.unwrap();
    lane.next = at(6);
    lane.recovered.promised = promised;
    lane.append(&["7"]).await.unwrap();
    lane.close().await;
    for _ in 0..2 {
        let lane = Lane::open(&folder);
        let expect: Vec<_> = [(2, "2"), (3, "3"), (4, "5"), (5, "6"), (6, "7")]
            .map(|(seq, text)| (at(seq), text.into()))
            .into();
        assert_eq!(lane.found().await, expect);
        assert_eq!(lane.recovered.promised, promised);
        assert!(lane.identity.epoch > epoch);
        lane.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_counts_the_same_after_a_restart_and_over_several_files() {
    let folder = TempDir::new().unwrap();
    let mut lane = Lane::open_with(&folder, 4000);
    let text = "x".repeat(1000);
    for round in 0..3 {
        assert!(lane.journal.takes_jobs(), "round {round}");
        lane.append(&[&text]).await.unwrap();
        lane.breaks(SYNC_FAILS);
        lane.append(&[&text]).await.unwrap_err();
        lane.breaks(HEALTHY);
        lane.comes_back().await;
    }
    lane.append(&[&text]).await.unwrap();
    assert!(!lane.journal.takes_jobs());
    let bytes = lane.journal.usage().bytes();
    lane.close().await;
    let lane = Lane::open_with(&folder, 4000);
    assert_eq!((lane.journal.usage().jobs(), lane.journal.usage().bytes()), (4, bytes));
    assert!(!lane.journal.takes_jobs());
    lane.forget(lane.place).await.unwrap();
    assert!(lane.journal.takes_jobs());
    assert_eq!(lane.journal.usage().bytes(), 0);
    lane.close().await;
}

/// A journal of two files: batches that were resolved, refused and taken, and numbers that were given anew.
async fn rich(folder: &TempDir) -> Vec<(Position, String)> {
    let mut lane = Lane::open(folder);
    let text = |number: usize| format!("{number} {}", "x".repeat(number * 37 % 700));
    for number in 0..20 {
        lane.append(&[&text(number)]).await.unwrap();
    }
    lane.forget(5).await.unwrap();
    lane.breaks(SYNC_FAILS);
    lane.append(&["refused"]).await.unwrap_err();
    lane.breaks(HEALTHY);
    lane.comes_back().await;
    for number in 21..40 {
        lane.append(&[&text(number)]).await.unwrap();
    }
    let epoch = lane.journal.change(Change::NextEpoch).await.unwrap();
    let at = |seq| Position { epoch, seq };
    let runs = vec![Run { first: at(2), place: 8, len: 12 }, Run { first: at(14), place: 21, len: 19 }];
    let promised = Position { epoch: epoch - 1, seq: 9 };
    lane.journal.change(Change::Renumber { lane: LANE, runs, resolved_below: 8, promised }).await.unwrap();
    lane.next = at(33);
    for number in 40..60 {
        lane.append(&[&text(number)]).await.unwrap();
    }
    lane.close().await;
    let lane = Lane::open(folder);
    let found = lane.found().await;
    assert_eq!(found.len(), 12 + 19 + 20);
    lane.close().await;
    found
}

/// What is left of damaged files, held against what was there: whole and under its number, or counted as lost.
struct Tally {
    kept: usize,
    lost: usize,
    /// Of these the journal doesn't tell.
    untold: u64,
    /// Resolved ones that came again, whose numbers the server knows.
    resolved: usize,
}

async fn check(folder: &TempDir, expect: &[(Position, String)], is_first: bool, what: &str) -> Tally {
    let lane = Lane::open(folder);
    let found = lane.found().await;
    let usage = Arc::clone(lane.journal.usage());
    assert!(found.is_sorted(), "{what}: numbers grow");
    let mut lost = 0;
    for (position, text) in expect {
        lost += usize::from(!found.contains(&(*position, text.clone())));
    }
    // Resolved batches may come again, if both copies of the notes are gone; the server knows their numbers.
    let unknown = found.iter().filter(|entry| !expect.contains(entry) && !entry.1.is_empty());
    let mut resolved = 0;
    for (position, text) in unknown {
        resolved += 1;
        assert!(*position < expect[0].0, "{what}: {position:?} is {text:?}");
    }
    let is_told = usage.lost_batches() >= lost as u64 || lane.journal.files.loss().is_end_unknown;
    assert!(is_told || !is_first, "{what}: {lost} are lost, {} are told", usage.lost_batches());
    let untold = (lost as u64).saturating_sub(usage.lost_batches());
    lane.close().await;
    Tally { kept: expect.len() - lost, lost, untold, resolved }
}

fn copy(from: &Path, to: &Path) {
    for name in files(from) {
        std::fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_damaged_the_journal_opens_and_keeps_or_counts_every_batch() {
    let began = std::time::Instant::now();
    let original = TempDir::new().unwrap();
    let expect = rich(&original).await;
    let (mut random, rounds) = (Random::from_environment(), rounds(120));
    let (mut kept, mut lost, mut untold, mut resolved, mut damaged_files) = (0, 0, 0, 0, 0);
    for round in 0..rounds {
        let folder = TempDir::new().unwrap();
        copy(original.path(), folder.path());
        let names: Vec<_> = files(folder.path()).into_iter().filter(|name| name.ends_with("redb")).collect();
        let path = folder.path().join(random.pick(&names));
        let mut bytes = std::fs::read(&path).unwrap();
        let used: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        let at = *random.pick(&used);
        let what = match round % 6 {
            0..4 => {
                bytes[at] ^= 1 << random.below(8);
                format!("a flipped bit at {at} of {}", path.display())
            }
            4 => {
                let page = at / 4096 * 4096;
                let end = bytes.len().min(page + 4096);
                bytes[page..end].fill(0);
                format!("zeros in page {page} of {}", path.display())
            }
            _ => {
                bytes.truncate(at);
                format!("{} cut off at {at}", path.display())
            }
        };
        std::fs::write(&path, bytes).unwrap();
        let tally = check(&folder, &expect, true, &what).await;
        if round % 6 < 4 {
            assert!(tally.lost <= 1, "{what}: {} batches are lost of one bit", tally.lost);
        }
        kept += tally.kept;
        lost += tally.lost;
        untold += tally.untold;
        resolved += tally.resolved;
        damaged_files += files(folder.path()).iter().filter(|name| name.contains("damaged")).count();
        // Once more, from what was salvaged.
        let again = check(&folder, &expect, false, &format!("{what}, the second time")).await;
        assert_eq!(again.kept, tally.kept, "{what}");
    }
    let evidence = serde_json::json!({
        "fault": "damage", "mode": "journal", "seed": random.seed, "rounds": rounds,
        "attempts": (expect.len() as u64 + 1) * rounds, "accepted": kept + lost, "refused": rounds, "lost": untold,
        "damaged_files": damaged_files, "kept": kept, "missing": lost,
        "resolved_again": resolved, "seconds": began.elapsed().as_secs(),
    });
    println!("evidence {evidence}");
    assert!(damaged_files > 0, "no damage was noticed");
}
