use super::convert_default;
use crate::payload::xml::{XmlError, XmlLimits, XmlOptions, convert};

#[track_caller]
fn refuse(xml: &str, message: &str, line: u32, column: u32) {
    let XmlError { message: actual, line: l, column: c } = convert_default(xml).unwrap_err();
    assert_eq!((actual.contains(message), l, c), (true, line, column), "{xml}: {actual}");
}

/// Every element has one end tag of its own, and the document has one root.
#[test]
fn structure_is_checked() {
    refuse("", "no root element", 1, 1);
    refuse(" \n<!-- x -->", "no root element", 2, 11);
    refuse("<a>", "the end tag of `a` is missing", 1, 4);
    refuse("<a><b></a>", "the end tag `a` does not match `b`", 1, 7);
    refuse("<a></b></a>", "the end tag `b` does not match `a`", 1, 4);
    refuse("</a>", "no start tag", 1, 1);
    refuse("<a/>\n<b/>", "one root element", 2, 1);
    refuse("<a/>x", "outside the root", 1, 5);
    refuse("x<a/>", "outside the root", 1, 1);
    refuse("<a/>&#32;", "outside the root", 1, 5);
    refuse("<![CDATA[]]><a/>", "outside the root", 1, 1);
    refuse("\u{feff}<a/>", "outside the root", 1, 1);
    refuse("<a></a x>", "must end in `>`", 1, 8);
    refuse("<a></ a>", "no name", 1, 6);
    refuse("<a></a", "must end in `>`", 1, 7);
    refuse("<a", "has no end", 1, 3);
    refuse("<a/", "white space or `>`", 1, 3);
    refuse("<a / >", "attribute name", 1, 4);
}

/// Names start and continue as section 2.3 says.
#[test]
fn names_are_checked() {
    refuse("<1/>", "must start a tag", 1, 2);
    refuse("<-a/>", "must start a tag", 1, 2);
    refuse("< a/>", "must start a tag", 1, 2);
    refuse("<\u{b7}/>", "must start a tag", 1, 2);
    refuse("<a\u{d7}/>", "white space or `>`", 1, 3);
    refuse("<a 1='x'/>", "attribute name", 1, 4);
    refuse("<a>1 < 2</a>", "must start a tag", 1, 7);
    refuse("<a><!ELEMENT></a>", "must start a tag", 1, 5);
}

/// Attributes have a quoted value, white space before them, and a name of their own.
#[test]
fn attributes_are_checked() {
    refuse("<a b/>", "equals sign", 1, 5);
    refuse("<a b=c/>", "opening quote", 1, 6);
    refuse("<a b='c/>", "no closing quote", 1, 10);
    refuse("<a b='c\"/>", "no closing quote", 1, 11);
    refuse("<a b='<'/>", "`<` is not allowed", 1, 7);
    refuse("<a b='1'c='2'/>", "white space", 1, 9);
    refuse("<a b='1'\n b='2'/>", "`b` is given twice", 2, 2);
    refuse("<a b='&x;'/>", "`x` is not declared", 1, 7);
    refuse("<a></a b='1'>", "must end in `>`", 1, 8);
}

/// References are to predefined entities or to characters that XML allows.
#[test]
fn references_are_checked() {
    refuse("<a>a & b</a>", "written `&amp;`", 1, 6);
    refuse("<a>&</a>", "written `&amp;`", 1, 4);
    refuse("<a>&lt</a>", "end in `;`", 1, 4);
    refuse("<a>&nbsp;</a>", "`nbsp` is not declared", 1, 4);
    refuse("<a>&#;</a>", "a number", 1, 4);
    refuse("<a>&#x;</a>", "a number", 1, 4);
    refuse("<a>&#X41;</a>", "a number", 1, 4);
    refuse("<a>&#4A;</a>", "a number", 1, 4);
    for number in ["0", "x0", "1", "11", "12", "xD800", "xDFFF", "xFFFE", "xFFFF", "x110000"] {
        refuse(&format!("<a>&#{number};</a>"), "XML forbids", 1, 4);
    }
    refuse(&format!("<a>&#{};</a>", "9".repeat(1000)), "XML forbids", 1, 4);
}

