//! What the embedded queue holds: its files, the last number, and the position up to which everything is handled.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tracing::{error, info, warn};

use super::log::Log;
use super::marks::Marks;
use super::position::PositionFile;
use super::salvage::salvage;
use crate::queue::files::{Files, Folder, Moment, OpenDisk, OpenError};
use crate::queue::{AcknowledgeError, Backlog, PAGE_LIMIT_BYTES, Page, ReadError};

/// The files' names begin with it.
const PREFIX: &str = "jobs";

/// Numbers are never used twice. Where a damaged file took its last number with it, this many are passed over: more than
/// any file holds.
const PASSED_OVER: u64 = 1_000_000_000;

/// The files and both ends of what is to be read.
pub(super) struct Store {
    pub(super) files: Files<Log>,
    marks: Mutex<Marks>,
    /// What of the files that were there at the start isn't known yet: the numbers that hold nothing, and the marks.
    unknown: Mutex<BTreeSet<u32>>,
    /// The marks of all jobs up to this one were in their own files at the start.
    marked_through: u64,
    position: Mutex<PositionFile>,
    /// Numbers that hold nothing, by the first: how many. What lies there was refused, because its commit failed.
    voids: RwLock<BTreeMap<u64, u64>>,
    /// Numbers of jobs that were found to be damaged when they were read.
    damaged: Mutex<BTreeSet<u64>>,
    /// Up to here everything was handled. Durable before it is seen here.
    pub(super) acknowledged: watch::Sender<u64>,
    /// The last number that is durable and answered for. What lies behind it isn't shown yet.
    pub(super) last: watch::Sender<u64>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the files and makes the last one active; makes the first one if there is none.
    pub(super) fn open(folder: Arc<Folder>, open: OpenDisk) -> Result<Store, OpenError> {
        let path = folder.path().to_owned();
        let failed = |source| OpenError::Folder { folder: path.clone(), source };
        let (position, acknowledged) = PositionFile::open(&folder).map_err(failed)?;
        let files = Files::find(Arc::clone(&folder), PREFIX, Arc::clone(&open), salvage(acknowledged))?;
        let (generation, active) = match files.open_last()? {
            Some(last) => last,
            None => files.create(|_| Ok(()))?,
        };
        let is_used = active.first_number().is_some();
        files.activate(generation, active);
        // Only a file that was never used leaves it to the older ones what the last number is.
        let all = match files.open_all(Moment::Start) {
            Err(error) if !is_used => return Err(error),
            Err(_) => files.opened(),
            Ok(all) => all,
        };
        let marks = Marks::open(folder, open)?;
        let mut last = acknowledged.max(marks.through());
        let mut voids = BTreeMap::new();
        for (_, file) in &all {
            voids.extend(file.voids());
            last = last.max(file.last_number());
        }
        // Numbers that were refused or passed over are given to nobody.
        last = voids.iter().fold(last, |last, (first, len)| last.max(first + len - 1));
        if files.loss().is_end_unknown
            && let Some((generation, active)) = files.active()
        {
            let passed_over = (last + 1, PASSED_OVER);
            active.note_voids(&[passed_over]).map_err(|error| files.file_error(generation, &error))?;
            voids.extend([passed_over]);
            last += PASSED_OVER;
        }
        let there: BTreeSet<u32> = files.older_generations().into_iter().chain([generation]).collect();
        let store = Store {
            files,
            marked_through: marks.through(),
            marks: Mutex::new(marks),
            unknown: Mutex::new(there),
            position: Mutex::new(position),
            voids: RwLock::new(voids),
            damaged: Mutex::default(),
            acknowledged: watch::Sender::new(acknowledged),
            last: watch::Sender::new(last),
        };
        store.learn(&all)?;
        store.remove_acknowledged();
        let jobs = store.backlog().jobs;
        info!(folder = %path.display(), last, acknowledged, jobs, "embedded queue open");
        Ok(store)
    }

    /// Whether a folder holds such files.
    pub(super) fn is_in(folder: &Arc<Folder>, open: OpenDisk) -> Result<bool, OpenError> {
        Ok(Files::find(Arc::clone(folder), PREFIX, open, salvage(0))?.has_any())
    }

    /// Takes from files that were there at the start the numbers that hold nothing, and the marks that aren't in their own
    /// files yet. Most are open from the start on, and some only when the disk gives them.
    fn learn(&self, files: &[(u32, Arc<Log>)]) -> Result<(), OpenError> {
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        let new: Vec<_> = files.iter().filter(|(generation, _)| unknown.contains(generation)).collect();
        for (_, file) in &new {
            self.voids.write().unwrap_or_else(PoisonError::into_inner).extend(file.voids());
        }
        for (generation, file) in new {
            if file.marks_until() > now() {
                let mut marks = self.marks();
                let found = file.marks(self.marked_through, |number, until, content| {
                    if !self.is_void(number) {
                        marks.add_record(number, until, content);
                        marks.flush_if_many(now());
                    }
                });
                found.map_err(|error| self.files.file_error(*generation, &error))?;
            }
            unknown.remove(generation);
        }
        Ok(())
    }

