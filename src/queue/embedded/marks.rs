//! What deliveries are known by, so that their repeats are dropped.
//!
//! A mark is durable with its job: it lies in the same record of a [`Log`](super::log::Log). To be found, marks are kept
//! in memory, and from time to time go to redb files of their own, `marks-000001.redb`, …, before the log that has them
//! may be removed. The start takes from the logs what the files don't have yet.
//!
//! | table | key | value |
//! |---|---|---|
//! | `seen` | what repeats of a delivery have in common | a record: the job's id, and until when repeats are dropped (Unix milliseconds) |
//! | `meta` | `until` | when the last of the file's marks ends |
//! | `meta` | `begun` | when the file was begun (Unix milliseconds) |
//! | `meta` | `through` | up to which job the marks are in this file, or an older one |

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use redb::{
    Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction,
};
use tracing::{info, warn};
use uuid::Uuid;

use crate::queue::files::{
    Files, Folder, Loss, Moment, OpenDisk, OpenError, Salvage, guarded, open_if_there,
};
use crate::queue::frame::{self, Frames, Kind};
use crate::queue::lane::Append;

const SEEN: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("seen");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const UNTIL: &str = "until";
const BEGUN: &str = "begun";
const THROUGH: &str = "through";

/// The files' names begin with it.
const PREFIX: &str = "marks";

/// So many go to a file at once: one fsync for all of them.
const FLUSH_COUNT: usize = 1024;

/// While no file can be written, so many are kept in memory. No more deliveries are taken then whose repeats are to be known.
const RECENT_LIMIT: usize = 65_536;

/// A file goes as a whole, when its last mark has ended. So a new one is begun when one has so many marks and is an eighth as
/// old as its marks hold: there are no more than nine that are needed, and each delivery is looked for in all of them.
const FILE_COUNT: u64 = 200_000;
const FILES_IN_WINDOW: u64 = 8;

/// What a delivery is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The first job.
    id: Uuid,
    /// Unix milliseconds.
    pub(super) until: u64,
}

impl Mark {
    /// That of a job which is stored now. None if its repeats aren't dropped.
    pub(super) fn of(append: &Append, now: u64) -> Option<(&str, Mark)> {
        let dedupe = append.dedupe()?;
        let within = u64::try_from(dedupe.within.as_millis()).unwrap_or(u64::MAX);
        Some((&dedupe.key, Mark { id: append.id(), until: now.saturating_add(within) }))
    }

    /// As a record's content.
    pub(super) fn content(self, key: &str) -> Vec<u8> {
        [&self.id.as_u128().to_le_bytes(), key.as_bytes()].concat()
    }
}

/// The key and the mark of a record. None if it is no mark.
fn decode(until: u64, content: &[u8]) -> Option<(&str, Mark)> {
    let (id, key) = content.split_first_chunk()?;
    Some((std::str::from_utf8(key).ok()?, Mark { id: Uuid::from_u128(u128::from_le_bytes(*id)), until }))
}

/// The marks.
pub(super) struct Marks {
    files: Files<Database>,
    /// Those that aren't in a file yet.
    recent: HashMap<String, Mark>,
    /// The last job with a mark that was added.
    through: u64,
    /// With so many in memory they are written.
    next_flush: usize,
}

impl fmt::Debug for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Marks").field("recent", &self.recent.len()).finish_non_exhaustive()
    }
}

impl Marks {
    /// Opens the files, if there are any.
    pub(super) fn open(folder: Arc<Folder>, open: OpenDisk) -> Result<Marks, OpenError> {
        let files = Files::find(folder, PREFIX, open, salvage())?;
        if let Some((generation, file)) = files.open_last()? {
            files.activate(generation, file);
        }
        let mut through = 0;
        for (generation, file) in files.open_all(Moment::Start)? {
            let read =
                guarded(|| number(&file, THROUGH)).map_err(|error| files.file_error(generation, &error))?;
            through = through.max(read);
        }
        // Some of what a damaged file had may be missing.
        if files.set_aside_count() > 0 {
            through = 0;
        }
        Ok(Marks { files, recent: HashMap::new(), through, next_flush: FLUSH_COUNT })
    }