/// Forbidden characters are found in every place, and with their position.
#[test]
fn characters_are_checked() {
    refuse("<a>\0</a>", "U+0000", 1, 4);
    refuse("<a>\n é\u{1}</a>", "U+0001", 2, 3);
    refuse("<a><!-- \u{b} --></a>", "U+000B", 1, 9);
    refuse("<a b='\u{fffe}'/>", "U+FFFE", 1, 7);
    refuse("<a><![CDATA[\u{ffff}]]></a>", "U+FFFF", 1, 13);
    refuse(&format!("<a>{}\u{c}</a>", "\u{ff21}x".repeat(100)), "U+000C", 1, 204);
    refuse("<a>]]></a>", "`]]>`", 1, 4);
    refuse("<a>\r\n\r\n\r x]]]></a>", "`]]>`", 4, 4);
}

/// Comments, CDATA sections and instructions end, and hold nothing that they must not.
#[test]
fn sections_are_checked() {
    refuse("<a><!-- a -- b --></a>", "`--`", 1, 13);
    refuse("<a><!-- a ---></a>", "`--`", 1, 13);
    refuse("<a><!-- a ", "comment has no end", 1, 4);
    refuse("<a><!-></a>", "must start a tag", 1, 5);
    refuse("<a><![CDATA[ ]]</a>", "CDATA section has no end", 1, 4);
    refuse("<a><![cdata[ ]]></a>", "must start a tag", 1, 5);
    refuse("<a><?p </a>", "instruction has no end", 1, 4);
    refuse("<a><? p?></a>", "no target", 1, 6);
    refuse("<a><?p'x'?></a>", "white space", 1, 7);
}

/// The XML declaration stands at the very start and has its fields in order.
#[test]
fn declarations_are_checked() {
    refuse(" <?xml version='1.0'?><a/>", "only at the very start", 1, 2);
    refuse("<a><?xml version='1.0'?></a>", "only at the very start", 1, 4);
    refuse("<a/><?XmL x?>", "only at the very start", 1, 5);
    refuse("<?XML version='1.0'?><a/>", "only at the very start", 1, 1);
    refuse("<?xml?><a/>", "must start with `version`", 1, 6);
    refuse("<?xml encoding='UTF-8'?><a/>", "must start with `version`", 1, 6);
    refuse("<?xml version='2.0'?><a/>", "version must be", 1, 6);
    refuse("<?xml version='1.'?><a/>", "version must be", 1, 6);
    refuse("<?xml version=1.0?><a/>", "opening quote", 1, 15);
    refuse("<?xml version='1.0\"?><a/>", "closing quote", 1, 6);
    refuse("<?xml version='1.0' standalone='yes' encoding='x'?><a/>", "malformed", 1, 38);
    refuse("<?xml version='1.0' standalone='YES'?><a/>", "standalone", 1, 6);
    refuse("<?xml version='1.0' encoding=''?><a/>", "malformed encoding", 1, 6);
    refuse("<?xml version='1.0' encoding='8bit'?><a/>", "malformed encoding", 1, 6);
    refuse("<?xml version='1.0'encoding='x'?><a/>", "malformed", 1, 20);
    refuse("<?xml version='1.0' ><a/>", "malformed", 1, 21);
}

/// A document type may name an external subset, but hold no declarations.
#[test]
fn doctypes_are_checked() {
    refuse("<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>", "declarations of its own", 1, 13);
    refuse("<!DOCTYPE a[]><a/>", "declarations of its own", 1, 12);
    refuse("<!DOCTYPE a SYSTEM 'x' [<!ENTITY % x 'y'>]><a/>", "declarations of its own", 1, 24);
    refuse("<!DOCTYPE a><!DOCTYPE a><a/>", "once only", 1, 13);
    refuse("<a/><!DOCTYPE a>", "once only", 1, 5);
    refuse("<a><!DOCTYPE a></a>", "once only", 1, 4);
    refuse("<!DOCTYPE><a/>", "malformed", 1, 10);
    refuse("<!DOCTYPEa><a/>", "malformed", 1, 10);
    refuse("<!DOCTYPE a SYSTEM><a/>", "malformed", 1, 19);
    refuse("<!DOCTYPE a SYSTEM'x'><a/>", "malformed", 1, 19);
    refuse("<!DOCTYPE a PUBLIC 'x'><a/>", "malformed", 1, 23);
    refuse("<!DOCTYPE a PUBLIC 'x{}' 'y'><a/>", "malformed", 1, 25);
    refuse("<!DOCTYPE a SYSTEM 'x' y><a/>", "malformed", 1, 24);
    refuse("<!doctype a><a/>", "must start a tag", 1, 2);
    refuse("<!DOCTYPE a SYSTEM 'x'><a>&x;</a>", "`x` is not declared", 1, 27);
}

