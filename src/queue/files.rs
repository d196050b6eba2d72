//! Redb files in one folder, in generations: `<prefix>-000001.redb`, `<prefix>-000002.redb`, … The last one is written,
//! the older ones are read until they are removed as a whole. What lies in them is their user's business.
//!
//! The rules that keep a crash, a failed fsync and a full disk harmless:
//! - A file gets its name only when it is complete and on disk (`….redb.new` before), so what a crash leaves of one is
//!   never taken for a file.
//! - A file whose commit failed is never written again by this process, because the kernel may have dropped pages that
//!   a later, successful fsync of the same file won't write again. It is opened anew, past the page cache, to be read.
//! - A file that is opened is judged by what the disk holds, and every page's checksum is checked. A damaged one is set
//!   aside under another name (`….redb.damaged`), never overwritten and never removed.
//! - The folder is locked, so that a second process is refused.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use redb::{Database, DatabaseError, StorageError};
use tracing::error;

/// redb's page cache of one file. Its own default is 1 GiB; a queue writes at the end and reads forward, so little is
/// enough, and many files may be open.
const CACHE_BYTES: usize = 4 << 20;

/// The folder's lock. The file stays when the process ends; the lock doesn't.
const LOCK: &str = "lock";

/// A process that is just ending, or a child on its way to `exec`, may hold the lock for a moment longer.
const LOCK_TRIES: usize = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Opens or creates one file. Tests put a disk that fails in its place.
pub type OpenFile = Arc<dyn Fn(&Path) -> Result<Database, DatabaseError> + Send + Sync>;

/// Opens a file on this machine's disk, and checks all of it.
pub fn open_on_disk() -> OpenFile {
    Arc::new(|path| {
        Database::builder().set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).create(path)
    })
}

/// Why a folder or a file of it can't be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the folder.
    #[error(
        "another gateway is using the folder {folder}; stop it, or give this one a folder of its own \
         (RETRIEVE_QUEUE=embedded:./other; with Redis RETRIEVE_DATA_DIR=./other)"
    )]
    InUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder can't be made, locked, read or written.
    #[error("the queue's folder {folder} can't be used: {source}")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file can't be opened or made.
    #[error("the queue's file {path} can't be opened: {message}")]
    File {
        /// The file.
        path: PathBuf,
        /// What redb said.
        message: String,
    },
    /// A file's content isn't what redb wrote.
    #[error("the queue's file {path} is damaged: {message}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What redb said.
        message: String,
    },
}

/// A folder that this process alone uses, as long as this value lives.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: fs::File,
}

