//! The names of a document, each held once.
//!
//! A name is looked up once per tag. The number found stands for the JSON key from then on, so
//! grouping siblings and finding duplicate attributes compare numbers and take linear time.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::payload::xml::XmlOptions;
use crate::payload::xml::tree::NONE;

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

/// Every name of a document and the keys that they become. Standard hashing is keyed at random,
/// so no sender can choose names that collide.
pub struct Names<'a> {
    options: &'a XmlOptions,
    elements: HashMap<&'a str, u32>,
    attributes: HashMap<&'a str, Attribute>,
    numbers: HashMap<Cow<'a, str>, u32>,
    keys: Vec<Key<'a>>,
}

impl<'a> Names<'a> {
    pub fn new(options: &'a XmlOptions) -> Self {
        Self {
            options,
            elements: HashMap::new(),
            attributes: HashMap::new(),
            numbers: HashMap::new(),
            keys: Vec::new(),
        }
    }

    /// Number of different element and attribute names so far.
    pub fn count(&self) -> usize {
        self.elements.len() + self.attributes.len()
    }

    pub fn into_keys(self) -> Vec<Key<'a>> {
        self.keys
    }

    pub fn key(&self, number: u32) -> Option<&Key<'a>> {
        self.keys.get(number as usize)
    }

    pub fn key_mut(&mut self, number: u32) -> Option<&mut Key<'a>> {
        self.keys.get_mut(number as usize)
    }

    /// The key of an element.
    pub fn element_key(&mut self, name: &'a str) -> u32 {
        if let Some(&key) = self.elements.get(name) {
            return key;
        }
        let key = self.number(Cow::Borrowed(self.local(name)));
        self.elements.insert(name, key);
        key
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
            self.number(Cow::Owned(format!("{prefix}{}", self.local(name))))
        };
        self.attributes.insert(name, Attribute { key, element });
        Ok(key)
    }

    /// The key of text beside attributes or children.
    pub fn text_key(&mut self) -> u32 {
        self.number(Cow::Borrowed(&self.options.text_key))
    }

    /// The name as written in the JSON. A name that ends in its colon has nothing else to show.
    fn local(&self, name: &'a str) -> &'a str {
        match name.rsplit_once(':') {
            Some((_, local)) if self.options.strip_prefixes && !local.is_empty() => local,
            _ => name,
        }
    }

    fn number(&mut self, text: Cow<'a, str>) -> u32 {
        if let Some(&number) = self.numbers.get(&text) {
            return number;
        }
        let number = u32::try_from(self.keys.len()).unwrap_or(NONE);
        self.keys.push(Key { text: text.clone(), owner: NONE, last: NONE });
        self.numbers.insert(text, number);
        number
    }
}

/// An element has two attributes of one name.
#[derive(Debug)]
pub struct Duplicate;
