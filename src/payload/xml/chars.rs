//! Character classes of XML 1.0 (fifth edition, sections 2.2 and 2.3).

/// Starts a name (ASCII part).
pub const NAME_START: u8 = 1;
/// Continues a name (ASCII part).
pub const NAME: u8 = 1 << 1;
/// White space between markup: space, tab, CR and LF.
pub const SPACE: u8 = 1 << 2;
/// Needs a look in an attribute value: quotes, `<`, `&`, and the white space that becomes a space.
pub const VALUE_STOP: u8 = 1 << 3;
/// A byte of a character beyond ASCII.
pub const WIDE: u8 = 1 << 4;

const CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte: u8 = 0;
    loop {
        table[byte as usize] = match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'_' | b':' => NAME_START | NAME,
            b'0'..=b'9' | b'-' | b'.' => NAME,
            b' ' => SPACE,
            b'\t' | b'\n' | b'\r' => SPACE | VALUE_STOP,
            b'<' | b'&' | b'"' | b'\'' => VALUE_STOP,
            0x80.. => WIDE,
            _ => 0,
        };
        if byte == u8::MAX {
            return table;
        }
        byte += 1;
    }
}

/// Whether `byte` belongs to one of `classes`.
#[inline]
pub fn is(byte: u8, classes: u8) -> bool {
    CLASSES[usize::from(byte)] & classes != 0
}

/// `NameStartChar` of section 2.3.
pub fn is_name_start(character: char) -> bool {
    matches!(character,
        ':' | 'A'..='Z' | '_' | 'a'..='z' | '\u{C0}'..='\u{D6}' | '\u{D8}'..='\u{F6}'
        | '\u{F8}'..='\u{2FF}' | '\u{370}'..='\u{37D}' | '\u{37F}'..='\u{1FFF}'
        | '\u{200C}'..='\u{200D}' | '\u{2070}'..='\u{218F}' | '\u{2C00}'..='\u{2FEF}'
        | '\u{3001}'..='\u{D7FF}' | '\u{F900}'..='\u{FDCF}' | '\u{FDF0}'..='\u{FFFD}'
        | '\u{10000}'..='\u{EFFFF}')
}

/// `NameChar` of section 2.3.
pub fn is_name(character: char) -> bool {
    is_name_start(character)
        || matches!(character,
            '-' | '.' | '0'..='9' | '\u{B7}' | '\u{300}'..='\u{36F}' | '\u{203F}'..='\u{2040}')
}

/// `Char` of section 2.2. Surrogates are no `char` in the first place.
pub fn is_allowed(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..)
}

/// The first character that no document may contain, not even in a comment, and its offset.
pub fn find_forbidden(text: &str) -> Option<(usize, char)> {
    const BLOCK: usize = 64;
    // The compiler turns the test of a whole block into vector instructions, so the exact test
    // runs only where a block holds a control character or the lead byte of U+F000 to U+FFFF.
    for (number, block) in text.as_bytes().chunks(BLOCK).enumerate() {
        let suspicious = block.iter().fold(false, |found, &byte| found | is_control(byte) | (byte == 0xEF));
        if suspicious {
            let start = number * BLOCK;
            let mut characters =
                (start..start + block.len()).filter_map(|at| Some((at, text.get(at..)?.chars().next()?)));
            let found = characters.find(|&(_, character)| !is_allowed(character));
            if found.is_some() {
                return found;
            }
        }
    }
    None
}

fn is_control(byte: u8) -> bool {
    (byte < 0x20) & (byte != b'\t') & (byte != b'\n') & (byte != b'\r')
}
