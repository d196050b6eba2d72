//! The document as a flat list of nodes, linked by number.
//!
//! Links end in [`NONE`], which is no valid number, so following a link is `Vec::get` and ends
//! by itself.

use crate::payload::xml::chars;
use crate::payload::xml::names::{Duplicate, Key, Names};
use crate::payload::xml::text::{Chain, Texts};
use crate::payload::xml::{Arrays, XmlOptions};

/// The end of a chain of links.
pub const NONE: u32 = u32::MAX;

/// Numbers fit, since `parse` refuses documents of 4 GiB and every number counts something that
/// takes at least a byte of the document.
pub fn to_number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(NONE)
}

/// A member of a JSON object: an element, an attribute or the text beside them.
pub struct Node {
    pub key: u32,
    /// Byte offset in the document, for messages.
    pub offset: u32,
    /// First of the groups of members, if the value is an object.
    pub first_member: u32,
    /// First member of the next group in the same object.
    pub next_member: u32,
    /// Next member of the same group, that is with the same key.
    pub next_same: u32,
    /// The text, if the value is a string.
    pub first_piece: u32,
    /// Whether no text means an empty string (attributes) or null (elements).
    pub is_element: bool,
    /// Whether a group of one is an array nevertheless.
    pub is_array: bool,
}

/// Room is made at first for a node and a piece of text in so many bytes, which few documents have
/// more of: `<sku>A-17</sku>` and a line's indentation. It takes as much memory as the document.
const BYTES_PER_NODE: usize = 40;

/// An element whose end tag has not come yet.
struct Open<'a> {
    name: &'a str,
    key: u32,
    node: u32,
    first_member: u32,
    last_member: u32,
    text: Chain,
}

/// A finished document.
pub struct Tree<'a> {
    pub nodes: Vec<Node>,
    pub keys: Vec<Key<'a>>,
    texts: Texts<'a>,
}

impl<'a> Tree<'a> {
    pub fn node(&self, number: u32) -> Option<&Node> {
        self.nodes.get(number as usize)
    }

    pub fn key(&self, number: u32) -> &str {
        self.keys.get(number as usize).map_or("", |key| &key.text)
    }

    /// The string that starts at piece `first`, piece by piece.
    pub fn text(&self, first: u32) -> impl Iterator<Item = &str> {
        self.texts.iterate(first)
    }
}

/// Cuts white space from the start. Nearly all of it is ASCII, which needs no decoding.
#[inline]
fn trim_start(text: &str) -> &str {
    let spaces = text.bytes().take_while(|byte| chars::is(*byte, chars::SPACE)).count();
    let rest = text.get(spaces..).unwrap_or_default();
    if rest.bytes().next().is_some_and(|byte| !byte.is_ascii()) { rest.trim_start() } else { rest }
}

/// Builds a [`Tree`] in one pass over the document.
pub struct Builder<'a> {
    options: &'a XmlOptions,
    names: Names<'a>,
    nodes: Vec<Node>,
    texts: Texts<'a>,
    /// The document itself, the root, and so on inwards.
    open: Vec<Open<'a>>,
}

impl<'a> Builder<'a> {
    /// For a document of about so many bytes.
    pub fn new(options: &'a XmlOptions, bytes: usize) -> Self {
        let nodes = bytes / BYTES_PER_NODE;
        let mut builder = Self {
            options,
            names: Names::new(options),
            nodes: Vec::with_capacity(nodes),
            texts: Texts::with_capacity(nodes),
            open: Vec::with_capacity(8),
        };
        let node = builder.add_node(NONE, 0, true);
        builder.push_open("", NONE, node);
        builder
    }

    /// Number of open elements.
    pub fn depth(&self) -> usize {
        self.open.len().saturating_sub(1)
    }

