//! The grammar of RFC 8259 in one pass: no tree, no recursion, and a bit for each level of nesting.
//!
//! Written for this purpose because `serde_json` doesn't bound the depth of what it passes over, so that the brackets had
//! to be counted in a pass before it: the two together are half as fast. It is held against `serde_json` by the tests and
//! the fuzz target `json`.

use crate::payload::search::json_stop;

/// Section 2: the only characters that may stand between tokens.
pub const WHITE_SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// What is wrong, and at which byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The byte's index; the length of the text if it ends too early.
    pub offset: usize,
    /// What is wrong there.
    pub what: Wrong,
}

/// Ways of not being JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// Inside a value.
    #[error("it ends too early")]
    End,
    /// No value begins with this character.
    #[error("expected a value")]
    Value,
    /// After `{` or a comma in an object.
    #[error("expected a member's name in quotes")]
    Name,
    /// After a member's name.
    #[error("expected `:`")]
    Colon,
    /// After an element.
    #[error("expected `,` or `]`")]
    InArray,
    /// After a member.
    #[error("expected `,` or `}}`")]
    InObject,
    /// Something follows the value.
    #[error("expected nothing after the value")]
    AfterValue,
    /// A word that begins like `true`, `false` or `null`.
    #[error("expected `true`, `false` or `null`")]
    Literal,
    /// A leading zero, or no digit where one has to be.
    #[error("the number is malformed")]
    Number,
    /// A backslash before something else than section 7 lists.
    #[error("the escape is malformed")]
    Escape,
    /// U+0000 to U+001F have to be escaped.
    #[error("a control character in a string")]
    ControlCharacter,
    /// Deeper than this.
    #[error("it nests deeper than {0} levels")]
    Depth(usize),
}

type Scanned = Result<usize, Fault>;

/// Reads one value with nothing but white space behind it, and returns the value's length. `text` is UTF-8;
/// `depth_limit` is how deep arrays and objects may nest.
///
/// # Errors
/// The first byte at which it can't become JSON any more.
pub fn scan(text: &[u8], depth_limit: usize) -> Scanned {
    let mut open = Open { kinds: 0, outer: Vec::new(), depth: 0, limit: depth_limit };
    let mut at = skip_white_space(text, 0);
    loop {
        // A value begins here.
        at = match byte(text, at)? {
            b'"' => string(text, at)?,
            b'{' => {
                open.push(true, at)?;
                let next = skip_white_space(text, at + 1);
                if byte(text, next)? != b'}' {
                    at = member_begin(text, next)?;
                    continue;
                }
                next
            }
            b'[' => {
                open.push(false, at)?;
                let next = skip_white_space(text, at + 1);
                if byte(text, next)? != b']' {
                    at = next;
                    continue;
                }
                next
            }
            b'-' | b'0'..=b'9' => number(text, at)?,
            b't' => literal(text, at, b"true")?,
            b'f' => literal(text, at, b"false")?,
            b'n' => literal(text, at, b"null")?,
            _ => return fault(at, Wrong::Value),
        };
        // A value has ended, or the bracket at which an empty one ends is next.
        loop {
            if open.depth == 0 {
                return end(text, at);
            }
            at = skip_white_space(text, at);
            match (byte(text, at)?, open.in_object()) {
                (b',', true) => {
                    at = member_begin(text, skip_white_space(text, at + 1))?;
                    break;
                }
                (b',', false) => {
                    at = skip_white_space(text, at + 1);
                    break;
                }
                (b'}', true) | (b']', false) => {
                    open.pop();
                    at += 1;
                }
                (_, true) => return fault(at, Wrong::InObject),
                (_, false) => return fault(at, Wrong::InArray),
            }
        }
    }
}

/// The brackets that are open: a bit for each, set for objects, the innermost lowest.
struct Open {
    kinds: u64,
    /// The words before `kinds`, once there are more levels than one word holds.
    outer: Vec<u64>,
    depth: usize,
    limit: usize,
}

const WORD_BITS: usize = u64::BITS as usize;