    /// The marks of all jobs up to this one are in the files.
    pub(super) fn through(&self) -> u64 {
        self.through
    }

    /// For each of these the job of the same delivery that was there first, also among them. An error says why that can't be
    /// told.
    pub(super) fn find(
        &mut self,
        marks: &[Option<(&str, Mark)>],
        now: u64,
    ) -> Result<Vec<Option<Uuid>>, String> {
        let mut firsts = vec![None; marks.len()];
        if self.recent.len() >= RECENT_LIMIT && !self.flush(now) {
            return Err("repeats of deliveries can't be noted, because the disk fails".to_owned());
        }
        let unreadable = |error: &dyn fmt::Display| format!("repeats of deliveries can't be told: {error}");
        let files = self.files.open_all(Moment::Running).map_err(|error| unreadable(&error))?;
        let mut new: HashMap<&str, Uuid> = HashMap::new();
        for (first, mark) in firsts.iter_mut().zip(marks) {
            let Some((key, mark)) = mark else { continue };
            let recent = self.recent.get(*key).copied().filter(|mark| mark.until > now);
            *first = match new.get(key).copied().or(recent.map(|mark| mark.id)) {
                None => find_in(&files, key, now).map_err(|error| unreadable(&error))?.map(|mark| mark.id),
                found => found,
            };
            if first.is_none() {
                new.insert(key, mark.id);
            }
        }
        Ok(firsts)
    }

    /// Takes the mark of a job that is on the disk.
    pub(super) fn add(&mut self, number: u64, key: &str, mark: Mark) {
        self.recent.insert(key.to_owned(), mark);
        self.through = self.through.max(number);
    }

    /// Takes the mark of a log's record.
    pub(super) fn add_record(&mut self, number: u64, until: u64, content: &[u8]) {
        if let Some((key, mark)) = decode(until, content) {
            self.add(number, key, mark);
        }
    }

    /// Writes what is in memory to a file, if it is much. After a failure not with every batch again.
    pub(super) fn flush_if_many(&mut self, now: u64) {
        if self.recent.len() >= self.next_flush && !self.flush(now) {
            self.next_flush = self.recent.len() + FLUSH_COUNT;
        }
    }

    /// Writes what is in memory to a file, durably. False if that can't be done now.
    pub(super) fn flush(&mut self, now: u64) -> bool {
        self.recent.retain(|_, mark| mark.until > now);
        if !self.recent.is_empty()
            && let Err(error) = self.try_flush(now)
        {
            warn!(%error, marks = self.recent.len(), "marks of deliveries can't be written to a file now");
            self.files.retire_active();
            return false;
        }
        self.recent.clear();
        self.next_flush = FLUSH_COUNT;
        true
    }

    fn try_flush(&self, now: u64) -> Result<(), String> {
        let file = match self.files.active() {
            Some((_, file)) if guarded(|| has_room(&file, now)).unwrap_or(false) => file,
            _ => self.begin(now).map_err(|error| error.to_string())?,
        };
        guarded(|| {
            let transaction = file.begin_write()?;
            write(
                &transaction,
                self.recent.iter().map(|(key, mark)| (key.as_str(), *mark)),
                self.through,
                now,
            )?;
            Ok(transaction.commit()?)
        })
        .map_err(|error| error.to_string())
    }

    /// Begins a file, and removes those whose marks have ended.
    fn begin(&self, now: u64) -> Result<Arc<Database>, OpenError> {
        let (generation, file) = self.files.create(prepare)?;
        self.files.activate(generation, Arc::clone(&file));
        for (older, file) in self.files.opened() {
            if older != generation && guarded(|| number(&file, UNTIL)).is_ok_and(|until| until <= now) {
                match self.files.remove(older) {
                    Ok(()) => {
                        info!(generation = older, "a file of marks was removed; all of them have ended")
                    }
                    Err(error) => warn!(%error, generation = older, "a file of marks can't be removed"),
                }
            }
        }
        Ok(file)
    }
}

fn prepare(file: &Database) -> Result<(), redb::Error> {
    let transaction = file.begin_write()?;
    transaction.open_table(SEEN)?;
    transaction.open_table(META)?;
    Ok(transaction.commit()?)
}

