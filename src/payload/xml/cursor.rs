//! A position in the document, with the few movements that the grammar needs.

use std::borrow::Cow;

use crate::payload::search::xml_text_stop;
use crate::payload::xml::XmlError;
use crate::payload::xml::chars;

/// A position in a document. Copying it marks a place to return to.
#[derive(Clone, Copy)]
pub struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Byte offset in the document.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// The byte `ahead` of the position, or none past the end.
    #[inline]
    pub fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    /// Moves over `bytes` that were peeked at.
    #[inline]
    pub fn advance(&mut self, bytes: usize) {
        self.at += bytes;
    }

    /// The text from `start` to the position.
    #[inline]
    pub fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    pub fn starts_with(&self, expected: &str) -> bool {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        rest.starts_with(expected.as_bytes())
    }

    /// Moves over `expected` if it comes next.
    pub fn eat(&mut self, expected: &str) -> bool {
        let found = self.starts_with(expected);
        if found {
            self.at += expected.len();
        }
        found
    }

    /// Moves over a name and the `>` behind it, if that is what comes next.
    #[inline]
    pub fn eat_tag_end(&mut self, name: &str) -> bool {
        let found = self.peek(name.len()) == Some(b'>') && self.starts_with(name);
        if found {
            self.at += name.len() + 1;
        }
        found
    }

    /// Moves over white space and says whether there was any.
    #[inline]
    pub fn skip_space(&mut self) -> bool {
        let start = self.at;
        while self.peek(0).is_some_and(|byte| chars::is(byte, chars::SPACE)) {
            self.at += 1;
        }
        self.at > start
    }

    /// Moves to the next byte of `classes`, or to the end, and returns that byte.
    #[inline]
    pub fn find_class(&mut self, classes: u8) -> Option<u8> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let distance = rest.iter().position(|&byte| chars::is(byte, classes));
        self.at += distance.unwrap_or(rest.len());
        self.peek(0)
    }

    /// Moves to the next byte that needs a look in character data, or to the end, and returns that
    /// byte.
    #[inline]
    pub fn find_text_stop(&mut self) -> Option<u8> {
        self.at = xml_text_stop(self.text.as_bytes(), self.at);
        self.peek(0)
    }

    /// Moves behind the next `end` and returns what lies before it.
    pub fn take_until(&mut self, end: &str) -> Option<&'a str> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let (before, _) = rest.split_once(end)?;
        self.at += before.len() + end.len();
        Some(before)
    }

    /// Moves over a name (section 2.3), if one comes next.
    #[inline]
    pub fn take_name(&mut self) -> Option<&'a str> {
        let start = self.at;
        let first = self.peek(0)?;
        if !chars::is(first, chars::NAME_START | chars::WIDE) {
            return None;
        }
        while self.peek(0).is_some_and(|byte| chars::is(byte, chars::NAME)) {
            self.at += 1;
        }
        if self.peek(0).is_some_and(|byte| chars::is(byte, chars::WIDE)) {
            return self.take_wide_name(start);
        }
        Some(self.since(start))
    }

    /// The rest of a name from its first character beyond ASCII on.
    fn take_wide_name(&mut self, start: usize) -> Option<&'a str> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let is_first = self.at == start;
        if is_first && !rest.chars().next().is_some_and(chars::is_name_start) {
            return None;
        }
        let end = rest.find(|character| !chars::is_name(character));
        self.at += end.unwrap_or(rest.len());
        Some(self.since(start))
    }

    /// Moves over an equals sign with optional white space and an opening quote, which it
    /// returns.
    pub fn take_equals_quote(&mut self) -> Result<u8, XmlError> {
        self.skip_space();
        if !self.eat("=") {
            return Err(self.error("an equals sign is missing"));
        }
        self.skip_space();
        match self.peek(0) {
            Some(quote @ (b'"' | b'\'')) => {
                self.advance(1);
                Ok(quote)
            }
            _ => Err(self.error("an opening quote is missing")),
        }
    }

    /// Moves over a character or entity reference (section 4.1) and returns its character.
    pub fn take_reference(&mut self) -> Result<char, XmlError> {
        let start = *self;
        self.advance(1);
        let code = if self.eat("#x") {
            self.take_number(16)
        } else if self.eat("#") {
            self.take_number(10)
        } else {
            let name = self.take_name().ok_or_else(|| start.error("`&` must be written `&amp;`"))?;
            let character = predefined_entity(name)
                .ok_or_else(|| start.error(format!("the entity `{}` is not declared", shorten(name))))?;
            Some(u32::from(character))
        };
        let Some(code) = code.filter(|_| self.eat(";")) else {
            return Err(start.error("a reference must be a name or a number and end in `;`"));
        };
        let character = char::from_u32(code).filter(|&character| chars::is_allowed(character));
        character.ok_or_else(|| start.error("a reference names a character that XML forbids"))
    }

    /// Moves over digits, if some come next. A number that is too large stays too large.
    fn take_number(&mut self, radix: u32) -> Option<u32> {
        let mut number = None;
        while let Some(digit) = self.peek(0).and_then(|byte| char::from(byte).to_digit(radix)) {
            let tens = number.unwrap_or(0u32).saturating_mul(radix);
            number = Some(tens.saturating_add(digit));
            self.advance(1);
        }
        number
    }

    /// An error at the position.
    #[cold]
    pub fn error(&self, message: impl Into<Cow<'static, str>>) -> XmlError {
        XmlError::at(self.text, self.at, message)
    }
}

/// Section 4.6.
fn predefined_entity(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => None,
    }
}

/// The start of a name, short enough for a message.
pub fn shorten(name: &str) -> &str {
    name.get(..name.floor_char_boundary(40)).unwrap_or_default()
}