#[track_caller]
fn limit(change: impl Fn(&mut XmlLimits), allowed: &str, refused: &str, message: &str) {
    let mut limits = XmlLimits::default();
    change(&mut limits);
    let options = XmlOptions::default();
    assert!(convert(allowed, &options, &limits).is_ok(), "{allowed}");
    let error = convert(refused, &options, &limits).unwrap_err();
    assert!(error.message.contains(message), "{refused}: {error}");
}

/// A document at a limit is accepted, and one beyond it is refused with the reason.
#[test]
fn limits_hold() {
    limit(|l| l.depth = 2, "<a><b/><b/></a>", "<a><b><c/></b></a>", "nested more than 2 deep");
    limit(|l| l.elements = 2, "<a><b/></a>", "<a><b/><b/></a>", "more than 2 elements");
    limit(|l| l.attributes = 1, "<a b=''/>", "<a b='' c=''/>", "more than 1 attributes");
    limit(|l| l.distinct_names = 2, "<a a=''><a a=''/></a>", "<a a='' b=''/>", "2 different names");
    limit(|l| l.name_bytes = 2, "<ab/>", "<é1/>", "name is longer than 2 bytes");
    limit(|l| l.text_bytes = 2, "<a b='xy'>  xy</a>", "<a>x&#65;<b/>y</a>", "longer than 2 bytes");
    limit(|l| l.text_bytes = 2, "<a b='xy'/>", "<a b='x&#65;y'/>", "longer than 2 bytes");
    limit(|l| l.json_depth = 2, "<a b=''/>", "<a><b/><b/></a>", "nested more than 2 deep");
    limit(|l| l.output_bytes = 9, "<a>x</a>", "<a>xy</a>", "longer than 9 bytes");
}

/// No document that the default limits allow gives JSON too deep for `serde_json`.
#[test]
fn default_depth_is_readable() {
    let nest = |depth: usize| {
        let pairs: String = (1..depth).map(|_| "<a/><a>").collect();
        format!("<a>{pairs}{}</a>", "</a>".repeat(depth - 1))
    };
    let deepest = (2..=64).rev().find_map(|depth| convert_default(&nest(depth)).ok());
    let json = deepest.unwrap();
    assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok());
    assert!(json.len() > 60 * 7);
    assert!(convert_default(&nest(65)).is_err());
}

/// A message says where and quotes only the start of a long name.
#[test]
fn messages_are_short() {
    let error = convert_default(&format!("<a>\n&{};</a>", "é".repeat(400))).unwrap_err();
    let text = format!("the entity `{}` is not declared at line 2, column 1", "é".repeat(20));
    assert_eq!(error.to_string(), text);
}

/// Hostile documents end at once, however large they are.
#[test]
fn hostile_documents_end() {
    let numbers = || 0..80_000;
    let attributes: String = numbers().map(|n| format!(" a{n}=''")).collect();
    let distinct: String = numbers().map(|n| format!("<a{n}/>")).collect();
    refuse(&"<a>".repeat(1_000_000), "nested more than 64 deep", 1, 193);
    refuse(&format!("<r{attributes}/>"), "more than 256 attributes", 1, 1);
    refuse(&format!("<r>{distinct}</r>"), "different names", 1, 168_885);
    let equal = format!("<r>{}</r>", "<a/>".repeat(80_000));
    assert!(convert_default(&equal).is_ok_and(|json| json.len() == 400_013));
}
