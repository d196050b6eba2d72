//! Where a text has to be looked at: the search goes over eight bytes at a time.

const ONES: u64 = u64::MAX / 0xFF;
const HIGH_BITS: u64 = ONES << 7;

/// The place of the first byte from `at` on that a JSON string can't hold as it is (RFC 8259, section 7): a quote, a
/// backslash or a control character. The text's length if there is none.
#[inline]
pub fn json_stop(text: &[u8], at: usize) -> usize {
    let stops = |word| below(word, 0x20) | equal(word, b'"') | equal(word, b'\\');
    find(text, at, stops, |byte| byte < 0x20 || byte == b'"' || byte == b'\\')
}

/// The place of the first byte from `at` on that ends character data of XML or has to be looked at in it: `<`, `&`, CR and
/// `]`. The text's length if there is none.
#[inline]
pub fn xml_text_stop(text: &[u8], at: usize) -> usize {
    let stops = |word| equal(word, b'<') | equal(word, b'&') | equal(word, b'\r') | equal(word, b']');
    find(text, at, stops, |byte| matches!(byte, b'<' | b'&' | b'\r' | b']'))
}

/// `stops` sets the high bit of each byte that is looked for, `is_stop` says the same of one byte.
#[inline]
fn find(text: &[u8], mut at: usize, stops: impl Fn(u64) -> u64, is_stop: impl Fn(u8) -> bool) -> usize {
    while let Some(chunk) = text.get(at..).and_then(|rest| rest.first_chunk()) {
        let found = stops(u64::from_le_bytes(*chunk));
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += size_of::<u64>();
    }
    let rest = text.get(at..).unwrap_or_default();
    at + rest.iter().position(|byte| is_stop(*byte)).unwrap_or(rest.len())
}

/// Sets the high bit of every byte below `limit`, which is 128 at the most, and perhaps of bytes behind such a one, which
/// don't count.
fn below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(ONES * u64::from(limit)) & !word & HIGH_BITS
}

fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (ONES * u64::from(byte)), 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes near those that are looked for.
    fn byte() -> impl Strategy<Value = u8> {
        prop_oneof![
            proptest::sample::select(
                b"\x00\x01\x1f\x20!\"#%&'\x0c\r\x0e;<=[\\]^\x7f\x80\x81\x9f\xa0\xa2\xdc\xdd\xff".to_vec()
            ),
            any::<u8>(),
            Just(b'a'),
        ]
    }

    proptest! {
        #[test]
        fn the_first_stop_is_found_wherever_it_is(text in proptest::collection::vec(byte(), 0..40), at in 0usize..45) {
            let position = |is_stop: &dyn Fn(u8) -> bool| {
                (at.min(text.len())..text.len()).find(|place| is_stop(text[*place])).unwrap_or(text.len().max(at))
            };
            let json = |byte| byte < 0x20 || byte == b'"' || byte == b'\\';
            prop_assert_eq!(json_stop(&text, at), position(&json));
            let xml = |byte| [b'<', b'&', b'\r', b']'].contains(&byte);
            prop_assert_eq!(xml_text_stop(&text, at), position(&xml));
        }
    }
}