fn write<'a>(
    transaction: &WriteTransaction,
    marks: impl Iterator<Item = (&'a str, Mark)>,
    through: u64,
    now: u64,
) -> Result<(), redb::Error> {
    let mut seen = transaction.open_table(SEEN)?;
    let mut meta = transaction.open_table(META)?;
    let mut latest = meta.get(UNTIL)?.map_or(0, |until| until.value());
    for (key, mark) in marks {
        let record = frame::encode(Kind::Mark, (mark.until, 0), &mark.content(key));
        seen.insert(key, record.as_slice())?;
        latest = latest.max(mark.until);
    }
    if meta.get(BEGUN)?.is_none() {
        meta.insert(BEGUN, now)?;
    }
    meta.insert(UNTIL, latest)?;
    meta.insert(THROUGH, through)?;
    Ok(())
}

fn find_in(files: &[(u32, Arc<Database>)], key: &str, now: u64) -> Result<Option<Mark>, redb::Error> {
    for (_, file) in files.iter().rev() {
        let found = guarded(|| {
            let Some(seen) = open_if_there(&file.begin_read()?, SEEN)? else { return Ok(None) };
            Ok(seen.get(key)?.and_then(|record| {
                let ((until, _), content) = frame::decode(record.value(), Kind::Mark)?;
                // None if it is that of another delivery.
                decode(until, content).filter(|(of, _)| *of == key).map(|(_, mark)| mark)
            }))
        })?;
        if let Some(mark) = found.filter(|mark| mark.until > now) {
            return Ok(Some(mark));
        }
    }
    Ok(None)
}

fn number(file: &Database, name: &str) -> Result<u64, redb::Error> {
    let Some(meta) = open_if_there(&file.begin_read()?, META)? else { return Ok(0) };
    Ok(meta.get(name)?.map_or(0, |number| number.value()))
}

/// Whether marks may still go to this file.
fn has_room(file: &Database, now: u64) -> Result<bool, redb::Error> {
    let count = open_if_there(&file.begin_read()?, SEEN)?.map_or(Ok(0), |seen| seen.len())?;
    let (begun, until) = (number(file, BEGUN)?, number(file, UNTIL)?);
    let is_old = now.saturating_sub(begun).saturating_mul(FILES_IN_WINDOW) >= until.saturating_sub(begun);
    Ok(count < FILE_COUNT || !is_old)
}

