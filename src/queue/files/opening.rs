//! How files are opened: what the disk holds is judged, and what is damaged is replaced by what is whole of it.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use redb::{DatabaseError, StorageError};
use tracing::{error, info, warn};

use super::{Files, Generation, LastCommit, Loss, OpenError, drop_cache, salvage};
use crate::queue::frame::Frames;

/// When a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// At the start, what the disk doesn't give counts as damage: nothing else would get the gateway going.
    Start,
    /// Later it is waited for.
    Running,
}

impl<F: Generation> Files<F> {
    /// Opens the last generation, to be made active. None if there is none. A damaged one is replaced by what is whole of
    /// it; where that is nothing, the one before it is the last.
    ///
    /// # Errors
    /// It can't be opened for another reason than damage.
    pub fn open_last(&self) -> Result<Option<(u32, Arc<F>)>, OpenError> {
        while let Some((generation, _)) = self.state().older.last() {
            if let Some(file) = self.open_or_salvage(*generation, Moment::Start)? {
                return Ok(Some((*generation, file)));
            }
        }
        Ok(None)
    }

    /// All files as they are now, oldest first, the active one last; older ones that aren't open are opened. A damaged
    /// one is replaced by what is whole of it.
    ///
    /// # Errors
    /// One can't be opened for another reason than damage. It holds up reading, for jobs come in order, but it never
    /// holds up writing.
    pub fn open_all(&self, moment: Moment) -> Result<Vec<(u32, Arc<F>)>, OpenError> {
        let _one_at_a_time = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let state = self.state();
            let closed = state.older.iter().rev().find(|(_, file)| file.is_none());
            let Some((generation, _)) = closed else { return Ok(state.opened()) };
            match self.open_or_salvage(*generation, moment) {
                Ok(None) => {}
                Ok(Some(file)) => self.update(|state| {
                    let slot = state.older.iter_mut().find(|(other, _)| other == generation);
                    slot.into_iter().for_each(|(_, slot)| *slot = Some(Arc::clone(&file)));
                }),
                Err(error) => {
                    error!(%error, "a file of the queue can't be read");
                    return Err(error);
                }
            }
        }
    }

    /// Opens a file, or what is whole of it. None if that is nothing.
    fn open_or_salvage(&self, generation: u32, moment: Moment) -> Result<Option<Arc<F>>, OpenError> {
        let has_failed = self.state().failed.contains(&generation);
        let last_commit = if has_failed { LastCommit::Failed } else { LastCommit::Counts };
        let why = match self.open_existing(generation, last_commit) {
            Ok(file) => return Ok(Some(file)),
            Err(error @ (OpenError::Damaged { .. } | OpenError::CutOff { .. })) => error,
            Err(error @ OpenError::Disk { .. }) if moment == Moment::Start => error,
            Err(error) => return Err(error),
        };
        warn!(error = %why, "reading what is whole of a file");
        match self.salvage(generation, &why) {
            // A commit that is cut off, on a full disk: that is what ended it.
            Err(error) if matches!(why, OpenError::CutOff { .. }) && moment == Moment::Start => {
                error!(%error, "there is no room for what is whole of a cut-off commit; it is taken back");
                self.update(|state| {
                    state.set_aside += 1;
                    state.loss.lost_at_most += F::COMMIT_LIMIT;
                });
                self.open_existing(generation, LastCommit::Failed).map(Some)
            }
            result => result,
        }
    }

    fn salvage(&self, generation: u32, why: &OpenError) -> Result<Option<Arc<F>>, OpenError> {
        let path = self.path(generation);
        let frames = Frames::find(&path).map_err(|error| self.file_error(generation, &error))?;
        if frames.whole.is_empty() && matches!(why, OpenError::Disk { .. }) {
            return Err(self.file_error(generation, why));
        }
        let failed = |source| OpenError::Folder { folder: self.folder.path().to_owned(), source };
        let aside = unused_name(&path.with_added_extension("damaged")).map_err(failed)?;
        let newer = self.state().opened().into_iter().filter(|(other, _)| *other > generation);
        let newer: Vec<_> = newer.map(|(_, file)| file).collect();
        let mut loss = Loss::default();
        let made = self.make_for(generation, 0, |file| {
            loss = (self.salvage)(&frames, &newer, file)?;
            Ok(())
        })?;
        let file = (loss.kept > 0 || frames.has_notes()).then_some(made.file);
        if file.is_some() {
            salvage::replace(&path, &aside, &made.path).map_err(failed)?;
        } else {
            fs::rename(&path, &aside).and_then(|()| fs::remove_file(&made.path)).map_err(failed)?;
        }
        self.folder.sync().map_err(failed)?;
        let is_whole = loss.lost_at_most == 0 && !loss.has_gaps && frames.damaged.is_empty();
        if matches!(why, OpenError::CutOff { .. }) && is_whole && file.is_some() {
            fs::remove_file(&aside).map_err(failed)?;
            info!(file = %path.display(), kept = loss.kept, "a commit was cut off; nothing is missing");
            return Ok(file);
        }
        self.update(|state| {
            if file.is_none() {
                state.older.retain(|(other, _)| *other != generation);
            }
            state.set_aside += 1;
            state.loss.kept += loss.kept;
            state.loss.lost_at_most += loss.lost_at_most;
            state.loss.is_end_unknown |= loss.is_end_unknown;
        });
        error!(
            error = %why,
            kept_as = %aside.display(),
            kept = loss.kept,
            lost_at_most = loss.lost_at_most,
            is_end_unknown = loss.is_end_unknown,
            unreadable_bytes = frames.unreadable_bytes,
            "a file of the queue is damaged: what is whole of it is used, the damaged file was set aside"
        );
        Ok(file)
    }

    /// What a crash left in the page cache may not be what the disk holds (a page whose write failed counts as
    /// written), so the cache is dropped and the file is judged by the disk.
    fn open_existing(&self, generation: u32, last_commit: LastCommit) -> Result<Arc<F>, OpenError> {
        let path = self.path(generation);
        drop_cache(&path).map_err(|error| self.file_error(generation, &error))?;
        // redb would make a new, empty file of it.
        if fs::metadata(&path).is_ok_and(|file| file.len() == 0) {
            return Err(OpenError::Damaged { path, message: "it is empty".to_owned() });
        }
        self.open_path(&path, last_commit)
    }

    pub(super) fn open_path(&self, path: &Path, last_commit: LastCommit) -> Result<Arc<F>, OpenError> {
        let open = || F::open((self.open)(path)?, last_commit);
        let opened = catch_unwind(AssertUnwindSafe(open));
        let path = path.to_owned();
        match opened {
            Ok(Ok(file)) => Ok(Arc::new(file)),
            Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => {
                Err(OpenError::InUse { folder: self.folder.path().to_owned() })
            }
            Ok(Err(DatabaseError::RepairAborted)) => Err(OpenError::CutOff { path }),
            Ok(Err(error)) if is_damage(&error) => {
                Err(OpenError::Damaged { path, message: error.to_string() })
            }
            Ok(Err(error)) if is_of_the_disk(&error) => {
                Err(OpenError::Disk { path, message: error.to_string() })
            }
            Ok(Err(error)) => Err(OpenError::File { path, message: error.to_string() }),
            // redb stumbled over what it found.
            Err(panic) => Err(OpenError::Damaged { path, message: salvage::words_of(panic.as_ref()) }),
        }
    }
}

/// That name, or with a number behind it: a file may be damaged once more.
fn unused_name(path: &Path) -> io::Result<PathBuf> {
    let mut name = path.to_owned();
    let mut number = 1;
    while name.try_exists()? {
        number += 1;
        name = path.with_extension(format!("damaged-{number}"));
    }
    Ok(name)
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

/// Whether the disk fails.
fn is_of_the_disk(error: &DatabaseError) -> bool {
    const EIO: i32 = 5;
    matches!(error, DatabaseError::Storage(StorageError::Io(error)) if error.raw_os_error() == Some(EIO))
}
