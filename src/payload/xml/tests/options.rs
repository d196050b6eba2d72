use crate::payload::xml::{Arrays, Root, XmlLimits, XmlOptions, convert};

#[track_caller]
fn check(change: impl Fn(&mut XmlOptions), xml: &str, expected: &str) {
    let mut options = XmlOptions::default();
    change(&mut options);
    let json = convert(xml, &options, &XmlLimits::default());
    assert_eq!(json.as_deref(), Ok(expected), "{xml}");
}

fn force(rules: &[&str]) -> impl Fn(&mut XmlOptions) {
    let rules: Vec<String> = rules.iter().map(|&rule| rule.to_owned()).collect();
    move |options| options.force_list.clone_from(&rules)
}

/// A name in `force_list` counts everywhere, a path at its place only.
#[test]
fn force_list_takes_names_and_paths() {
    let xml = "<order><item>1</item><items><item/></items></order>";
    check(force(&["item"]), xml, r#"{"order":{"item":["1"],"items":{"item":[null]}}}"#);
    check(force(&["order.items.item"]), xml, r#"{"order":{"item":"1","items":{"item":[null]}}}"#);
    check(force(&["order"]), "<order/>", r#"{"order":[null]}"#);
    check(
        force(&["items.item", "s.item", ".item", "order.", ""]),
        xml,
        r#"{"order":{"item":"1","items":{"item":null}}}"#,
    );
    check(force(&["item"]), "<a item='1'><item/></a>", r#"{"a":{"@item":"1","item":[null]}}"#);
}

/// Names may contain dots, so a rule is compared whole before it is taken for a path.
#[test]
fn force_list_takes_names_with_dots() {
    check(force(&["a.b"]), "<a><a.b/><b/></a>", r#"{"a":{"a.b":[null],"b":[null]}}"#);
    check(force(&["r.a.b.c"]), "<r><a.b><c/></a.b></r>", r#"{"r":{"a.b":{"c":[null]}}}"#);
}

/// `Always` wraps children, but neither the root nor attributes nor text.
#[test]
fn arrays_may_be_always() {
    check(
        |options| options.arrays = Arrays::Always,
        "<a id='1'>t<b>1</b><c><d/><d/></c></a>",
        r##"{"a":{"@id":"1","b":["1"],"c":[{"d":[null,null]}],"#text":"t"}}"##,
    );
}

/// Names that become equal without their prefixes share an array, and so do attributes.
#[test]
fn prefixes_may_be_stripped() {
    let strip = |options: &mut XmlOptions| options.strip_prefixes = true;
    check(
        strip,
        "<s:a xmlns:s='u' xmlns='v' s:i='1' j='2'><s:b>1</s:b><b>2</b><c/></s:a>",
        r#"{"a":{"@i":"1","@j":"2","b":["1","2"],"c":null}}"#,
    );
    check(strip, "<a s:i='1' i='2'/>", r#"{"a":{"@i":["1","2"]}}"#);
    check(strip, "<s:a xmlns:s='u'>t</s:a>", r#"{"a":"t"}"#);
    check(strip, "<x:y:z/>", r#"{"z":null}"#);
    check(strip, "<x:/>", r#"{"x:":null}"#);
    let both = |options: &mut XmlOptions| {
        strip(options);
        options.force_list = vec!["Envelope.Body".to_owned()];
    };
    check(both, "<s:Envelope><s:Body/></s:Envelope>", r#"{"Envelope":{"Body":[null]}}"#);
}

/// Stripping prefixes does not weaken the checks of tags and attributes.
#[test]
fn stripping_keeps_wellformedness() {
    let options = XmlOptions { strip_prefixes: true, ..XmlOptions::default() };
    for xml in ["<s:a></a>", "<a s:b='1' s:b='1'/>", "<a xmlns:s='u' xmlns:s='u'/>"] {
        assert!(convert(xml, &options, &XmlLimits::default()).is_err(), "{xml}");
    }
}

/// Kept white space is text like any other, so indentation appears too.
#[test]
fn white_space_may_be_kept() {
    let keep = |options: &mut XmlOptions| options.keep_whitespace = true;
    check(keep, "<a> x </a>", r#"{"a":" x "}"#);
    check(keep, "<a> </a>", r#"{"a":" "}"#);
    check(keep, "<a></a>", r#"{"a":null}"#);
    check(keep, "<a>\r\n <b/>&#32;</a>", r##"{"a":{"b":null,"#text":"\n  "}}"##);
}

/// Without the name of the root, its value is the whole JSON.
#[test]
fn root_may_be_unwrapped() {
    let unwrap = |options: &mut XmlOptions| options.root = Root::Unwrap;
    check(unwrap, "<a><b/><b/></a>", r#"{"b":[null,null]}"#);
    check(unwrap, "<a>t</a>", r#""t""#);
    check(unwrap, "<a/>", "null");
    let forced = |options: &mut XmlOptions| {
        unwrap(options);
        options.force_list = vec!["a".to_owned()];
    };
    check(forced, "<a>t</a>", r#""t""#);
}

/// Keys that collide share an array in the order attribute, children, text.
#[test]
fn colliding_keys_share_an_array() {
    let bare = |options: &mut XmlOptions| {
        options.attribute_prefix = String::new();
        options.text_key = "b".to_owned();
    };
    check(bare, "<a b='1' c='2'>t<b>3</b></a>", r#"{"a":{"b":["1","3","t"],"c":"2"}}"#);
    check(bare, "<a b='1'>t</a>", r#"{"a":{"b":["1","t"]}}"#);
    check(|options| options.text_key = "@i".to_owned(), "<a i='1'>t</a>", r#"{"a":{"@i":["1","t"]}}"#);
    check(
        |options| options.attribute_prefix = "x".to_owned(),
        "<a y='1'><xy/></a>",
        r#"{"a":{"xy":["1",null]}}"#,
    );
}

/// Keys from the options are escaped, since they may hold anything.
#[test]
fn keys_are_escaped() {
    let odd = |options: &mut XmlOptions| {
        options.attribute_prefix = "\"\u{1}".to_owned();
        options.text_key = "\\\n".to_owned();
    };
    check(odd, "<a i='1'>t</a>", r#"{"a":{"\"\u0001i":"1","\\\n":"t"}}"#);
}