    /// Name of the innermost open element, empty outside the root.
    pub fn open_name(&self) -> &'a str {
        self.open.last().map_or("", |open| open.name)
    }

    /// Number of different names so far.
    pub fn distinct_names(&self) -> usize {
        self.names.count()
    }

    pub fn open_element(&mut self, name: &'a str, offset: usize) {
        let key = self.names.element_key(name);
        let node = self.add_node(key, offset, true);
        self.push_open(name, key, node);
    }

    /// Adds an attribute to the innermost open element.
    pub fn add_attribute(&mut self, name: &'a str, value: &Chain, offset: usize) -> Result<(), Duplicate> {
        let element = self.open.last().map_or(NONE, |open| open.node);
        let key = self.names.attribute_key(name, element)?;
        if key != NONE {
            self.add_value(key, value.first, offset);
        }
        Ok(())
    }

    /// Adds a run of the input to an attribute value.
    pub fn add_value_run(&mut self, value: &mut Chain, run: &'a str) {
        if !run.is_empty() {
            self.texts.add_run(value, run);
        }
    }

    /// Adds a character to an attribute value.
    pub fn add_value_character(&mut self, value: &mut Chain, character: char) {
        self.texts.add_character(value, character);
    }

    /// Adds a run of the input to the text of the innermost open element, and returns the
    /// length of that text. Leading white space is not stored, since it would be cut later.
    #[inline]
    pub fn add_run(&mut self, run: &'a str) -> usize {
        let Some(open) = self.open.last_mut() else {
            return 0;
        };
        let keep = self.options.keep_whitespace;
        let is_leading = !keep && open.text.first == NONE;
        let trimmed = trim_start(run);
        let run = if is_leading { trimmed } else { run };
        if !run.is_empty() {
            let piece = self.texts.add_run(&mut open.text, run);
            if keep || !trimmed.is_empty() {
                open.text.last_solid = piece;
            }
        }
        open.text.size
    }

    /// Adds a character to the text of the innermost open element, as [`Self::add_run`] does.
    pub fn add_character(&mut self, character: char) -> usize {
        let Some(open) = self.open.last_mut() else {
            return 0;
        };
        let is_solid = self.options.keep_whitespace || !character.is_whitespace();
        if is_solid || open.text.first != NONE {
            let piece = self.texts.add_character(&mut open.text, character);
            if is_solid {
                open.text.last_solid = piece;
            }
        }
        open.text.size
    }

    /// Closes the innermost open element.
    pub fn close_element(&mut self) {
        let Some(open) = self.open.last() else {
            return;
        };
        let (element, text) = (open.node, open.text);
        let has_members = open.first_member != NONE;
        let first_piece = if self.options.keep_whitespace { text.first } else { self.texts.trim_end(&text) };
        if has_members && first_piece != NONE {
            let key = self.names.text_key();
            let offset = self.nodes.get(element as usize).map_or(0, |node| node.offset);
            self.add_value(key, first_piece, offset as usize);
        }
        if has_members {
            self.group_members();
        }
        let Some(open) = self.open.pop() else {
            return;
        };
        if let Some(node) = self.nodes.get_mut(element as usize) {
            node.first_member = open.first_member;
            node.first_piece = if has_members { NONE } else { first_piece };
        }
    }

    /// Closes the document, which leaves it as the first node.
    pub fn finish(mut self) -> Tree<'a> {
        self.close_element();
        Tree { nodes: self.nodes, keys: self.names.into_keys(), texts: self.texts }
    }

    fn push_open(&mut self, name: &'a str, key: u32, node: u32) {
        let text = Chain::EMPTY;
        let (first_member, last_member) = (NONE, NONE);
        self.open.push(Open { name, key, node, first_member, last_member, text });
    }

    fn add_value(&mut self, key: u32, first_piece: u32, offset: usize) {
        let number = self.add_node(key, offset, false);
        if let Some(node) = self.nodes.get_mut(number as usize) {
            node.first_piece = first_piece;
        }
    }

    /// Adds a node as the last member of the innermost open element.
    fn add_node(&mut self, key: u32, offset: usize, is_element: bool) -> u32 {
        let number = to_number(self.nodes.len());
        self.nodes.push(Node {
            key,
            offset: to_number(offset),
            first_member: NONE,
            next_member: NONE,
            next_same: NONE,
            first_piece: NONE,
            is_element,
            is_array: false,
        });
        if let Some(parent) = self.open.last_mut() {
            match self.nodes.get_mut(parent.last_member as usize) {
                Some(previous) => previous.next_member = number,
                None => parent.first_member = number,
            }
            parent.last_member = number;
        }
        number
    }

    /// Links the members of the innermost open element by key. Each key remembers the object it
    /// was last seen in, so one pass suffices. Nested elements cannot disturb it, since they are
    /// closed before or after.
    fn group_members(&mut self) {
        let Some(open) = self.open.last() else {
            return;
        };
        let (owner, first) = (open.node, open.first_member);
        let (mut last_group, mut next) = (NONE, first);
        while let Some(member) = self.nodes.get_mut(next as usize) {
            let number = std::mem::replace(&mut next, member.next_member);
            member.next_member = NONE;
            let Some(key) = self.names.key_mut(member.key) else {
                break;
            };
            let is_repeated = key.owner == owner;
            let previous = std::mem::replace(&mut key.last, number);
            key.owner = owner;
            if is_repeated {
                if let Some(previous) = self.nodes.get_mut(previous as usize) {
                    previous.next_same = number;
                }
            } else {
                if let Some(previous) = self.nodes.get_mut(last_group as usize) {
                    previous.next_member = number;
                }
                last_group = number;
            }
        }
        if self.options.arrays == Arrays::Always || !self.options.force_list.is_empty() {
            self.mark_arrays(first);
        }
    }

    /// Marks the members that are an array even when they stand alone.
    fn mark_arrays(&mut self, first: u32) {
        let always = self.options.arrays == Arrays::Always && self.depth() > 0;
        let mut next = first;
        while let Some(member) = self.nodes.get(next as usize) {
            let (number, key, is_element) = (next, member.key, member.is_element);
            next = member.next_member;
            let is_array = is_element && (always || self.is_forced(key));
            if let Some(member) = self.nodes.get_mut(number as usize) {
                member.is_array = is_array;
            }
        }
    }

    /// Whether `force_list` names a child of the innermost open element.
    fn is_forced(&self, key: u32) -> bool {
        let text = |number| self.names.key(number).map_or("", |key| key.text.as_ref());
        let name = text(key);
        self.options.force_list.iter().any(|rule| {
            rule == name || {
                let mut rest = rule.strip_suffix(name);
                for parent in self.open.iter().skip(1).rev() {
                    let parent_path = rest.and_then(|rest| rest.strip_suffix('.'));
                    rest = parent_path.and_then(|rest| rest.strip_suffix(text(parent.key)));
                    if rest.is_none() {
                        break;
                    }
                }
                rest == Some("")
            }
        })
    }
}
