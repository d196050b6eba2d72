//! Small JSON bodies, read only as far as a handshake needs.

use serde::Deserialize;

/// No handshake is longer (an SNS confirmation has about 2 KiB), and a longer body isn't worth a second look.
const LIMIT_BYTES: usize = 16 * 1024;

/// Reads a body that holds a word which every such handshake holds. None if it is anything else: then it is a
/// webhook like any other, and its payload is judged where payloads are.
pub(super) fn read<'r, T: Deserialize<'r>>(body: &'r [u8], word: &str) -> Option<T> {
    if body.len() > LIMIT_BYTES {
        return None;
    }
    let text = std::str::from_utf8(body).ok()?;
    text.contains(word).then(|| serde_json::from_str(text).ok())?
}