impl Open {
    fn push(&mut self, is_object: bool, at: usize) -> Result<(), Fault> {
        if self.depth >= self.limit {
            return Err(Fault { offset: at, what: Wrong::Depth(self.limit) });
        }
        if self.depth > 0 && self.depth.is_multiple_of(WORD_BITS) {
            self.outer.push(self.kinds);
        }
        self.kinds = self.kinds << 1 | u64::from(is_object);
        self.depth += 1;
        Ok(())
    }

    fn pop(&mut self) {
        self.kinds >>= 1;
        self.depth -= 1;
        if self.depth.is_multiple_of(WORD_BITS)
            && let Some(kinds) = self.outer.pop()
        {
            self.kinds = kinds;
        }
    }

    fn in_object(&self) -> bool {
        self.kinds & 1 == 1
    }
}

fn fault(offset: usize, what: Wrong) -> Scanned {
    Err(Fault { offset, what })
}

fn byte(text: &[u8], at: usize) -> Result<u8, Fault> {
    text.get(at).copied().ok_or(Fault { offset: text.len(), what: Wrong::End })
}

fn skip_white_space(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = text.get(at) {
        at += 1;
    }
    at
}

/// After the outermost value, which ends at `length`.
fn end(text: &[u8], length: usize) -> Scanned {
    let rest = skip_white_space(text, length);
    if rest == text.len() { Ok(length) } else { fault(rest, Wrong::AfterValue) }
}

/// A name and its colon, up to where the member's value begins.
fn member_begin(text: &[u8], at: usize) -> Scanned {
    if byte(text, at)? != b'"' {
        return fault(at, Wrong::Name);
    }
    let colon = skip_white_space(text, string(text, at)?);
    if byte(text, colon)? != b':' {
        return fault(colon, Wrong::Colon);
    }
    Ok(skip_white_space(text, colon + 1))
}

fn literal(text: &[u8], at: usize, word: &[u8]) -> Scanned {
    for (index, expect) in word.iter().enumerate() {
        if byte(text, at + index)? != *expect {
            return fault(at, Wrong::Literal);
        }
    }
    Ok(at + word.len())
}

/// Section 6: `[-] int [frac] [exp]`.
fn number(text: &[u8], at: usize) -> Scanned {
    let mut at = if text.get(at) == Some(&b'-') { at + 1 } else { at };
    if text.get(at) == Some(&b'0') {
        at += 1;
        if let Some(b'0'..=b'9') = text.get(at) {
            return fault(at, Wrong::Number);
        }
    } else {
        at = digits(text, at)?;
    }
    if text.get(at) == Some(&b'.') {
        at = digits(text, at + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        at += 1;
        if let Some(b'+' | b'-') = text.get(at) {
            at += 1;
        }
        at = digits(text, at)?;
    }
    Ok(at)
}

/// One digit at least.
fn digits(text: &[u8], at: usize) -> Scanned {
    if !byte(text, at)?.is_ascii_digit() {
        return fault(at, Wrong::Number);
    }
    let mut at = at + 1;
    while let Some(b'0'..=b'9') = text.get(at) {
        at += 1;
    }
    Ok(at)
}

/// From the quote that begins a string to behind the one that ends it.
fn string(text: &[u8], at: usize) -> Scanned {
    let mut at = at + 1;
    loop {
        at = json_stop(text, at);
        match byte(text, at)? {
            b'"' => return Ok(at + 1),
            b'\\' => at = escape(text, at)?,
            _ => return fault(at, Wrong::ControlCharacter),
        }
    }
}

fn escape(text: &[u8], at: usize) -> Scanned {
    const HEX_DIGITS: usize = 4;
    match byte(text, at + 1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(at + 2),
        b'u' => {
            for index in at + 2..at + 2 + HEX_DIGITS {
                if !byte(text, index)?.is_ascii_hexdigit() {
                    return fault(at, Wrong::Escape);
                }
            }
            Ok(at + 2 + HEX_DIGITS)
        }
        _ => fault(at, Wrong::Escape),
    }
}
