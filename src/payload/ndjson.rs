//! NDJSON (ndjson-spec, JSON Lines): one JSON value a line becomes one array.
//!
//! Each value is carried byte for byte. Blank lines are passed over, as both descriptions of the format let a reader
//! do; the last line need not end in a line feed. RFC 7464 (`application/json-seq`) frames its values differently
//! and isn't this format.

use super::{Format, Limits, PayloadError, Position, json};

/// Converts NDJSON to the text of a JSON array.
///
/// # Errors
/// What is wrong with the first line that isn't one JSON value, and where; or that there is no value at all.
pub fn convert(body: &[u8], limits: &Limits) -> Result<Vec<u8>, PayloadError> {
    let body = body.strip_prefix(json::BYTE_ORDER_MARK).unwrap_or(body);
    let mut out = Vec::with_capacity(body.len() + 2);
    out.push(b'[');
    for (index, line) in body.split(|byte| *byte == b'\n').enumerate() {
        // The array around the values is a level of its own.
        let value = match json::value(line, limits.depth.saturating_sub(1)) {
            Err(PayloadError::Empty) => continue,
            value => value.map_err(|error| at_line(error, index + 1))?,
        };
        if out.len() > 1 {
            out.push(b',');
        }
        out.extend_from_slice(value.as_bytes());
    }
    if out.len() == 1 {
        return Err(PayloadError::Empty);
    }
    out.push(b']');
    Ok(out)
}

fn at_line(error: PayloadError, line: usize) -> PayloadError {
    match error {
        PayloadError::Malformed { message, position, .. } => PayloadError::Malformed {
            format: Format::NdJson,
            message,
            position: Position { line, column: position.column },
        },
        other => other,
    }
}
