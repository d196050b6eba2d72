//! The document grammar of XML 1.0 (fifth edition). Section numbers refer to it.

use std::borrow::Cow;

use crate::payload::xml::chars;
use crate::payload::xml::cursor::{Cursor, shorten};
use crate::payload::xml::prolog;
use crate::payload::xml::text::Chain;
use crate::payload::xml::tree::{Builder, Tree};
use crate::payload::xml::{XmlError, XmlLimits, XmlOptions};

struct Parser<'a> {
    cursor: Cursor<'a>,
    builder: Builder<'a>,
    limits: &'a XmlLimits,
    /// Elements so far.
    elements: usize,
    has_doctype: bool,
}

/// Reads a whole document.
pub fn parse<'a>(
    text: &'a str,
    options: &'a XmlOptions,
    limits: &'a XmlLimits,
) -> Result<Tree<'a>, XmlError> {
    if u32::try_from(text.len()).is_err() {
        return Err(XmlError::at(text, 0, "the document is larger than 4 GiB"));
    }
    if let Some((offset, character)) = chars::find_forbidden(text) {
        let message = format!("XML forbids the character U+{:04X}", u32::from(character));
        return Err(XmlError::at(text, offset, message));
    }
    let mut parser = Parser {
        cursor: Cursor::new(text),
        builder: Builder::new(options, text.len()),
        limits,
        elements: 0,
        has_doctype: false,
    };
    parser.read_document()?;
    Ok(parser.builder.finish())
}

impl<'a> Parser<'a> {
    fn read_document(&mut self) -> Result<(), XmlError> {
        prolog::take_declaration(&mut self.cursor)?;
        loop {
            if self.builder.depth() > 0 {
                self.read_text()?;
            } else {
                self.cursor.skip_space();
            }
            match self.cursor.peek(0) {
                None => break,
                Some(b'<') => self.read_markup()?,
                Some(_) => return self.fail("text is not allowed outside the root element"),
            }
        }
        if self.builder.depth() > 0 {
            let name = shorten(self.builder.open_name());
            return self.fail(format!("the end tag of `{name}` is missing"));
        }
        if self.elements == 0 {
            return self.fail("the document has no root element");
        }
        Ok(())
    }

    fn read_markup(&mut self) -> Result<(), XmlError> {
        match self.cursor.peek(1) {
            Some(b'/') => self.read_end_tag(),
            Some(b'?') => self.read_instruction(),
            Some(b'!') if self.cursor.starts_with("<!--") => self.read_comment(),
            Some(b'!') if self.cursor.starts_with("<![CDATA[") => self.read_cdata(),
            Some(b'!') if self.cursor.starts_with("<!DOCTYPE") => self.read_doctype(),
            _ => self.read_start_tag(),
        }
    }

    /// A start tag or an empty element (section 3.1).
    fn read_start_tag(&mut self) -> Result<(), XmlError> {
        let start = self.cursor;
        self.cursor.advance(1);
        let name = self.read_name("`<` must start a tag or be written `&lt;`")?;
        self.check_element(&start)?;
        self.builder.open_element(name, start.offset());
        let mut attributes = 0;
        loop {
            let is_spaced = self.cursor.skip_space();
            match self.cursor.peek(0) {
                Some(b'>') => {
                    self.cursor.advance(1);
                    break;
                }
                Some(b'/') if self.cursor.peek(1) == Some(b'>') => {
                    self.cursor.advance(2);
                    self.builder.close_element();
                    break;
                }
                None => return self.fail(format!("the tag of `{}` has no end", shorten(name))),
                Some(_) if !is_spaced => return self.fail("white space or `>` is missing"),
                Some(_) => self.read_attribute()?,
            }
            attributes += 1;
            if attributes > self.limits.attributes {
                let limit = self.limits.attributes;
                return Err(start.error(format!("an element has more than {limit} attributes")));
            }
        }
        if self.builder.distinct_names() > self.limits.distinct_names {
            let limit = self.limits.distinct_names;
            return Err(start.error(format!("the document has more than {limit} different names")));
        }
        Ok(())
    }

