//! Writes a tree as compact JSON (RFC 8259), in one pass and without recursion.

use crate::payload::search::json_stop;
use crate::payload::xml::tree::{NONE, Node, Tree};
use crate::payload::xml::{Root, XmlError, XmlLimits, XmlOptions};

/// An object that is being written.
struct Open {
    /// First member of the group that is being written.
    head: u32,
    /// The member itself.
    member: u32,
}

struct Writer<'a> {
    text: &'a str,
    tree: &'a Tree<'a>,
    limits: &'a XmlLimits,
    /// Only what the options put into keys could need escapes; no XML name has a character that does (section 2.3).
    has_plain_keys: bool,
    out: String,
    open: Vec<Open>,
    /// Arrays and objects that are open.
    depth: usize,
}

/// Writes `tree`, which was built from `text`.
pub fn write(
    text: &str,
    tree: &Tree<'_>,
    options: &XmlOptions,
    limits: &XmlLimits,
) -> Result<String, XmlError> {
    let is_plain = |text: &String| json_stop(text.as_bytes(), 0) == text.len();
    let mut writer = Writer {
        text,
        tree,
        limits,
        has_plain_keys: [&options.attribute_prefix, &options.text_key].into_iter().all(is_plain),
        out: String::with_capacity(text.len().min(limits.output_bytes)),
        open: Vec::with_capacity(8),
        depth: 0,
    };
    let mut next = match options.root {
        Root::Keep => Some(0),
        Root::Unwrap => tree.nodes.first().map(|document| document.first_member),
    };
    while let Some(node) = next.and_then(|number| tree.node(number)) {
        next = writer.begin_value(node)?;
        if next.is_none() {
            next = writer.end_value();
        }
    }
    // Closing brackets came after the last value.
    if let Some(document) = tree.nodes.first() {
        writer.check_limits(document)?;
    }
    Ok(writer.out)
}

impl Writer<'_> {
    /// Writes a value. Of an object it writes the start and returns the first member.
    fn begin_value(&mut self, node: &Node) -> Result<Option<u32>, XmlError> {
        let first = node.first_member;
        if first != NONE {
            self.start('{');
            self.open.push(Open { head: first, member: first });
            self.write_key(first);
        } else if node.is_element && node.first_piece == NONE {
            self.out.push_str("null");
        } else {
            self.out.push('"');
            for piece in self.tree.text(node.first_piece) {
                escape(&mut self.out, piece);
            }
            self.out.push('"');
        }
        self.check_limits(node)?;
        Ok((first != NONE).then_some(first))
    }

    /// Closes what ends with a value, and returns the value that comes next.
    fn end_value(&mut self) -> Option<u32> {
        loop {
            let open = self.open.last_mut()?;
            let member = self.tree.node(open.member)?;
            if member.next_same != NONE {
                open.member = member.next_same;
                self.out.push(',');
                return Some(member.next_same);
            }
            let head = self.tree.node(open.head)?;
            let next = head.next_member;
            (open.head, open.member) = (next, next);
            if is_array(head) {
                self.end(']');
            }
            if next != NONE {
                self.out.push(',');
                self.write_key(next);
                return Some(next);
            }
            self.end('}');
            self.open.pop();
        }
    }

    /// Writes the key of a group, and the start of its array if it is one.
    fn write_key(&mut self, head: u32) {
        let Some(node) = self.tree.node(head) else {
            return;
        };
        self.out.push('"');
        let key = self.tree.key(node.key);
        if self.has_plain_keys {
            self.out.push_str(key)
        } else {
            escape(&mut self.out, key)
        }
        self.out.push_str("\":");
        if is_array(node) {
            self.start('[');
        }
    }

    fn start(&mut self, bracket: char) {
        self.out.push(bracket);
        self.depth += 1;
    }

    fn end(&mut self, bracket: char) {
        self.out.push(bracket);
        self.depth = self.depth.saturating_sub(1);
    }

    /// Checked after every value, so the excess is one value at most, which is bounded itself.
    fn check_limits(&self, node: &Node) -> Result<(), XmlError> {
        let limits = self.limits;
        let message = if self.depth > limits.json_depth {
            format!("the JSON would be nested more than {} deep", limits.json_depth)
        } else if self.out.len() > limits.output_bytes {
            format!("the JSON would be longer than {} bytes", limits.output_bytes)
        } else {
            return Ok(());
        };
        Err(XmlError::at(self.text, node.offset as usize, message))
    }
}

fn is_array(head: &Node) -> bool {
    head.is_array || head.next_same != NONE
}

/// Appends `text` with as few escapes as RFC 8259 section 7 allows.
fn escape(out: &mut String, text: &str) {
    let mut rest = text;
    loop {
        let (plain, tail) = rest.split_at_checked(json_stop(rest.as_bytes(), 0)).unwrap_or_default();
        out.push_str(plain);
        let mut characters = tail.chars();
        match characters.next() {
            Some('\n') => out.push_str("\\n"),
            Some('\r') => out.push_str("\\r"),
            Some('\t') => out.push_str("\\t"),
            Some(quoted @ ('"' | '\\')) => out.extend(['\\', quoted]),
            // Only a prefix or text key of the options can hold other control characters.
            Some(control) => out.push_str(&format!("\\u{:04x}", u32::from(control))),
            None => return,
        }
        rest = characters.as_str();
    }
}
