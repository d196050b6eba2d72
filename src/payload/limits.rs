//! The limits of every format, in one place. `docs/payloads.md` names the setting of each.

use super::xml::XmlLimits;

/// Bounds on one body, besides its size. Exceeding any of them is an error that names the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Arrays and objects inside one another in JSON and NDJSON, elements in XML. Default 64: consumers stop between
    /// 64 and 512, and nobody's order nests deeper.
    pub depth: usize,
    /// Elements of an XML document. Default 100,000.
    pub xml_elements: usize,
    /// Attributes of one XML element. Default 256.
    pub xml_attributes: usize,
    /// Bytes of the text of one XML element or attribute. Default 1 MiB.
    pub xml_text_bytes: usize,
    /// Bytes of the JSON that an XML document becomes. Default 16 MiB.
    pub xml_output_bytes: usize,
    /// Bytes of one name: of an XML element or attribute, of a multipart field or file. Default 1 KiB.
    pub name_bytes: usize,
    /// Pairs of a form, parts of a multipart body. Default 10,000.
    pub form_fields: usize,
    /// How many times larger than its compressed bytes a body may be. Default 100. DEFLATE can do 1032, text seldom
    /// does more than 20.
    pub compression_ratio: usize,
}

impl Limits {
    /// The defaults.
    pub const DEFAULT: Limits = Limits {
        depth: 64,
        xml_elements: 100_000,
        xml_attributes: 256,
        xml_text_bytes: 1 << 20,
        xml_output_bytes: 16 << 20,
        name_bytes: 1 << 10,
        form_fields: 10_000,
        compression_ratio: 100,
    };

    /// Those that the XML converter knows.
    pub fn xml(&self) -> XmlLimits {
        XmlLimits {
            depth: self.depth,
            elements: self.xml_elements,
            attributes: self.xml_attributes,
            name_bytes: self.name_bytes,
            text_bytes: self.xml_text_bytes,
            json_depth: self.xml_json_depth(),
            output_bytes: self.xml_output_bytes,
            ..XmlLimits::default()
        }
    }

    /// What every reader in Rust takes, unless more depth is asked for than that: each element may become an array and
    /// an object.
    fn xml_json_depth(&self) -> usize {
        if self.depth <= Limits::DEFAULT.depth { XmlLimits::default().json_depth } else { 2 * self.depth + 2 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The gateway's defaults are the converters' own.
    #[test]
    fn the_defaults_agree() {
        assert_eq!(Limits::DEFAULT.xml(), XmlLimits::default());
        assert_eq!(Limits { depth: 100, ..Limits::DEFAULT }.xml().json_depth, 202);
    }
}
