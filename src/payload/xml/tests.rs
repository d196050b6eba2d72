//! Tables of documents and the JSON or error they must give. Expected values of the defaults
//! were checked with `xmltodict` 1.0.4.

mod decoding;
mod options;
mod properties;
mod refusals;

use crate::payload::xml::{XmlError, XmlLimits, XmlOptions, convert};

fn convert_default(xml: &str) -> Result<String, XmlError> {
    convert(xml, &XmlOptions::default(), &XmlLimits::default())
}

#[track_caller]
fn check(xml: &str, expected: &str) {
    assert_eq!(convert_default(xml).as_deref(), Ok(expected), "{xml}");
}

/// Leaves are strings as they stand, and nothing is taken for a number or a truth value.
#[test]
fn leaves_are_strings() {
    check("<a>t</a>", r#"{"a":"t"}"#);
    check("<a>007</a>", r#"{"a":"007"}"#);
    check("<a>1e3</a>", r#"{"a":"1e3"}"#);
    check("<a>true</a>", r#"{"a":"true"}"#);
    check("<a>null</a>", r#"{"a":"null"}"#);
}

/// Elements without content are null, and attributes without content are empty strings.
#[test]
fn emptiness_is_null() {
    check("<a/>", r#"{"a":null}"#);
    check("<a></a>", r#"{"a":null}"#);
    check("<a>  \n\t</a>", r#"{"a":null}"#);
    check("<a><![CDATA[]]></a>", r#"{"a":null}"#);
    check("<a><![CDATA[ ]]>&#32;</a>", r#"{"a":null}"#);
    check("<a><!-- note --></a>", r#"{"a":null}"#);
    check("<a><b/><c></c></a>", r#"{"a":{"b":null,"c":null}}"#);
    check("<a b=''/>", r#"{"a":{"@b":""}}"#);
}

/// Attributes come first, then children, then text, each in document order.
#[test]
fn members_are_in_order() {
    check("<a id='1'>t</a>", r##"{"a":{"@id":"1","#text":"t"}}"##);
    check("<a z='1' b='2'><z/>t<b/></a>", r##"{"a":{"@z":"1","@b":"2","z":null,"b":null,"#text":"t"}}"##);
    check("<p>Hello <b>w</b> tail</p>", r##"{"p":{"b":"w","#text":"Hello  tail"}}"##);
}

/// Siblings of one name share an array at the place of the first, even with others between.
#[test]
fn repeated_siblings_are_arrays() {
    check("<a><b>1</b><b>2</b></a>", r#"{"a":{"b":["1","2"]}}"#);
    check("<a><b>1</b><c/><b>2</b><c>3</c></a>", r#"{"a":{"b":["1","2"],"c":[null,"3"]}}"#);
    check(
        "<a><b x='1'/><b><b>2</b><b/></b><c><b>3</b></c></a>",
        r#"{"a":{"b":[{"@x":"1"},{"b":["2",null]}],"c":{"b":"3"}}}"#,
    );
    check("<a><a><a/></a><a/></a>", r#"{"a":{"a":[{"a":null},null]}}"#);
}

/// Prefixes and declarations of namespaces are kept as written.
#[test]
fn namespaces_are_kept() {
    check(
        "<s:a xmlns:s='urn:1' xmlns='urn:2'><b s:c='d'/><s:b/></s:a>",
        r#"{"s:a":{"@xmlns:s":"urn:1","@xmlns":"urn:2","b":{"@s:c":"d"},"s:b":null}}"#,
    );
}

/// CDATA, references and runs between comments are one text; comments and instructions vanish.
#[test]
fn text_is_concatenated() {
    check("<a>x<![CDATA[<&>]]>y</a>", r#"{"a":"x<&>y"}"#);
    check("<a>x<!-- - -->y<?p q?>z</a>", r#"{"a":"xyz"}"#);
    check("<a>&lt;&gt;&amp;&quot;&apos;&#65;&#x1F600;</a>", r#"{"a":"<>&\"'A😀"}"#);
    check("<a><![CDATA[]]]]><![CDATA[>]]></a>", r#"{"a":"]]>"}"#);
    check("<a>&amp;lt;</a>", r#"{"a":"&lt;"}"#);
}

/// White space around a text is cut as Python's `str.strip` cuts it, whatever it is made of.
#[test]
fn text_is_trimmed() {
    check("<a>\n x y \t</a>", r#"{"a":"x y"}"#);
    check("<a>&#32;&#9;x&#10; <b/> &#32;</a>", r##"{"a":{"b":null,"#text":"x"}}"##);
    check("<a>\u{a0}\u{2003}x\u{3000}\u{85}</a>", r#"{"a":"x"}"#);
    check("<a>\u{200b}x\u{feff}</a>", "{\"a\":\"\u{200b}x\u{feff}\"}");
    check("<a b=' x '/>", r#"{"a":{"@b":" x "}}"#);
}

/// Line ends become LF in text and a space in attributes; references are exempt (sections 2.11
/// and 3.3.3).
#[test]
fn line_ends_are_normalised() {
    check("<a>x\r\ny\rz\r\r\nw</a>", r#"{"a":"x\ny\nz\n\nw"}"#);
    check("<a>x<![CDATA[\r\n|\r|\n]]>y</a>", r#"{"a":"x\n|\n|\ny"}"#);
    check("<a>x&#13;&#10;y</a>", r#"{"a":"x\r\ny"}"#);
    check("<a b='x\r\ny\rz\tw\n'/>", r#"{"a":{"@b":"x y z w "}}"#);
    check("<a b='x&#13;&#10;&#9;y'/>", r#"{"a":{"@b":"x\r\n\ty"}}"#);
}

/// JSON strings escape what they must and nothing more.
#[test]
fn json_is_escaped() {
    check(r#"<a b='"\/'>\"/</a>"#, r##"{"a":{"@b":"\"\\/","#text":"\\\"/"}}"##);
    check("<a>\u{7f}\u{2028}é😀</a>", "{\"a\":\"\u{7f}\u{2028}é😀\"}");
}

/// Markup that does not matter may stand wherever the grammar allows it.
#[test]
fn prolog_and_epilog_are_skipped() {
    check("<?xml version='1.0'?><a/>", r#"{"a":null}"#);
    check("<?xml version=\"1.1\" encoding='x' standalone='no' ?>\n<a/>", r#"{"a":null}"#);
    check("<?xml-stylesheet href='x'?><!-- c --><a/><!-- d --><?p?>\r\n", r#"{"a":null}"#);
    check("<!DOCTYPE a><a/>", r#"{"a":null}"#);
    check("<!DOCTYPE a SYSTEM \"x'>\" ><a/>", r#"{"a":null}"#);
    check("<!DOCTYPE a PUBLIC '-//X' 'file:///etc/passwd'><a/>", r#"{"a":null}"#);
    check("<a  b = '1'\n></a \n>", r#"{"a":{"@b":"1"}}"#);
}

/// Names may use every character of the fifth edition.
#[test]
fn names_may_be_wide() {
    check("<größe 名前='x'/>", r#"{"größe":{"@名前":"x"}}"#);
    check("<_:-.·0/>", r#"{"_:-.·0":null}"#);
    check("<😀>x</😀>", r#"{"😀":"x"}"#);
}

/// Sample orders and feeds give what `xmltodict` gives.
#[test]
fn samples_match() {
    check(
        "<order>\n  <total currency=\"USD\">110.0000</total>\n  <items>\n    \
         <item><sku>24-MB01</sku></item>\n    <item><sku>24-WB04</sku></item>\n  </items>\n  \
         <address><street>6146 Honey &amp; Bluff</street><region/></address>\n</order>\n",
        r##"{"order":{"total":{"@currency":"USD","#text":"110.0000"},"items":{"item":[{"sku":"24-MB01"},{"sku":"24-WB04"}]},"address":{"street":"6146 Honey & Bluff","region":null}}}"##,
    );
}
