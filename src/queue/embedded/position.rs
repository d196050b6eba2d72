//! The acknowledged position on disk: the number up to which a reader has handled everything.
//!
//! It lies in a file of its own that never grows, so that an acknowledgement works on a full disk, where it is what
//! makes room. The file has two slots, written in turn and fsynced, so that a crash in the middle of one leaves the
//! other; a slot is the number and its complement, and the larger valid one counts, for positions only grow.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use tracing::error;

use crate::queue::files::{Folder, drop_cache};

const NAME: &str = "acknowledged";

/// Each slot has a page of its own.
const SLOT_BYTES: u64 = 4096;
const SLOTS: u64 = 2;

/// The file.
#[derive(Debug)]
pub(super) struct PositionFile {
    file: fs::File,
    /// The slot that doesn't hold the position.
    next: u64,
}

impl PositionFile {
    /// Opens the file, or makes it; returns the position, 0 at the begin. A damaged file is set aside: what it
    /// acknowledged and is still there will be delivered again.
    pub(super) fn open(folder: &Folder) -> io::Result<(PositionFile, u64)> {
        let path = folder.path().join(NAME);
        if !path.try_exists()? {
            create(folder, &path)?;
        }
        drop_cache(&path)?;
        let mut file = fs::File::options().read(true).write(true).open(&path)?;
        let mut slots =
            (0..SLOTS).map(|slot| Ok((read_slot(&file, slot)?, slot))).collect::<io::Result<Vec<_>>>()?;
        slots.sort_unstable();
        if slots.iter().all(|(position, _)| position.is_none()) {
            let aside = path.with_extension("damaged");
            fs::rename(&path, &aside)?;
            error!(kept_as = %aside.display(), "the acknowledged position is damaged; jobs may be delivered again");
            create(folder, &path)?;
            file = fs::File::options().read(true).write(true).open(&path)?;
        }
        let position = slots.last().and_then(|(position, _)| *position).unwrap_or(0);
        let next = slots.first().map_or(0, |(_, slot)| *slot);
        Ok((PositionFile { file, next }, position))
    }

    /// Makes a position durable. After a failure the one before it still counts, or this one does.
    pub(super) fn write(&mut self, position: u64) -> io::Result<()> {
        self.file.write_all_at(&slot(position), self.next * SLOT_BYTES)?;
        self.file.sync_data()?;
        self.next = (self.next + 1) % SLOTS;
        Ok(())
    }
}

/// Complete and on disk under another name first, as the folder's other files.
fn create(folder: &Folder, path: &Path) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut content = vec![0; usize::try_from(SLOTS * SLOT_BYTES).unwrap_or(0)];
    content[..16].copy_from_slice(&slot(0));
    fs::write(&unfinished, content)?;
    fs::File::open(&unfinished)?.sync_all()?;
    fs::rename(&unfinished, path)?;
    folder.sync()
}

fn slot(position: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&position.to_le_bytes());
    bytes[8..].copy_from_slice(&(!position).to_le_bytes());
    bytes
}

/// None for a slot that was never written, or not to its end.
fn read_slot(file: &fs::File, number: u64) -> io::Result<Option<u64>> {
    let mut bytes = [0; 16];
    match file.read_exact_at(&mut bytes, number * SLOT_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let mut position = [0; 8];
    position.copy_from_slice(&bytes[..8]);
    let position = u64::from_le_bytes(position);
    Ok((bytes == slot(position)).then_some(position))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reopen(folder: &Folder) -> (PositionFile, u64) {
        PositionFile::open(folder).unwrap()
    }

    #[test]
    fn the_last_position_that_was_written_whole_counts() {
        let temporary = tempfile::TempDir::new().unwrap();
        let folder = Folder::open(temporary.path()).unwrap();
        assert_eq!(reopen(&folder).1, 0);
        for position in [1, 5, u64::from(u32::MAX), u64::MAX - 1] {
            let (mut file, before) = reopen(&folder);
            assert!(before < position);
            file.write(position).unwrap();
            assert_eq!(reopen(&folder).1, position);
        }
    }

    #[test]
    fn a_torn_slot_leaves_the_other_one_and_is_written_next() {
        let temporary = tempfile::TempDir::new().unwrap();
        let folder = Folder::open(temporary.path()).unwrap();
        let (mut file, _) = reopen(&folder);
        file.write(7).unwrap();
        let torn = file.next * SLOT_BYTES;
        file.file.write_all_at(&slot(9)[..8], torn).unwrap();
        let (mut file, position) = reopen(&folder);
        assert_eq!((position, file.next * SLOT_BYTES), (7, torn));
        file.write(9).unwrap();
        assert_eq!(reopen(&folder).1, 9);
    }

    #[test]
    fn a_damaged_file_is_set_aside() {
        let temporary = tempfile::TempDir::new().unwrap();
        let folder = Folder::open(temporary.path()).unwrap();
        reopen(&folder).0.write(7).unwrap();
        for damage in [vec![], vec![0xFF; 8192]] {
            fs::write(temporary.path().join(NAME), damage).unwrap();
            assert_eq!(reopen(&folder).1, 0);
            assert!(temporary.path().join("acknowledged.damaged").exists());
        }
        reopen(&folder).0.write(8).unwrap();
        assert_eq!(reopen(&folder).1, 8);
    }
}