    /// Refuses an element that the place or the limits do not allow.
    fn check_element(&mut self, start: &Cursor<'a>) -> Result<(), XmlError> {
        let (depth, limits) = (self.builder.depth(), self.limits);
        if depth == 0 && self.elements > 0 {
            return Err(start.error("a document has one root element only"));
        }
        if depth >= limits.depth {
            let message = format!("elements are nested more than {} deep", limits.depth);
            return Err(start.error(message));
        }
        if self.elements >= limits.elements {
            let message = format!("the document has more than {} elements", limits.elements);
            return Err(start.error(message));
        }
        self.elements += 1;
        Ok(())
    }

    /// One attribute (section 3.1), its value normalised (section 3.3.3).
    fn read_attribute(&mut self) -> Result<(), XmlError> {
        let start = self.cursor;
        let name = self.read_name("an attribute name is missing or malformed")?;
        let quote = self.cursor.take_equals_quote()?;
        let value = self.read_value(quote)?;
        if value.size > self.limits.text_bytes {
            return Err(start.error(self.text_limit()));
        }
        self.builder
            .add_attribute(name, &value, start.offset())
            .map_err(|_| start.error(format!("the attribute `{}` is given twice", shorten(name))))
    }

    fn read_value(&mut self, quote: u8) -> Result<Chain, XmlError> {
        let mut value = Chain::EMPTY;
        let mut start = self.cursor.offset();
        loop {
            let stop = self.cursor.find_class(chars::VALUE_STOP);
            if let Some(other @ (b'"' | b'\'')) = stop
                && other != quote
            {
                self.cursor.advance(1);
                continue;
            }
            self.builder.add_value_run(&mut value, self.cursor.since(start));
            match stop {
                None => return self.fail("an attribute value has no closing quote"),
                Some(b'<') => return self.fail("`<` is not allowed in an attribute value"),
                Some(b'&') => {
                    let character = self.cursor.take_reference()?;
                    self.builder.add_value_character(&mut value, character);
                }
                Some(b'"' | b'\'') => {
                    self.cursor.advance(1);
                    return Ok(value);
                }
                // A tab, a line feed or a line end in any of its forms.
                Some(_) => {
                    self.skip_line_end();
                    self.builder.add_value_character(&mut value, ' ');
                }
            }
            start = self.cursor.offset();
        }
    }

    /// Moves over one byte of white space, or over CR LF (section 2.11).
    fn skip_line_end(&mut self) {
        let is_pair = (self.cursor.peek(0), self.cursor.peek(1)) == (Some(b'\r'), Some(b'\n'));
        self.cursor.advance(if is_pair { 2 } else { 1 });
    }

    fn read_end_tag(&mut self) -> Result<(), XmlError> {
        let start = self.cursor;
        self.cursor.advance(2);
        let open = self.builder.open_name();
        if self.builder.depth() == 0 {
            return Err(start.error("an end tag has no start tag"));
        }
        // Nearly always it is the open name and nothing else, which needn't be read as a name.
        if !self.cursor.eat_tag_end(open) {
            let name = self.read_name("an end tag has no name")?;
            if name != open {
                let (name, open) = (shorten(name), shorten(open));
                return Err(start.error(format!("the end tag `{name}` does not match `{open}`")));
            }
            self.cursor.skip_space();
            if !self.cursor.eat(">") {
                return self.fail("the end tag must end in `>`");
            }
        }
        self.builder.close_element();
        Ok(())
    }

