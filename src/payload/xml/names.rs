//! The names of a document, each held once.
//!
//! A name is looked up once per tag. The number found stands for the JSON key from then on, so
//! grouping siblings and finding duplicate attributes compare numbers and take linear time.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use foldhash::fast::RandomState;

use crate::payload::xml::XmlOptions;
use crate::payload::xml::tree::{NONE, to_number};

/// A key of the JSON, and the group of members that was last seen under it.
pub struct Key<'a> {
    pub text: Cow<'a, str>,
    /// The object that the group belongs to.
    pub owner: u32,
    /// The last member of the group.
    pub last: u32,
}

/// What a document says about an attribute name.
#[derive(Clone, Copy)]
struct Attribute {
    /// `NONE` for a namespace declaration that is dropped.
    key: u32,
    /// The element that had it last.
    element: u32,
}

/// Every name of a document and the keys that they become. The hash is seeded at random for each
/// document, so no sender can choose names that collide, and `distinct_names` bounds how many there
/// are.
pub struct Names<'a> {
    options: &'a XmlOptions,
    elements: HashMap<&'a str, u32, RandomState>,
    attributes: HashMap<&'a str, Attribute, RandomState>,
    numbers: Numbers<'a>,
}

/// Room is made at first for so many names, which an order seldom has more of.
const NAMES: usize = 28;

/// The keys of the JSON, each with a number.
struct Numbers<'a> {
    of: HashMap<Cow<'a, str>, u32, RandomState>,
    keys: Vec<Key<'a>>,
}

impl<'a> Numbers<'a> {
    fn number(&mut self, text: Cow<'a, str>) -> u32 {
        match self.of.entry(text) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let number = to_number(self.keys.len());
                self.keys.push(Key { text: new.key().clone(), owner: NONE, last: NONE });
                *new.insert(number)
            }
        }
    }
}

impl<'a> Names<'a> {
    pub fn new(options: &'a XmlOptions) -> Self {
        Self {
            options,
            elements: HashMap::with_capacity_and_hasher(NAMES, RandomState::default()),
            attributes: HashMap::default(),
            numbers: Numbers {
                of: HashMap::with_capacity_and_hasher(NAMES, RandomState::default()),
                keys: Vec::with_capacity(NAMES),
            },
        }
    }

    /// Number of different element and attribute names so far.
    pub fn count(&self) -> usize {
        self.elements.len() + self.attributes.len()
    }

    pub fn into_keys(self) -> Vec<Key<'a>> {
        self.numbers.keys
    }

    pub fn key(&self, number: u32) -> Option<&Key<'a>> {
        self.numbers.keys.get(number as usize)
    }

    pub fn key_mut(&mut self, number: u32) -> Option<&mut Key<'a>> {
        self.numbers.keys.get_mut(number as usize)
    }

    /// The key of an element.
    pub fn element_key(&mut self, name: &'a str) -> u32 {
        match self.elements.entry(name) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let local = local(name, self.options.strip_prefixes);
                *new.insert(self.numbers.number(Cow::Borrowed(local)))
            }
        }
    }

    /// The key of an attribute, or `NONE` if the attribute is to be dropped. An error means
    /// that `element` has the attribute already.
    pub fn attribute_key(&mut self, name: &'a str, element: u32) -> Result<u32, Duplicate> {
        if let Some(attribute) = self.attributes.get_mut(name) {
            let previous = std::mem::replace(&mut attribute.element, element);
            return if previous == element { Err(Duplicate) } else { Ok(attribute.key) };
        }
        let is_declaration = name == "xmlns" || name.starts_with("xmlns:");
        let key = if self.options.strip_prefixes && is_declaration {
            NONE
        } else {
            let prefix = self.options.attribute_prefix.as_str();
            let local = local(name, self.options.strip_prefixes);
            self.numbers.number(Cow::Owned([prefix, local].concat()))
        };
        self.attributes.insert(name, Attribute { key, element });
        Ok(key)
    }

    /// The key of text beside attributes or children.
    pub fn text_key(&mut self) -> u32 {
        self.numbers.number(Cow::Borrowed(&self.options.text_key))
    }
}

/// The name as written in the JSON. A name that ends in its colon has nothing else to show.
fn local(name: &str, strips_prefixes: bool) -> &str {
    match name.rsplit_once(':').filter(|_| strips_prefixes) {
        Some((_, local)) if !local.is_empty() => local,
        _ => name,
    }
}

/// An element has two attributes of one name.
#[derive(Debug)]
pub struct Duplicate;
