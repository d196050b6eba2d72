//! Files in one folder, in generations: `<prefix>-000001.redb`, `<prefix>-000002.redb`, … (or `.log`). The last one is
//! written, the older ones are read until they are removed as a whole. What lies in them is their user's business.
//!
//! The rules that keep a crash, a failed fsync and a full disk harmless:
//! - A file gets its name only when it is complete and on disk (`….new` before), so what a crash leaves of one is
//!   never taken for a file.
//! - A file whose commit failed is never written again by this process, because the kernel may have dropped pages that
//!   a later, successful fsync of the same file won't write again. It is opened anew, past the page cache, to be read.
//! - A file that is opened is judged by what the disk holds, and every checksum is checked. What is whole of a
//!   damaged one goes into a new file in its place, record by record ([`super::frame`]), and the damaged one is set aside
//!   under another name (`….damaged`), never overwritten and never removed.
//! - Where the last commit isn't whole, the one before it could count. That is right for a commit that failed: its
//!   jobs were refused. Otherwise it is a crash in the middle of a commit, or jobs that were answered 200 and would be gone
//!   without a word; so what is whole of the last commit is kept as that of a damaged file is.

mod folder;
mod opening;
mod room;
mod salvage;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, ReadOnlyTable, ReadTransaction, StorageBackend, TableDefinition, TableError,
    WriteTransaction,
};

pub use self::folder::{Folder, OpenError, drop_cache};
pub use self::opening::Moment;
use self::room::take_room;
pub use self::salvage::{Loss, Salvage, guarded};

/// redb's page cache of one file. Its own default is 1 GiB; as much as a batch is enough, and each file that is open keeps it.
const CACHE_BYTES: usize = 1 << 20;

/// Opens the disk under one file, or makes an empty file. Tests put a disk that fails in its place.
pub type OpenDisk = Arc<dyn Fn(&Path) -> Result<Box<dyn StorageBackend>, DatabaseError> + Send + Sync>;

/// What becomes of a last commit that isn't whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastCommit {
    /// It counts, so the file isn't opened.
    Counts,
    /// The one before counts.
    Failed,
}

/// Opens files on this machine's disk.
pub fn open_on_disk() -> OpenDisk {
    Arc::new(|path| {
        let file = fs::File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Box::new(FileBackend::new(file)?))
    })
}

/// What a file is.
pub trait Generation: Sized + Send + Sync + 'static {
    /// The end of its name.
    const EXTENSION: &'static str;

    /// How many jobs or batches are lost with a commit, at the most, as far as that isn't counted elsewhere.
    const COMMIT_LIMIT: u64;

    /// Opens a file and checks all of it; makes an empty one on a disk that is empty.
    ///
    /// # Errors
    /// `RepairAborted` if the last commit isn't whole, and counts; otherwise what the disk said, or what is wrong with the
    /// content.
    fn open(disk: Box<dyn StorageBackend>, last_commit: LastCommit) -> Result<Self, DatabaseError>;
}

impl Generation for Database {
    const EXTENSION: &'static str = "redb";
    // The journal's notes say what is missing, and a mark is no job.
    const COMMIT_LIMIT: u64 = 0;

    fn open(disk: Box<dyn StorageBackend>, last_commit: LastCommit) -> Result<Database, DatabaseError> {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
        if last_commit == LastCommit::Counts {
            builder.set_repair_callback(|repair| {
                // redb reports 0, then 0.3 only if the last commit isn't whole and it is about to go back to the one
                // before, then 0.6 and 0.9.
                if (0.1..0.5).contains(&repair.progress()) {
                    repair.abort();
                }
            });
        }
        builder.create_with_backend(Disk(disk))
    }
}

/// A disk whose type redb needn't know.
#[derive(Debug)]
struct Disk(Box<dyn StorageBackend>);

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}

/// The generations of one prefix in a folder.
pub struct Files<F> {
    prefix: &'static str,
    open: OpenDisk,
    salvage: Salvage<F>,
    state: RwLock<State<F>>,
    /// Held while older files are opened: a repair may take long, and happens outside the state's lock.
    opening: Mutex<()>,
    /// Last, so that the files are closed before the lock is given up.
    folder: Arc<Folder>,
}

struct State<F> {
    /// Oldest first; None for one that isn't open.
    older: Vec<(u32, Option<Arc<F>>)>,
    /// None while a new file can't be made.
    active: Option<(u32, Arc<F>)>,
    /// The highest generation whose name was ever seen, so that none is given twice.
    highest: u32,
    /// Those whose last commit failed.
    failed: BTreeSet<u32>,
    /// Damaged files since the start.
    set_aside: u32,
    /// What they lost.
    loss: Loss,
}

