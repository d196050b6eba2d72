//! The pieces in which a long file is read, and the lines that problems stand in.

use std::ops::Range;

/// How many integrations are read at once. On the way from text to settings each takes some kilobytes, which a million of
/// them would take together, and leave behind in pieces.
const READ_AT_ONCE: usize = 256;

/// The parts of a file's text, each of so many integrations.
pub fn pieces(text: &str) -> Vec<Range<usize>> {
    const HEADER: &str = "[[integration]]";
    // In a string of several lines, a line can look like a header.
    let may_be_in_string = text.contains("\"\"\"") || text.contains("'''");
    let is_header = |at: &usize| *at == 0 || text[..*at].ends_with('\n');
    let headers = text.match_indices(HEADER).map(|(at, _)| at).filter(is_header);
    let cuts = headers.skip(READ_AT_ONCE).step_by(READ_AT_ONCE).filter(|_| !may_be_in_string);
    let mut begin = 0;
    let mut pieces: Vec<Range<usize>> = cuts.map(|cut| std::mem::replace(&mut begin, cut)..cut).collect();
    pieces.push(begin..text.len());
    pieces
}

/// Where a problem stands. The lines are counted once, because a file may have as many problems as lines.
pub struct Places<'a> {
    /// The file's name.
    pub file: &'a str,
    line_ends: Vec<usize>,
    /// Where the piece begins that is being read.
    pub begin: usize,
}

impl Places<'_> {
    /// Nothing is read yet.
    pub fn new<'a>(text: &str, file: &'a str) -> Places<'a> {
        Places { file, line_ends: text.match_indices('\n').map(|(offset, _)| offset).collect(), begin: 0 }
    }

    /// The file and the line of a place in the piece.
    pub fn origin(&self, span: &Range<usize>) -> String {
        let line = self.line_ends.partition_point(|end| *end < self.begin + span.start) + 1;
        format!("{}, line {line}", self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line end belongs to its line, and a place behind the end to the last one.
    #[test]
    fn places_are_lines() {
        let places = Places::new("a\r\n\nä\n", "x.toml");
        for (offset, line) in [(0, 1), (2, 1), (3, 2), (4, 3), (5, 3), (6, 3), (7, 4), (99, 4)] {
            assert_eq!(places.origin(&(offset..offset)), format!("x.toml, line {line}"), "{offset}");
        }
    }

    /// A long file is read in pieces that hold whole integrations, so that a place in one is a line of the file.
    #[test]
    fn pieces_hold_whole_integrations_and_cover_the_file() {
        let section = |number| format!("[[integration]]\nid = \"shop-{number}\"\n[integration.xml]\n\n");
        let text: String = (0..1000).map(section).collect();
        let text = format!("# ours\n{text}");
        let found = pieces(&text);
        assert_eq!(found.len(), 4);
        assert_eq!((found[0].start, found[3].end), (0, text.len()));
        for pair in found.windows(2) {
            assert_eq!(pair[0].end, pair[1].start);
            assert!(text[pair[1].clone()].starts_with("[[integration]]"));
        }
        let counts: Vec<usize> =
            found.iter().map(|piece| text[piece.clone()].matches("[[integration]]").count()).collect();
        assert_eq!(counts, [256, 256, 256, 232]);
        let mut places = Places::new(&text, "x.toml");
        places.begin = found[2].start;
        assert_eq!(places.origin(&(17..18)), format!("x.toml, line {}", 2 + 512 * 4 + 1));

        let in_a_string = format!("{text}name = \"\"\"\n[[integration]]\n\"\"\"\n");
        assert_eq!(pieces(&in_a_string).len(), 1);
        assert_eq!(pieces("").len(), 1);
    }
}
