//! Room that is written ahead.
//!
//! A write to blocks that were never written changes what the file system notes of the file, so the fsync behind it writes
//! that as well, one piece behind the other: on ext4 it takes twice as long, and twice the time of the processor, as one
//! of blocks that were written before. So a file that is made ahead is filled with zeros behind what is in it.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, OFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;

/// So much is written at once: the fsync of a batch that comes meanwhile waits for no more.
const FILL_BYTES: usize = 256 << 10;

/// Where a piece lies in memory, so that the disk can read it from there.
const ALIGNMENT: usize = 4096;

/// Has the disk keep room for all of a file's length: there may be holes in it, which a full disk wouldn't fill. Where
/// `room_bytes` are more than that and the disk has them, the file gets as long and zeros are written wherever nothing was;
/// without them it is slower and nothing else. Nobody may write to the file meanwhile.
///
/// # Errors
/// The disk is full, or fails.
pub fn take_room(path: &Path, room_bytes: u64) -> io::Result<()> {
    let file = fs::File::options().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    if room_bytes > length {
        match allocate(&file, room_bytes) {
            Ok(()) => return fill_holes(&file, path),
            Err(_) => file.set_len(length)?,
        }
    }
    allocate(&file, length)
}

fn allocate(file: &fs::File, bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        // Not every file system can.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        result => Ok(result?),
    }
}

/// Writes zeros wherever nothing was, past the page cache: that takes half of the processor's time, and each piece waits for
/// the disk alone, not for the file system to note it.
fn fill_holes(file: &fs::File, path: &Path) -> io::Result<()> {
    let flags = OFlags::DIRECT.bits().cast_signed();
    let direct = fs::File::options().write(true).custom_flags(flags).open(path);
    match direct.and_then(|file| fill(&file)) {
        // Not every file system can, and none can for pieces that aren't whole blocks of the disk.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => fill(file),
        result => result,
    }
}

fn fill(file: &fs::File) -> io::Result<()> {
    let room = vec![0; FILL_BYTES + ALIGNMENT];
    let zeros = &room[room.as_ptr().align_offset(ALIGNMENT)..][..FILL_BYTES];
    let mut at = 0;
    while let Some((begin, end)) = next_hole(file, at)? {
        let piece = usize::try_from(end - begin).map_or(FILL_BYTES, |rest| rest.min(FILL_BYTES));
        file.write_all_at(&zeros[..piece], begin)?;
        at = begin + piece as u64;
    }
    file.sync_data()
}

/// Where the next part lies that was never written. None if there is none, or the file system can't tell.
fn next_hole(file: &fs::File, from: u64) -> io::Result<Option<(u64, u64)>> {
    let end = file.metadata()?.len();
    let begin = match seek(file, SeekFrom::Hole(from)) {
        Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => return Ok(None),
        result => result?,
    };
    // A file's end counts as a hole.
    if begin >= end {
        return Ok(None);
    }
    match seek(file, SeekFrom::Data(begin)) {
        Err(Errno::NXIO) => Ok(Some((begin, end))),
        result => Ok(Some((begin, result?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM_BYTES: u64 = 6 << 20;

    /// A file with a hole in it, and its length.
    fn file(path: &Path) -> u64 {
        let file = fs::File::create(path).unwrap();
        file.write_all_at(b"begin", 0).unwrap();
        file.write_all_at(b"end", 1 << 20).unwrap();
        file.metadata().unwrap().len()
    }

    /// Whether the disk has something of its own for each block.
    fn is_written(path: &Path) -> bool {
        next_hole(&fs::File::open(path).unwrap(), 0).unwrap().is_none()
    }

    #[test]
    fn room_is_written_ahead_wherever_nothing_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let length = file(&path);
        let before = fs::read(&path).unwrap();
        assert!(!is_written(&path), "there is a hole");
        take_room(&path, ROOM_BYTES).unwrap();
        assert!(is_written(&path));
        let after = fs::read(&path).unwrap();
        assert_eq!(after.len() as u64, ROOM_BYTES);
        let (same, room) = after.split_at(usize::try_from(length).unwrap());
        assert!(same == before && room.iter().all(|byte| *byte == 0), "what was there is there");
    }

    #[test]
    fn a_file_without_room_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let length = file(&path);
        // No disk has so much.
        take_room(&path, 1 << 50).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), length);
    }
}
