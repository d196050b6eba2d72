//! Converts documents from standard input for the comparison scripts.
//!
//! A request is a length (4 bytes, big-endian) and that many bytes of XML. The answer is one
//! line: `=` and the JSON, or `!` and the error.
//!
//! Arguments: `--keep-whitespace`, `--attribute-prefix=TEXT`, `--text-key=TEXT` and
//! `--force-list=NAME`, the last any number of times.

#![allow(clippy::panic, clippy::print_stdout)]

use std::io::{self, BufWriter, Read, Write};

use retrieve_gateway::payload::xml::{XmlError, XmlLimits, XmlOptions, convert, decode};

fn main() -> io::Result<()> {
    let mut input = io::stdin().lock();
    let mut output = BufWriter::new(io::stdout().lock());
    let (options, limits) = (read_options(), XmlLimits::default());
    let mut length = [0; 4];
    while input.read_exact(&mut length).is_ok() {
        let mut document = vec![0; u32::from_be_bytes(length) as usize];
        input.read_exact(&mut document)?;
        match convert_bytes(&document, &options, &limits) {
            Ok(json) => writeln!(output, "={json}")?,
            Err(error) => writeln!(output, "!{error}")?,
        }
        output.flush()?;
    }
    Ok(())
}

fn read_options() -> XmlOptions {
    let mut options = XmlOptions::default();
    for argument in std::env::args().skip(1) {
        match argument.split_once('=') {
            Some(("--attribute-prefix", prefix)) => options.attribute_prefix = prefix.to_owned(),
            Some(("--text-key", key)) => options.text_key = key.to_owned(),
            Some(("--force-list", name)) => options.force_list.push(name.to_owned()),
            None if argument == "--keep-whitespace" => options.keep_whitespace = true,
            _ => panic!("unknown argument {argument}"),
        }
    }
    options
}

fn convert_bytes(document: &[u8], options: &XmlOptions, limits: &XmlLimits) -> Result<String, XmlError> {
    convert(&decode(document, None)?, options, limits)
}