    /// Character data (section 2.4) up to the next markup.
    fn read_text(&mut self) -> Result<(), XmlError> {
        let mut start = self.cursor.offset();
        loop {
            match self.cursor.find_text_stop() {
                Some(b']') => {
                    if self.cursor.starts_with("]]>") {
                        return self.fail("`]]>` is not allowed in text");
                    }
                    self.cursor.advance(1);
                    continue;
                }
                Some(b'&') => {
                    self.add_run(self.cursor.since(start))?;
                    let character = self.cursor.take_reference()?;
                    self.add_character(character)?;
                }
                Some(b'\r') => {
                    self.add_run(self.cursor.since(start))?;
                    self.skip_line_end();
                    self.add_character('\n')?;
                }
                _ => return self.add_run(self.cursor.since(start)),
            }
            start = self.cursor.offset();
        }
    }

    /// A CDATA section (section 2.7), whose content is text like any other.
    fn read_cdata(&mut self) -> Result<(), XmlError> {
        if self.builder.depth() == 0 {
            return self.fail("a CDATA section is not allowed outside the root element");
        }
        let start = self.cursor;
        self.cursor.advance("<![CDATA[".len());
        let Some(content) = self.cursor.take_until("]]>") else {
            return Err(start.error("a CDATA section has no end"));
        };
        for (number, line) in content.split('\r').enumerate() {
            // CR LF leaves the line feed in the input; a CR alone is replaced by one.
            if number > 0 && !line.starts_with('\n') {
                self.add_character('\n')?;
            }
            self.add_run(line)?;
        }
        Ok(())
    }

    /// A comment (section 2.5), which must not contain `--`.
    fn read_comment(&mut self) -> Result<(), XmlError> {
        let start = self.cursor;
        self.cursor.advance("<!--".len());
        if self.cursor.take_until("--").is_none() {
            return Err(start.error("a comment has no end"));
        }
        if !self.cursor.eat(">") {
            return self.fail("`--` is not allowed in a comment");
        }
        Ok(())
    }

    /// A processing instruction (section 2.6).
    fn read_instruction(&mut self) -> Result<(), XmlError> {
        let start = self.cursor;
        self.cursor.advance("<?".len());
        let target = self.read_name("a processing instruction has no target")?;
        if target.eq_ignore_ascii_case("xml") {
            let message = "an XML declaration is allowed only at the very start, in lower case";
            return Err(start.error(message));
        }
        let is_spaced = self.cursor.skip_space();
        if !is_spaced && !self.cursor.starts_with("?>") {
            return self.fail("white space is missing in a processing instruction");
        }
        if self.cursor.take_until("?>").is_none() {
            return Err(start.error("a processing instruction has no end"));
        }
        Ok(())
    }

    fn read_doctype(&mut self) -> Result<(), XmlError> {
        if self.has_doctype || self.elements > 0 {
            return self.fail("a document type is allowed once only, before the root element");
        }
        self.has_doctype = true;
        prolog::take_doctype(&mut self.cursor)
    }

    #[inline]
    fn read_name(&mut self, missing: &'static str) -> Result<&'a str, XmlError> {
        let start = self.cursor;
        match self.cursor.take_name() {
            Some(name) if name.len() <= self.limits.name_bytes => Ok(name),
            Some(_) => {
                let limit = self.limits.name_bytes;
                Err(start.error(format!("a name is longer than {limit} bytes")))
            }
            None => Err(start.error(missing)),
        }
    }

    #[inline]
    fn add_run(&mut self, run: &'a str) -> Result<(), XmlError> {
        let size = self.builder.add_run(run);
        self.check_text(size)
    }

    fn add_character(&mut self, character: char) -> Result<(), XmlError> {
        let size = self.builder.add_character(character);
        self.check_text(size)
    }

    #[inline]
    fn check_text(&self, size: usize) -> Result<(), XmlError> {
        if size > self.limits.text_bytes {
            return self.fail(self.text_limit());
        }
        Ok(())
    }

    fn text_limit(&self) -> String {
        format!("a text is longer than {} bytes", self.limits.text_bytes)
    }

    #[cold]
    fn fail<T>(&self, message: impl Into<Cow<'static, str>>) -> Result<T, XmlError> {
        Err(self.cursor.error(message))
    }
}
