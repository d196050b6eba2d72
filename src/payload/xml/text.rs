//! The strings of a document, as chains of pieces.
//!
//! A piece is a run of the input, so most strings are one piece and nothing is copied. Only what
//! differs from the input (references, line ends) is copied to a list of its own.

use crate::payload::xml::tree::{NONE, to_number};

/// A piece of text and the next one of the same value.
struct Piece<'a> {
    content: Content<'a>,
    next: u32,
}

enum Content<'a> {
    Source(&'a str),
    /// From and to where in the list of copies.
    Copy(u32, u32),
}

/// The text of one element or attribute while it is read.
#[derive(Clone, Copy)]
pub struct Chain {
    pub first: u32,
    last: u32,
    /// The last piece that is not white space only.
    pub last_solid: u32,
    /// Length in bytes.
    pub size: usize,
}

impl Chain {
    pub const EMPTY: Self = Self { first: NONE, last: NONE, last_solid: NONE, size: 0 };
}

/// Room is made at first for so many bytes of copies, once there is one.
const COPIES_BYTES: usize = 64;

/// Every piece of text of a document.
pub struct Texts<'a> {
    pieces: Vec<Piece<'a>>,
    copies: String,
}

impl<'a> Texts<'a> {
    /// With room for so many pieces.
    pub fn with_capacity(pieces: usize) -> Self {
        Self { pieces: Vec::with_capacity(pieces), copies: String::new() }
    }

    /// Runs up to this length are cheaper to copy than to link.
    const LINK_BYTES: usize = size_of::<Piece<'static>>();

    /// The string that starts at piece `first`, piece by piece.
    pub fn iterate(&self, first: u32) -> impl Iterator<Item = &str> {
        let mut next = first;
        std::iter::from_fn(move || {
            let piece = self.pieces.get(next as usize)?;
            next = piece.next;
            Some(self.content(piece))
        })
    }

    fn content(&self, piece: &Piece<'a>) -> &str {
        match piece.content {
            Content::Source(run) => run,
            Content::Copy(start, end) => self.copies.get(start as usize..end as usize).unwrap_or_default(),
        }
    }

    /// Adds a run of the input, and returns the number of its piece. Behind a copy, short runs
    /// are copied too: text with a reference at every other character would otherwise take many
    /// times its size.
    pub fn add_run(&mut self, chain: &mut Chain, run: &'a str) -> u32 {
        if run.len() <= Self::LINK_BYTES && self.extend_copy(chain.last, run) {
            chain.size += run.len();
            return chain.last;
        }
        self.link(chain, Content::Source(run), run.len())
    }

    /// Adds a character that is not in the input, and returns the number of its piece.
    pub fn add_character(&mut self, chain: &mut Chain, character: char) -> u32 {
        let mut buffer = [0; 4];
        let text: &str = character.encode_utf8(&mut buffer);
        if self.extend_copy(chain.last, text) {
            chain.size += text.len();
            return chain.last;
        }
        if self.copies.is_empty() {
            self.copies.reserve(COPIES_BYTES);
        }
        let start = to_number(self.copies.len());
        self.copies.push_str(text);
        self.link(chain, Content::Copy(start, to_number(self.copies.len())), text.len())
    }

    /// Appends `text` to piece `last` if that ends where the copies end.
    fn extend_copy(&mut self, last: u32, text: &str) -> bool {
        let old_end = to_number(self.copies.len());
        match self.pieces.get_mut(last as usize) {
            Some(Piece { content: Content::Copy(_, end), .. }) if *end == old_end => {
                self.copies.push_str(text);
                *end = to_number(self.copies.len());
                true
            }
            _ => false,
        }
    }

    fn link(&mut self, chain: &mut Chain, content: Content<'a>, size: usize) -> u32 {
        let number = to_number(self.pieces.len());
        self.pieces.push(Piece { content, next: NONE });
        match self.pieces.get_mut(chain.last as usize) {
            Some(previous) => previous.next = number,
            None => chain.first = number,
        }
        chain.last = number;
        chain.size += size;
        number
    }

    /// Cuts white space from the end and returns the first piece. Rust and Python's `str.strip`
    /// agree on white space among the characters that XML allows.
    pub fn trim_end(&mut self, chain: &Chain) -> u32 {
        let Some(last) = self.pieces.get_mut(chain.last_solid as usize) else {
            return NONE;
        };
        last.next = NONE;
        match &mut last.content {
            // Most texts end with a letter or a digit.
            Content::Source(run) if run.as_bytes().last().is_some_and(u8::is_ascii_graphic) => {}
            Content::Source(run) => *run = run.trim_end(),
            Content::Copy(start, end) => {
                let copy = self.copies.get(*start as usize..*end as usize).unwrap_or_default();
                *end = *start + to_number(copy.trim_end().len());
            }
        }
        chain.first
    }
}