/// Writes the marks that a damaged file still has into a new one. Without the number up to which it had all of them, the
/// logs are asked for theirs.
fn salvage() -> Salvage<Database> {
    Arc::new(|frames: &Frames, _, file| {
        prepare(file)?;
        let mut marks: HashMap<String, Mark> = HashMap::new();
        for found in frames.of(Kind::Mark) {
            let Some(content) = frames.read(found) else { continue };
            let Some((key, mark)) = decode(found.header.numbers.0, &content) else { continue };
            if marks.get(key).is_none_or(|other| other.until < mark.until) {
                marks.insert(key.to_owned(), mark);
            }
        }
        let transaction = file.begin_write()?;
        write(&transaction, marks.iter().map(|(key, mark)| (key.as_str(), *mark)), 0, 0)?;
        transaction.commit()?;
        Ok(Loss { kept: marks.len() as u64, ..Loss::default() })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};

    use tempfile::TempDir;

    use super::*;
    use crate::queue::bad_disk::{HEALTHY, NO_NEW_FILES, on};
    use crate::queue::files::open_on_disk;

    fn mark(number: u64, until: u64) -> Mark {
        Mark { id: Uuid::from_u128(number.into()), until }
    }

    fn open(folder: &TempDir) -> Marks {
        Marks::open(Folder::open(folder.path()).unwrap(), open_on_disk()).unwrap()
    }

    /// Which of these are repeats, and of which job.
    fn find(marks: &mut Marks, keys: &[&str], now: u64) -> Vec<Option<u128>> {
        let asked: Vec<_> = keys.iter().map(|key| Some((*key, mark(999, u64::MAX)))).collect();
        marks.find(&asked, now).unwrap().into_iter().map(|first| first.map(|id| id.as_u128())).collect()
    }

    fn names(folder: &TempDir) -> Vec<String> {
        let names = std::fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> = names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name.starts_with("marks"));
        names.sort();
        names
    }

    #[test]
    fn repeats_are_found_in_memory_in_files_and_among_those_that_come_together_until_they_end() {
        let folder = TempDir::new().unwrap();
        let mut marks = open(&folder);
        assert_eq!(find(&mut marks, &["a", "b", "a"], 5), [None, None, Some(999)], "the second of two");
        marks.add(1, "a", mark(1, 10));
        assert!(marks.flush(5));
        marks.add(2, "b", mark(2, 20));
        assert_eq!(find(&mut marks, &["a", "b", "c"], 5), [Some(1), Some(2), None]);
        assert_eq!(find(&mut marks, &["a", "b", "c"], 10), [None, Some(2), None], "the first one has ended");
        marks.add(3, "a", mark(3, 30));
        assert!(marks.flush(10));
        assert_eq!(find(&mut marks, &["a", "b"], 10), [Some(3), Some(2)]);
        drop(marks);
        let mut marks = open(&folder);
        assert_eq!((find(&mut marks, &["a", "b"], 10), marks.through()), (vec![Some(3), Some(2)], 3));
        assert_eq!(marks.find(&[None, None], 10).unwrap(), [None, None]);
    }

    #[test]
    fn much_is_written_whatever_comes_at_once() {
        let folder = TempDir::new().unwrap();
        let mut marks = open(&folder);
        for number in 0..10_000 {
            marks.add(number, &number.to_string(), mark(number, 10));
            if number % 7 == 0 {
                marks.flush_if_many(5);
            }
            assert!(marks.recent.len() < FLUSH_COUNT + 7);
        }
        assert_eq!(names(&folder), ["marks-000001.redb"]);
    }

    #[test]
    fn what_has_ended_is_not_written_and_goes_with_its_file() {
        let folder = TempDir::new().unwrap();
        let mut marks = open(&folder);
        marks.add(1, "a", mark(1, 10));
        assert!(marks.flush(10));
        assert_eq!(names(&folder), Vec::<String>::new(), "there was nothing to write");
        marks.add(2, "b", mark(2, 20));
        assert!(marks.flush(15));
        marks.begin(19).unwrap();
        assert_eq!(names(&folder), ["marks-000001.redb", "marks-000002.redb"]);
        marks.begin(20).unwrap();
        assert_eq!(names(&folder), ["marks-000003.redb"], "the second one is empty");
    }

    #[test]
    fn while_no_file_can_be_written_marks_are_found_in_memory_and_written_later() {
        let folder = TempDir::new().unwrap();
        let fault = Arc::new(AtomicU8::new(NO_NEW_FILES));
        let mut marks =
            Marks::open(Folder::open(folder.path()).unwrap(), on(&fault, open_on_disk())).unwrap();
        for number in 0..RECENT_LIMIT as u64 {
            marks.add(number, &number.to_string(), mark(number, 10));
            // Batches have any number of them.
            if number % 7 == 0 {
                marks.flush_if_many(5);
            }
        }
        assert_eq!(names(&folder), Vec::<String>::new());
        assert!(marks.find(&[Some(("new", mark(1, 10)))], 5).unwrap_err().contains("the disk fails"));
        fault.store(HEALTHY, Ordering::SeqCst);
        assert_eq!(find(&mut marks, &["0", "65535", "new"], 5), [Some(0), Some(65535), None]);
    }

    #[test]
    fn a_damaged_file_gives_what_is_whole_of_it_and_asks_the_logs_for_the_rest() {
        let folder = TempDir::new().unwrap();
        let mut marks = open(&folder);
        for number in 1..=100 {
            marks.add(number, &format!("key {number}"), mark(number, 10));
        }
        assert!(marks.flush(5));
        drop(marks);
        let path = folder.path().join("marks-000001.redb");
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(6).position(|bytes| bytes == b"key 50").unwrap();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let mut marks = open(&folder);
        assert_eq!(marks.through(), 0, "all logs are asked");
        let found =
            (1..=100).filter(|number| find(&mut marks, &[&format!("key {number}")], 5) == [Some(*number)]);
        assert!(found.count() >= 99);
        assert_eq!(names(&folder), ["marks-000001.redb", "marks-000001.redb.damaged"]);
    }
}
