//! What a producer and a server tell each other: positions, markers, and what a comparison of them means.

/// A place in a producer's sequence of batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The epoch: it grows with each start, and where the sequence has to begin anew. 0 is before the first.
    pub epoch: u64,
    /// The number in it: 1 is the fence, the batches follow.
    pub seq: u64,
}

/// Before the first batch.
pub const BEGINNING: Position = Position { epoch: 0, seq: 0 };

/// The number of a fence.
pub const FENCE: u64 = 1;

/// Who sends: an epoch, and what tells it from an epoch of the same number that somebody began with a copy of the
/// folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// Its number.
    pub number: u64,
    /// A random number.
    pub nonce: u64,
}

/// What the server keeps for a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The last batch that was appended, or the fence.
    pub position: Position,
    /// The nonce of its epoch.
    pub nonce: u64,
    /// The last batch before this epoch.
    pub prior: Position,
}

impl Marker {
    /// The last batch that was appended: a fence is none.
    pub fn reached(&self) -> Position {
        if self.position.seq == FENCE { self.prior } else { self.position }
    }
}

/// Batches that follow each other in the journal, in numbers as in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first one's position.
    pub first: Position,
    /// The first one's place in the journal.
    pub place: u64,
    /// How many there are.
    pub len: u64,
}

/// The next batch to send.
#[derive(Debug, PartialEq, Eq)]
pub enum ToSend<'a, B> {
    /// This one.
    Batch {
        /// Its number.
        seq: u64,
        /// What is in it.
        body: &'a B,
    },
    /// One that must be read from the journal first, and how many follow it there.
    Fetch {
        /// Its place.
        place: u64,
        /// How many may be read, itself included.
        len: u64,
    },
    /// All unresolved batches are on their way.
    Nothing,
}

/// What a new connection's marker means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Sending goes on behind the marker.
    InStep,
    /// The epoch, or a new one, has to begin with a fence.
    NeedsFence,
    /// Another process writes under this identity, in an epoch that outranks this one.
    Fenced,
}

/// Batches that the server had confirmed, has no longer, and that aren't held here any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// They lie behind this position,
    pub reached: Position,
    /// up to this one.
    pub confirmed: Position,
    /// The server lost its marker and not its jobs: it can't be told whether anything is missing.
    pub is_uncertain: bool,
}

impl Run {
    /// Whether a batch at that position and place continues this run.
    pub fn is_followed_by(&self, position: Position, place: u64) -> bool {
        self.first.epoch == position.epoch
            && self.first.seq + self.len == position.seq
            && self.place + self.len == place
    }
}
