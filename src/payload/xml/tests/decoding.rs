use std::borrow::Cow;

use crate::payload::xml::decode;

#[track_caller]
fn check(bytes: &[u8], charset: Option<&str>, expected: &str) {
    assert_eq!(decode(bytes, charset).as_deref(), Ok(expected));
}

#[track_caller]
fn refuse(bytes: &[u8], charset: Option<&str>, message: &str, line: u32, column: u32) {
    let error = decode(bytes, charset).unwrap_err();
    assert!(error.message.contains(message), "{error}");
    assert_eq!((error.line, error.column), (line, column), "{error}");
}

fn little(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn big(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

/// UTF-8 is the default and is not copied.
#[test]
fn utf8_is_borrowed() {
    check("<a>é</a>".as_bytes(), None, "<a>é</a>");
    check(b"", None, "");
    let text = "<?xml version='1.0' encoding='utf-8'?><a>é</a>";
    assert!(matches!(decode(text.as_bytes(), None), Ok(Cow::Borrowed(_))));
}

/// A byte order mark goes before everything else and is removed, once.
#[test]
fn mark_is_first() {
    check("\u{feff}<a>é</a>".as_bytes(), Some("iso-8859-1"), "<a>é</a>");
    check(&little("\u{feff}<a>é😀</a>"), Some("utf-8"), "<a>é😀</a>");
    check(&big("\u{feff}<a>é😀</a>"), None, "<a>é😀</a>");
    check("\u{feff}\u{feff}<a/>".as_bytes(), None, "\u{feff}<a/>");
    let declared = "<?xml version='1.0' encoding='UTF-16'?><a/>";
    check(&little(&format!("\u{feff}{declared}")), None, declared);
    check(&big(&format!("\u{feff}{declared}")), None, declared);
}

/// The declaration goes before the content type, which goes before UTF-8.
#[test]
fn declaration_is_second() {
    let latin = b"<?xml version='1.0' encoding='ISO-8859-1'?><a>\xe9\x80</a>";
    let text = "<?xml version='1.0' encoding='ISO-8859-1'?><a>é\u{80}</a>";
    check(latin, None, text);
    check(latin, Some("utf-8"), text);
    check(b"<a>\xe9\x80</a>", Some(" ISO-8859-1 "), "<a>é\u{80}</a>");
    check(b"<a>\xe9\x80</a>", Some("windows-1252"), "<a>é€</a>");
    check(b"<?xml version='1.0'?><a>\xe9</a>", Some("latin1"), "<?xml version='1.0'?><a>é</a>");
    check(b"<?xml-x \xe9?><a/>", Some("latin1"), "<?xml-x é?><a/>");
    check(b"<?xml\xe9 encoding='utf-16'?><a/>", Some("latin1"), "<?xmlé encoding='utf-16'?><a/>");
    check(b"<a>\x83\x65</a>", Some("Shift_JIS"), "<a>テ</a>");
}

/// UTF-16 without a mark is taken if something names it.
#[test]
fn utf16_needs_a_name() {
    let declared = "<?xml version='1.0' encoding='UTF-16'?><a/>";
    check(&little(declared), None, declared);
    check(&big(declared), None, declared);
    check(&little("<a/>"), Some("utf-16"), "<a/>");
    check(&little("<a/>"), Some("utf-16le"), "<a/>");
    check(&big("\n<a/>"), Some("utf-16"), "\n<a/>");
    check(&little("\n<a/>"), Some("utf-16le"), "\n<a/>");
    refuse(&little("<a/>"), None, "needs a byte order mark", 1, 1);
    refuse(&little("<a/>"), Some("utf-16be"), "needs a byte order mark", 1, 1);
    refuse(&little("<a/>"), Some("utf-8"), "needs a byte order mark", 1, 1);
}

/// A declaration that the bytes contradict is refused.
#[test]
fn lies_are_refused() {
    let declare = |name: &str| format!("<?xml version='1.0' encoding='{name}'?><a/>");
    for name in ["UTF-16", "utf-16le", "UTF-16BE", "ISO-10646-UCS-2"] {
        refuse(declare(name).as_bytes(), None, "is in another one", 1, 1);
        refuse(format!("\u{feff}{}", declare(name)).as_bytes(), None, "is in another one", 1, 1);
    }
    for name in ["UTF-8", "ISO-8859-1", "UTF-16BE"] {
        refuse(&little(&format!("\u{feff}{}", declare(name))), None, "is in another one", 1, 1);
        refuse(&little(&declare(name)), None, "is in another one", 1, 1);
    }
    let marked = format!("\u{feff}{}", declare("ISO-8859-1"));
    refuse(marked.as_bytes(), None, "is in another one", 1, 1);
}

/// Bytes that are invalid in the encoding are refused with their position.
#[test]
fn invalid_bytes_are_refused() {
    refuse(b"<a>\n\xc3\xa9\xff</a>", None, "not valid UTF-8", 2, 2);
    refuse(b"<a>\xc0\x80</a>", None, "not valid UTF-8", 1, 4);
    refuse(b"<a>\xed\xa0\x80</a>", None, "not valid UTF-8", 1, 4);
    refuse(b"<a>\xe9</a>", Some("us-ascii"), "not valid US-ASCII", 1, 4);
    refuse(b"<a>\x83</a>", Some("shift_jis"), "not valid Shift_JIS", 1, 4);
    refuse(b"\xff\xfe<\0a\0/\0>", None, "not valid UTF-16LE", 1, 4);
    refuse(b"\xfe\xff\0<\xd8\0\0>", None, "not valid UTF-16BE", 1, 2);
    refuse(b"\x4c\x6f\xa7\x94", None, "not valid UTF-8", 1, 3);
}

/// Encodings that are unknown, or that only the Encoding Standard's replacement knows, are
/// refused, and messages quote no control characters.
#[test]
fn unknown_encodings_are_refused() {
    let declare = |name: &str| format!("<?xml version='1.0' encoding='{name}'?><a/>");
    for name in ["UTF-7", "UTF-32", "EBCDIC-CP-US", "ISO-2022-KR", "x"] {
        refuse(declare(name).as_bytes(), None, "is not known", 1, 1);
        refuse(b"<a/>", Some(name), "is not known", 1, 1);
    }
    refuse(b"<a/>", Some("x\r\ny"), "`xy` is not known", 1, 1);
    refuse(b"<?xml version='1.0' encoding='\xff'?><a/>", None, "malformed", 1, 6);
    refuse(b"<?xml version='1.0'", None, "malformed", 1, 20);
}