impl Folder {
    /// Makes the folder if it is missing, readable by its owner alone (jobs hold what customers ordered), and locks it.
    ///
    /// # Errors
    /// Another process has it, or it can't be made or locked.
    pub fn open(path: &Path) -> Result<Arc<Folder>, OpenError> {
        let failed = |source| OpenError::Folder { folder: path.to_owned(), source };
        create_folder(path).map_err(failed)?;
        let file = fs::File::options().create(true).truncate(false).write(true).open(path.join(LOCK));
        let file = file.map_err(failed)?;
        for _ in 0..LOCK_TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(Arc::new(Folder { path: path.to_owned(), _lock: file })),
                Err(fs::TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
                Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        Err(OpenError::InUse { folder: path.to_owned() })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the names in it durable: a new, renamed or removed file survives a crash only once its folder is on disk.
    ///
    /// # Errors
    /// What the system said.
    pub fn sync(&self) -> io::Result<()> {
        fs::File::open(&self.path)?.sync_all()
    }
}

/// The generations of one prefix in a folder.
pub struct Files {
    prefix: &'static str,
    open: OpenFile,
    state: RwLock<State>,
    /// Held while older files are opened: a repair may take long, and happens outside the state's lock.
    opening: Mutex<()>,
    /// Last, so that the files are closed before the lock is given up.
    folder: Arc<Folder>,
}

#[derive(Clone)]
struct State {
    /// Oldest first; None for one that isn't open.
    older: Vec<(u32, Option<Arc<Database>>)>,
    /// None while a new file can't be made.
    active: Option<(u32, Arc<Database>)>,
    /// The highest generation whose name was ever seen, so that none is given twice.
    highest: u32,
    /// Damaged files since the start.
    set_aside: u32,
}

impl State {
    fn opened(self) -> Vec<(u32, Arc<Database>)> {
        let older = self.older.into_iter().filter_map(|(generation, file)| Some((generation, file?)));
        older.chain(self.active).collect()
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folder = &self.folder.path;
        f.debug_struct("Files").field("prefix", &self.prefix).field("folder", folder).finish_non_exhaustive()
    }
}

impl Files {
    /// Finds the generations in the folder. None of them is open or active yet.
    ///
    /// # Errors
    /// The folder can't be read.
    pub fn find(folder: Arc<Folder>, prefix: &'static str, open: OpenFile) -> Result<Files, OpenError> {
        let names = || fs::read_dir(&folder.path)?.map(|entry| Ok(entry?.file_name())).collect();
        let names: io::Result<Vec<std::ffi::OsString>> = names();
        let names = names.map_err(|source| OpenError::Folder { folder: folder.path.clone(), source })?;
        let with_suffix = |suffix: &str| -> Vec<u32> {
            let digits = names.iter().filter_map(|name| {
                name.to_str()?.strip_prefix(prefix)?.strip_prefix('-')?.strip_suffix(suffix)
            });
            digits.filter_map(|digits| digits.parse().ok()).collect()
        };
        let mut generations = with_suffix(".redb");
        generations.sort_unstable();
        let highest = with_suffix(".redb.damaged").into_iter().chain(generations.iter().copied()).max();
        let older = generations.into_iter().map(|generation| (generation, None)).collect();
        let state = RwLock::new(State { older, active: None, highest: highest.unwrap_or(0), set_aside: 0 });
        Ok(Files { prefix, open, state, opening: Mutex::new(()), folder })
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
    pub fn active(&self) -> Option<(u32, Arc<Database>)> {
        self.state().active
    }

    /// Makes the file of the next generation; `prepare` puts tables into it. It isn't active yet.
    ///
    /// # Errors
    /// It can't be made; then there is nothing that could be taken for a file.
    pub fn create(
        &self,
        prepare: impl FnOnce(&Database) -> Result<(), redb::Error>,
    ) -> Result<(u32, Arc<Database>), OpenError> {
        let generation = self.state().highest + 1;
        let path = self.path(generation);
        let unfinished = path.with_extension("redb.new");
        let failed = |source| OpenError::Folder { folder: self.folder.path.clone(), source };
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let file = self.open_path(&unfinished)?;
        prepare(&file).map_err(|error| self.file_error(generation, &error))?;
        fs::rename(&unfinished, &path).map_err(failed)?;
        self.update(|state| state.highest = generation);
        self.folder.sync().map_err(failed)?;
        Ok((generation, file))
    }

    /// Opens the last generation, to be made active. None if there is none. A damaged one is set aside, and the one
    /// before it is the last.
    ///
    /// # Errors
    /// It can't be opened for another reason than damage.
    pub fn open_last(&self) -> Result<Option<(u32, Arc<Database>)>, OpenError> {
        while let Some((generation, _)) = self.state().older.last() {
            match self.open_existing(*generation) {
                Ok(file) => return Ok(Some((*generation, file))),
                Err(error @ OpenError::Damaged { .. }) => self.set_aside(*generation, &error)?,
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Has this file written from now on. The one that was active before is read from now on.
    pub fn activate(&self, generation: u32, file: Arc<Database>) {
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
            state.older.extend(retired);
        });
    }

    /// All files as they are now, oldest first, the active one last; older ones that aren't open are opened. A damaged
    /// one is set aside and left out.
    ///
    /// # Errors
    /// One can't be opened for another reason than damage. It holds up reading, for jobs come in order, but it never
    /// holds up writing.
    pub fn open_all(&self) -> Result<Vec<(u32, Arc<Database>)>, OpenError> {
        let _one_at_a_time = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let state = self.state();
            let closed = state.older.iter().find(|(_, file)| file.is_none());
            let Some((generation, _)) = closed else { return Ok(state.opened()) };
            match self.open_existing(*generation) {
                Ok(file) => self.update(|state| {
                    let slot = state.older.iter_mut().find(|(other, _)| other == generation);
                    slot.into_iter().for_each(|(_, slot)| *slot = Some(Arc::clone(&file)));
                }),
                Err(error @ OpenError::Damaged { .. }) => self.set_aside(*generation, &error)?,
                Err(error) => {
                    error!(%error, "a file of the queue can't be read");
                    return Err(error);
                }
            }
        }
    }

    /// The files that are open, oldest first, the active one last.
    pub fn opened(&self) -> Vec<(u32, Arc<Database>)> {
        self.state().opened()
    }

    /// How many damaged files were set aside since the start.
    pub fn set_aside_count(&self) -> u32 {
        self.state().set_aside
    }

    /// Gives a damaged file another name, so that it is in nobody's way and nothing of it is lost.
    ///
    /// # Errors
    /// It can't be renamed.
    pub fn set_aside(&self, generation: u32, why: &OpenError) -> Result<(), OpenError> {
        let failed = |source| OpenError::Folder { folder: self.folder.path.clone(), source };
        let path = self.path(generation);
        let aside = path.with_extension("redb.damaged");
        fs::rename(&path, &aside).and_then(|()| self.folder.sync()).map_err(failed)?;
        self.update(|state| {
            state.older.retain(|(other, _)| *other != generation);
            state.set_aside += 1;
        });
        error!(error = %why, kept_as = %aside.display(), "a damaged file was set aside; its jobs aren't delivered");
        Ok(())
    }

    /// Removes an older file. What still reads it reads on.
    ///
    /// # Errors
    /// It can't be removed; then it is still there to be read.
    pub fn remove(&self, generation: u32) -> Result<(), OpenError> {
        let _not_while_opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |source| OpenError::Folder { folder: self.folder.path.clone(), source };
        fs::remove_file(self.path(generation)).map_err(failed)?;
        self.update(|state| state.older.retain(|(other, _)| *other != generation));
        self.folder.sync().map_err(failed)
    }

    /// An error of a generation that is open.
    pub fn file_error(&self, generation: u32, error: &dyn fmt::Display) -> OpenError {
        OpenError::File { path: self.path(generation), message: error.to_string() }
    }

    /// What a crash left in the page cache may not be what the disk holds (a page whose write failed counts as
    /// written), so the cache is dropped and the file is judged by the disk.
    fn open_existing(&self, generation: u32) -> Result<Arc<Database>, OpenError> {
        let path = self.path(generation);
        drop_cache(&path).map_err(|error| self.file_error(generation, &error))?;
        // redb would make a new, empty file of it.
        if fs::metadata(&path).is_ok_and(|file| file.len() == 0) {
            return Err(OpenError::Damaged { path, message: "it is empty".to_owned() });
        }
        self.open_path(&path)
    }

    fn open_path(&self, path: &Path) -> Result<Arc<Database>, OpenError> {
        let (path, message) = match (self.open)(path) {
            Ok(file) => return Ok(Arc::new(file)),
            Err(DatabaseError::DatabaseAlreadyOpen) => {
                return Err(OpenError::InUse { folder: self.folder.path.clone() });
            }
            Err(error) if is_damage(&error) => {
                return Err(OpenError::Damaged { path: path.to_owned(), message: error.to_string() });
            }
            Err(error) => (path.to_owned(), error.to_string()),
        };
        Err(OpenError::File { path, message })
    }

    fn path(&self, generation: u32) -> PathBuf {
        self.folder.path.join(format!("{}-{generation:06}.redb", self.prefix))
    }

    fn state(&self) -> State {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Writes a file's pages to the disk and forgets them, so that it is read from there.
///
/// # Errors
/// What the system said.
pub fn drop_cache(path: &Path) -> io::Result<()> {
    let file = fs::File::open(path)?;
    file.sync_data()?;
    Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?)
}

/// Whether the content is at fault, and not the disk or the system on the way to it.
fn is_damage(error: &DatabaseError) -> bool {
    match error {
        DatabaseError::Storage(StorageError::Corrupted(_)) | DatabaseError::UpgradeRequired(_) => true,
        DatabaseError::Storage(StorageError::Io(error)) => {
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        }
        _ => false,
    }
}

fn create_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}
