//! Where a text has to be looked at: the search goes over eight bytes at a time.

const ONES: u64 = u64::MAX / 0xFF;
const HIGH_BITS: u64 = ONES << 7;

/// The place of the first byte from `at` on that a JSON string can't hold as it is (RFC 8259, section 7): a quote, a
/// backslash or a control character. The text's length if there is none.
#[inline]
pub fn json_stop(text: &[u8], at: usize) -> usize {
    let stops = |word| below(word, 0x20) | equal(word, b'"') | equal(word, b'\\');
    find(text, at, stops)
}

/// The place of the first byte from `at` on that ends character data of XML or has to be looked at in it: `<`, `&`, CR and
/// `]`. The text's length if there is none.
#[inline]
pub fn xml_text_stop(text: &[u8], at: usize) -> usize {
    let stops = |word| equal(word, b'<') | equal(word, b'&') | equal(word, b'\r') | equal(word, b']');
    find(text, at, stops)
}

/// `stops` sets the high bit of each byte that is looked for.
#[inline]
fn find(text: &[u8], mut at: usize, stops: impl Fn(u64) -> u64) -> usize {
    while let Some(chunk) = text.get(at..).and_then(|rest| rest.first_chunk()) {
        let found = stops(u64::from_le_bytes(*chunk));
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += size_of::<u64>();
    }
    let rest = text.get(at..).unwrap_or_default();
    let found = stops(short_word(rest));
    at + if found == 0 { rest.len() } else { (found.trailing_zeros() / 8) as usize }
}

/// Fewer than eight bytes as a word, filled up with bytes that nobody looks for. Pieces that overlap take fewer steps than
/// single bytes.
#[inline]
fn short_word(rest: &[u8]) -> u64 {
    let filled = u64::MAX << (8 * (rest.len() & 7));
    let word = match (rest.first_chunk::<4>(), rest.last_chunk::<4>(), rest) {
        (Some(first), Some(last), _) => {
            u64::from(u32::from_le_bytes(*first))
                | u64::from(u32::from_le_bytes(*last)) << (8 * (rest.len() - 4))
        }
        (_, _, [first, second, third]) => {
            u64::from(*first) | u64::from(*second) << 8 | u64::from(*third) << 16
        }
        (_, _, [first, second]) => u64::from(*first) | u64::from(*second) << 8,
        (_, _, [first]) => u64::from(*first),
        _ => 0,
    };
    word | filled
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
