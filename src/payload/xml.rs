//! XML to JSON, by the conventions of Python's `xmltodict`.
//!
//! A document becomes one JSON object holding the root element under its name. Attributes
//! become members called `@name`, text beside attributes or children becomes `#text`, repeated
//! siblings become an array at the place of the first, and an element without content becomes
//! `null`. Every value is a string: `007` and `1e3` are article numbers more often than numbers.
//!
//! The scanner is written for this one purpose. It accepts well-formed documents (XML 1.0,
//! fifth edition) and nothing else, never reads a file or the network, and refuses every
//! internal DTD subset, so no entity can be declared. It keeps no tree of boxed nodes and never
//! recurses, so hostile nesting costs neither stack nor time.
//!
//! [`decode()`] turns the bytes of a request into text, [`convert`] turns text into JSON.

mod chars;
mod cursor;
mod decode;
mod json;
mod names;
mod parse;
mod prolog;
#[cfg(test)]
mod tests;
mod text;
mod tree;

use std::borrow::Cow;
use std::fmt;

pub use decode::decode;

/// How elements become JSON members. The defaults are those of `xmltodict` 1.0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XmlOptions {
    /// Elements that are an array even when they occur once, so that a consumer sees one shape.
    /// An entry names an element (`item`) or its dotted path from the root (`order.items.item`),
    /// both as written in the JSON, that is without prefixes under `strip_prefixes`.
    pub force_list: Vec<String>,
    /// When children become arrays.
    pub arrays: Arrays,
    /// Drops namespace prefixes (`soap:Body` becomes `Body`) and the then meaningless `xmlns`
    /// declarations. Names that become equal share one array.
    pub strip_prefixes: bool,
    /// Keeps the white space around text, and text that is white space only.
    pub keep_whitespace: bool,
    /// What happens to the name of the root element.
    pub root: Root,
    /// Put before the name of an attribute. When it lets the name of an attribute equal that of
    /// a child, both share one array, the attribute first.
    pub attribute_prefix: String,
    /// The member for text beside attributes or children. When a child has this name, both
    /// share one array, the text last.
    pub text_key: String,
}

impl Default for XmlOptions {
    fn default() -> Self {
        Self {
            force_list: Vec::new(),
            arrays: Arrays::WhenRepeated,
            strip_prefixes: false,
            keep_whitespace: false,
            root: Root::Keep,
            attribute_prefix: "@".to_owned(),
            text_key: "#text".to_owned(),
        }
    }
}

/// When the children of an element become arrays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrays {
    /// Only when siblings share a name, or `force_list` says so.
    WhenRepeated,
    /// Always, except for the root, attributes and text, as the Node package `xml2js` does.
    Always,
}

/// What happens to the name of the root element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// `<order>…</order>` becomes `{"order": …}`.
    Keep,
    /// `<order>…</order>` becomes the value alone, whatever `force_list` says of `order`.
    Unwrap,
}

/// Bounds on one document. Exceeding any of them is an error that names the bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XmlLimits {
    /// Elements inside one another, the root counting as 1. Default 64.
    pub depth: usize,
    /// Elements in the document. Default 100,000.
    pub elements: usize,
    /// Attributes of one element. Default 256.
    pub attributes: usize,
    /// Different names of elements and of attributes in the document. Default 20,000.
    pub distinct_names: usize,
    /// Length of one name. Default 1 KiB.
    pub name_bytes: usize,
    /// Length of the text of one element, or of one attribute value, in UTF-8 and without
    /// leading white space. Default 1 MiB.
    pub text_bytes: usize,
    /// Arrays and objects inside one another in the JSON. Default 127, the most that
    /// `serde_json` reads; a document of depth `d` can need `2 * d + 2`.
    pub json_depth: usize,
    /// Length of the JSON. Default 16 MiB.
    pub output_bytes: usize,
}

impl Default for XmlLimits {
    fn default() -> Self {
        Self {
            depth: 64,
            elements: 100_000,
            attributes: 256,
            distinct_names: 20_000,
            name_bytes: 1 << 10,
            text_bytes: 1 << 20,
            json_depth: 127,
            output_bytes: 16 << 20,
        }
    }
}

/// Why a document was refused, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XmlError {
    /// One clause without a full stop. It quotes at most the start of a name of the document.
    pub message: Cow<'static, str>,
    /// Line, counted from 1. CR LF, CR and LF each end a line.
    pub line: u32,
    /// Column, counted from 1 in characters.
    pub column: u32,
}

impl XmlError {
    /// An error at a byte offset of `text`. Lines are counted only here, as most documents have
    /// no error.
    #[cold]
    fn at(text: &str, offset: usize, message: impl Into<Cow<'static, str>>) -> Self {
        let before = text.get(..text.floor_char_boundary(offset)).unwrap_or(text);
        let (mut line, mut line_start, mut previous) = (1u32, 0, 0);
        for (index, byte) in before.bytes().enumerate() {
            if byte == b'\n' && previous == b'\r' {
                line_start = index + 1;
            } else if byte == b'\n' || byte == b'\r' {
                line = line.saturating_add(1);
                line_start = index + 1;
            }
            previous = byte;
        }
        let characters = before.get(line_start..).unwrap_or("").chars().count();
        Self {
            message: message.into(),
            line,
            column: u32::try_from(characters).unwrap_or(u32::MAX).saturating_add(1),
        }
    }
}

impl fmt::Display for XmlError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message, line, column } = self;
        write!(formatter, "{message} at line {line}, column {column}")
    }
}

impl std::error::Error for XmlError {}

/// Converts a document to compact JSON.
///
/// `text` has no byte order mark; [`decode()`] removes it. The encoding that an XML declaration
/// names is checked for its form only, as `text` is decoded already.
///
/// # Errors
///
/// The document is not well-formed, has an internal DTD subset, refers to an entity other than
/// the five predefined ones, or exceeds one of `limits`.
pub fn convert(text: &str, options: &XmlOptions, limits: &XmlLimits) -> Result<String, XmlError> {
    let tree = parse::parse(text, options, limits)?;
    json::write(text, &tree, options, limits)
}