    /// All files, oldest first.
    fn open_all(&self) -> Result<Vec<(u32, Arc<Log>)>, OpenError> {
        let files = self.files.open_all(Moment::Running)?;
        self.learn(&files)?;
        Ok(files)
    }

    pub(super) fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A page of jobs behind a position, or behind the acknowledged one if that is further.
    pub(super) fn page(&self, after: u64, limit: usize) -> Result<Page, ReadError> {
        let unavailable = |error: &dyn fmt::Display| ReadError::Unavailable(error.to_string());
        let last = *self.last.borrow();
        let after = after.max(*self.acknowledged.borrow());
        let files = self.open_all().map_err(|error| unavailable(&error))?;
        let mut page = Page { entries: Vec::new(), last: after.to_string() };
        let mut bytes = 0;
        for (generation, file) in files {
            if page.entries.len() >= limit || bytes >= PAGE_LIMIT_BYTES {
                break;
            }
            let numbers = after.saturating_add(1)..=last;
            let is_void = |number| self.is_void(number);
            let damaged = file
                .add_jobs(numbers, is_void, limit, &mut bytes, &mut page)
                .map_err(|error| unavailable(&self.files.file_error(generation, &error)))?;
            self.note_damaged(&damaged);
        }
        if let Some(entry) = page.entries.last() {
            page.last.clone_from(&entry.position);
        }
        Ok(page)
    }

    /// What lies at these numbers in the files so far counts for nothing. A new file's note makes that durable.
    pub(super) fn add_void(&self, first: u64, len: u64) {
        self.voids.write().unwrap_or_else(PoisonError::into_inner).insert(first, len);
    }

    fn is_void(&self, number: u64) -> bool {
        let voids = self.voids.read().unwrap_or_else(PoisonError::into_inner);
        voids.range(..=number).next_back().is_some_and(|(first, len)| number - first < *len)
    }

    fn note_damaged(&self, numbers: &[u64]) {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        for number in numbers {
            if damaged.insert(*number) {
                error!(number, "a job of the embedded queue is damaged and can't be delivered");
            }
        }
    }

    /// Makes a position durable as handled, and removes the files that only hold what is. Returns the position that
    /// counts now. Blocks for an fsync.
    pub(super) fn acknowledge(&self, position: u64) -> Result<u64, AcknowledgeError> {
        if position > *self.last.borrow() {
            return Err(AcknowledgeError::BeyondEnd(position.to_string()));
        }
        let mut file = self.position.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *self.acknowledged.borrow();
        if position <= before {
            return Ok(before);
        }
        file.write(position).map_err(|error| AcknowledgeError::Unavailable(error.to_string()))?;
        self.acknowledged.send_replace(position);
        self.remove_acknowledged();
        Ok(position)
    }

    /// Removes older files in which everything is acknowledged, if the active one has taken over the numbers. While no new file
    /// can be made, because the disk is full, there is no active one, and older files are what makes room; the
    /// position remembers the numbers as well. What can't be removed now is tried again with the next acknowledgement.
    pub(super) fn remove_acknowledged(&self) {
        let acknowledged = *self.acknowledged.borrow();
        // No file need be opened for that.
        if acknowledged == 0 {
            return;
        }
        let candidates = self.files.older_generations();
        if self.files.active().is_some_and(|(_, file)| file.first_number().is_none()) {
            return;
        }
        // One that can't be opened doesn't keep the others. The writer may have gone over to a newer file meanwhile,
        // which is still empty and must not pass for one in which everything is acknowledged.
        let files = self.open_all().unwrap_or_else(|_| self.files.opened());
        for (generation, file) in files {
            let last = file.last_number_but(|number| self.is_void(number));
            let is_unknown =
                || self.unknown.lock().unwrap_or_else(PoisonError::into_inner).contains(&generation);
            if !candidates.contains(&generation) || last > acknowledged || is_unknown() {
                continue;
            }
            // Its notes of what was refused speak of older files.
            let has_older = || self.files.older_generations().iter().any(|older| *older < generation);
            if !file.voids().is_empty() && has_older() {
                continue;
            }
            // Marks of deliveries that may still be repeated go to their own files first.
            if file.marks_until() > now() && !self.marks().flush(now()) {
                continue;
            }
            match self.files.remove(generation) {
                Ok(()) => info!(generation, "a file of the queue was removed; all of it is acknowledged"),
                Err(error) => warn!(%error, generation, "an acknowledged file can't be removed"),
            }
        }
    }

    /// What isn't acknowledged, in the files that are open.
    pub(super) fn backlog(&self) -> Backlog {
        let acknowledged = *self.acknowledged.borrow();
        let damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
        let lost_jobs = self.files.loss().lost_at_most + damaged;
        let mut backlog =
            Backlog { damaged_files: self.files.set_aside_count(), lost_jobs, ..Backlog::default() };
        for (_, file) in self.files.opened() {
            // A file that can't be read now counts again when it can.
            let Ok(rest) = file.rest(acknowledged) else { continue };
            backlog.jobs += rest.total.jobs;
            backlog.bytes += rest.total.bytes;
            let age = rest.since.map(|since| now().saturating_sub(since)).map(Duration::from_millis);
            backlog.age = backlog.age.max(age.unwrap_or_default());
        }
        backlog
    }
}

/// Unix milliseconds.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