/// A file that is made and not yet part of the folder's.
#[derive(Debug)]
pub struct Unfinished<F> {
    path: PathBuf,
    /// The number that it will have.
    pub generation: u32,
    /// The file.
    pub file: Arc<F>,
}

// Derived, it would ask that F can be cloned.
impl<F> Clone for State<F> {
    fn clone(&self) -> State<F> {
        State { older: self.older.clone(), active: self.active.clone(), failed: self.failed.clone(), ..*self }
    }
}

impl<F> State<F> {
    fn opened(self) -> Vec<(u32, Arc<F>)> {
        let older = self.older.into_iter().filter_map(|(generation, file)| Some((generation, file?)));
        older.chain(self.active).collect()
    }
}

impl<F> fmt::Debug for Files<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folder = self.folder.path();
        f.debug_struct("Files").field("prefix", &self.prefix).field("folder", &folder).finish_non_exhaustive()
    }
}

impl<F: Generation> Files<F> {
    /// Finds the generations in the folder. None of them is open or active yet.
    ///
    /// # Errors
    /// The folder can't be read.
    pub fn find(
        folder: Arc<Folder>,
        prefix: &'static str,
        open: OpenDisk,
        salvage: Salvage<F>,
    ) -> Result<Files<F>, OpenError> {
        let names = || fs::read_dir(folder.path())?.map(|entry| Ok(entry?.file_name())).collect();
        let names: io::Result<Vec<std::ffi::OsString>> = names();
        let names = names.map_err(|source| OpenError::Folder { folder: folder.path().to_owned(), source })?;
        let with_suffix = |suffix: &str| -> Vec<u32> {
            let digits = names.iter().filter_map(|name| {
                name.to_str()?.strip_prefix(prefix)?.strip_prefix('-')?.strip_suffix(suffix)
            });
            digits.filter_map(|digits| digits.parse().ok()).collect()
        };
        let mut generations = with_suffix(&format!(".{}", F::EXTENSION));
        generations.sort_unstable();
        // What was made ahead isn't used any more, and its room is needed where a disk is full.
        for generation in with_suffix(&format!(".{}.new", F::EXTENSION)) {
            let name = format!("{prefix}-{generation:06}.{}.new", F::EXTENSION);
            let _ = fs::remove_file(folder.path().join(name));
        }
        let highest = with_suffix(&format!(".{}.damaged", F::EXTENSION))
            .into_iter()
            .chain(generations.iter().copied())
            .max();
        let older = generations.into_iter().map(|generation| (generation, None)).collect();
        let highest = highest.unwrap_or(0);
        let (failed, loss) = (BTreeSet::new(), Loss::default());
        let state = State { older, active: None, highest, failed, set_aside: 0, loss };
        let state = RwLock::new(state);
        Ok(Files { prefix, open, salvage, state, opening: Mutex::new(()), folder })
    }

    /// The folder.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Whether there is any generation.
    pub fn has_any(&self) -> bool {
        let state = self.state();
        state.active.is_some() || !state.older.is_empty()
    }

    /// The file that is written.
    pub fn active(&self) -> Option<(u32, Arc<F>)> {
        // Asked for with each batch: the rest needn't be copied.
        self.state.read().unwrap_or_else(PoisonError::into_inner).active.clone()
    }

    /// Makes the file of the next generation; `prepare` puts into it what it begins with. It isn't active yet.
    ///
    /// # Errors
    /// It can't be made; then there is nothing that could be taken for a file.
    pub fn create(
        &self,
        prepare: impl FnOnce(&F) -> Result<(), redb::Error>,
    ) -> Result<(u32, Arc<F>), OpenError> {
        self.create_ahead(0, prepare)
    }

    /// The same, with so much room written ahead, if the disk has it: what is committed there is synced sooner.
    ///
    /// # Errors
    /// It can't be made; then there is nothing that could be taken for a file.
    pub fn create_ahead(
        &self,
        room_bytes: u64,
        prepare: impl FnOnce(&F) -> Result<(), redb::Error>,
    ) -> Result<(u32, Arc<F>), OpenError> {
        self.finish(self.make_for(self.state().highest + 1, room_bytes, prepare)?)
    }

    /// Makes a file and fills it, for later: room that is taken now is there when the disk is full.
    ///
    /// # Errors
    /// It can't be made.
    pub fn make(
        &self,
        prepare: impl FnOnce(&F) -> Result<(), redb::Error>,
    ) -> Result<Unfinished<F>, OpenError> {
        self.make_for(self.state().highest + 1, 0, prepare)
    }

