//! JSON is validated and carried byte for byte: numbers of any size, key order and duplicate keys survive.
//!
//! Decided where RFC 8259 leaves a choice: one byte order mark at the begin is passed over (section 8.1); escapes of lone
//! surrogates (`"\ud800"`) are carried, because the grammar has them (section 7) and what they mean is the worker's to
//! say; numbers have no limit but the body's; nesting ends at [`DEPTH_LIMIT`].

mod scanner;
#[cfg(test)]
mod tests;

use super::{Format, PayloadError, Position, position_of};

/// How deep arrays and objects may nest unless the settings say otherwise. Consumers stop between 64 and 512; the scanner has
/// no stack to overflow, theirs may.
pub const DEPTH_LIMIT: usize = super::Limits::DEFAULT.depth;

/// Some senders write a byte order mark, which RFC 8259 (section 8.1) lets a reader ignore.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Checks that a body is one JSON value (RFC 8259) and returns its text without white space around it.
///
/// # Errors
/// What is wrong, and in which line and column.
pub fn validate(body: &[u8]) -> Result<&str, PayloadError> {
    validate_within(body, DEPTH_LIMIT)
}

/// The same with another limit of the depth.
///
/// # Errors
/// What is wrong, and in which line and column.
pub fn validate_within(body: &[u8], depth_limit: usize) -> Result<&str, PayloadError> {
    value(body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body), depth_limit)
}

/// The same without the grace for a byte order mark.
pub(super) fn value(body: &[u8], depth_limit: usize) -> Result<&str, PayloadError> {
    // Text first: the scanner is about syntax alone, and a check of all bytes at once is much faster than one by one.
    let text = std::str::from_utf8(body)
        .map_err(|error| malformed("it isn't UTF-8", position_of(body, error.valid_up_to())))?;
    let text = text.trim_start_matches(scanner::WHITE_SPACE);
    if text.is_empty() {
        return Err(PayloadError::Empty);
    }
    match scanner::scan(text.as_bytes(), depth_limit) {
        Ok(length) => Ok(text.get(..length).unwrap_or(text)),
        Err(fault) => {
            let offset = body.len() - text.len() + fault.offset;
            Err(malformed(&fault.what.to_string(), position_of(body, offset)))
        }
    }
}

fn malformed(message: &str, position: Position) -> PayloadError {
    PayloadError::Malformed { format: Format::Json, message: message.to_owned(), position }
}