    fn make_for(
        &self,
        generation: u32,
        room_bytes: u64,
        prepare: impl FnOnce(&F) -> Result<(), redb::Error>,
    ) -> Result<Unfinished<F>, OpenError> {
        let path = self.path(generation).with_added_extension("new");
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::Folder { folder: self.folder.path().to_owned(), source: error });
            }
            _ => {}
        }
        let made = self.open_path(&path, LastCommit::Counts).and_then(|file| {
            guarded(|| prepare(&file)).map_err(|error| self.file_error(generation, &error))?;
            take_room(&path, room_bytes).map_err(|error| self.file_error(generation, &error))?;
            Ok(file)
        });
        match made {
            Ok(file) => Ok(Unfinished { path, generation, file }),
            Err(error) => {
                // Half a file takes room that others need, where the disk is full.
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// Makes a file one of the folder's.
    ///
    /// # Errors
    /// It can't be named; then it is none.
    pub fn finish(&self, unfinished: Unfinished<F>) -> Result<(u32, Arc<F>), OpenError> {
        let Unfinished { path, generation, file } = unfinished;
        let failed = |source| OpenError::Folder { folder: self.folder.path().to_owned(), source };
        fs::rename(&path, self.path(generation)).map_err(failed)?;
        self.update(|state| state.highest = generation);
        self.folder.sync().map_err(failed)?;
        Ok((generation, file))
    }

    /// Has this file written from now on. The one that was active before is read from now on.
    pub fn activate(&self, generation: u32, file: Arc<F>) {
        self.update(|state| {
            state.older.retain(|(other, _)| *other != generation);
            let before = state.active.replace((generation, file));
            state.older.extend(before.map(|(generation, file)| (generation, Some(file))));
        });
    }

    /// Takes the active file out of use after a failed commit; it will be opened anew to be read.
    pub fn retire_active(&self) {
        self.update(|state| {
            let retired = state.active.take().map(|(generation, _)| (generation, None));
            state.failed.extend(retired.iter().map(|(generation, _)| *generation));
            state.older.extend(retired);
        });
    }

    /// The files that are open, oldest first, the active one last.
    pub fn opened(&self) -> Vec<(u32, Arc<F>)> {
        self.state().opened()
    }

    /// The numbers of the files that aren't written any more, open or not.
    pub fn older_generations(&self) -> Vec<u32> {
        self.state().older.iter().map(|(generation, _)| *generation).collect()
    }

    /// How many damaged files were set aside since the start.
    pub fn set_aside_count(&self) -> u32 {
        self.state().set_aside
    }

    /// What damaged files lost since the start.
    pub fn loss(&self) -> Loss {
        self.state().loss
    }

    /// Removes an older file. What still reads it reads on.
    ///
    /// # Errors
    /// It can't be removed; then it is still there to be read.
    pub fn remove(&self, generation: u32) -> Result<(), OpenError> {
        let _not_while_opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |source| OpenError::Folder { folder: self.folder.path().to_owned(), source };
        fs::remove_file(self.path(generation)).map_err(failed)?;
        self.update(|state| state.older.retain(|(other, _)| *other != generation));
        self.folder.sync().map_err(failed)
    }

    /// An error of a generation that is open.
    pub fn file_error(&self, generation: u32, error: &dyn fmt::Display) -> OpenError {
        OpenError::File { path: self.path(generation), message: error.to_string() }
    }

    fn path(&self, generation: u32) -> PathBuf {
        self.folder.path().join(format!("{}-{generation:06}.{}", self.prefix, F::EXTENSION))
    }

    fn state(&self) -> State<F> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn update(&self, change: impl FnOnce(&mut State<F>)) {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Filler that a new file is given and relieved of: it proves that there is so much room, and keeps it.
const SPARE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("spare");

/// Makes the tables of a new file, with spare room; for [`Files::make`]. Each of the two commits is an fsync.
///
/// # Errors
/// The file can't be written.
pub fn prepare_with(
    file: &Database,
    spare_bytes: usize,
    open_tables: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
) -> Result<(), redb::Error> {
    let transaction = file.begin_write()?;
    open_tables(&transaction)?;
    transaction.open_table(SPARE)?.insert("filler", vec![0; spare_bytes].as_slice())?;
    transaction.commit()?;
    let transaction = file.begin_write()?;
    transaction.open_table(SPARE)?.remove("filler")?;
    transaction.commit()?;
    Ok(())
}

/// Opens a table of a file. None if nothing was ever put into it.
///
/// # Errors
/// The file can't be read.
pub fn open_if_there<K: redb::Key + 'static, V: redb::Value + 'static>(
    transaction: &ReadTransaction,
    table: TableDefinition<'_, K, V>,
) -> Result<Option<ReadOnlyTable<K, V>>, redb::Error> {
    match transaction.open_table(table) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
