//! Texts of others as a terminal, a log and a table may show them.
//!
//! An interface can have any name without `/`, `:` and ASCII white space, and so one that moves a
//! terminal's cursor or turns the direction of a line around.

use core::fmt;

/// A name with escapes in place of the characters that cannot be seen: `\u009b`, as in JSON. A name
/// that is escaped already shows as it is. With its escapes it is cut off at 96 octets, which are
/// more than any interface's name has. Width and precision count an escape as 6 characters.
#[derive(Clone, Copy)]
pub struct Escaped<'n>(pub &'n str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = heapless::String::<96>::new();
        // It fails where the name is cut off.
        let _ = escape(self.0, &mut |part| {
            shown.push_str(part).map_err(|_| fmt::Error)
        });
        f.pad(&shown)
    }
}

/// Calls `show` with each character of a text, or with the escape of one that cannot be seen.
/// Fails as soon as `show` does.
pub fn escape(text: &str, show: &mut dyn FnMut(&str) -> fmt::Result) -> fmt::Result {
    for character in text.chars() {
        let code = u32::from(character);
        let is_in = |[first, last]: &[u32; 2]| (*first..=*last).contains(&code);
        if !UNSEEN.iter().any(is_in) {
            show(character.encode_utf8(&mut [0; 4]))?;
            continue;
        }
        let (mut escape, mut rest) = (*b"\\u0000", code);
        for digit in escape.iter_mut().rev().take(4) {
            *digit = *HEXADECIMAL.get((rest & 15) as usize).unwrap_or(digit);
            rest >>= 4;
        }
        show(str::from_utf8(&escape).unwrap_or_default())?;
    }
    Ok(())
}

const HEXADECIMAL: [u8; 16] = *b"0123456789abcdef";

/// The first and the last of each row of characters that cannot be seen: control characters (C0,
/// DEL, C1), separators of lines and paragraphs, and what formats (Unicode's category Cf), such as
/// marks of direction and joiners. Each has at most four digits.
const UNSEEN: [[u32; 2]; 10] = [
    [0, 0x1f],
    [0x7f, 0x9f],
    [0xad, 0xad],
    [0x61c, 0x61c],
    [0x180e, 0x180e],
    [0x200b, 0x200f],
    [0x2028, 0x202e],
    [0x2060, 0x206f],
    [0xfeff, 0xfeff],
    [0xfff9, 0xfffb],
];

#[cfg(test)]
mod tests {
    use super::*;

    fn text(shown: fmt::Arguments<'_>) -> heapless::String<200> {
        let mut text = heapless::String::new();
        fmt::write(&mut text, shown).unwrap();
        text
    }

    #[test]
    fn what_cannot_be_seen_is_escaped_as_in_json_and_nothing_else_is() {
        for (raw, expected) in [
            ("br-lan", "br-lan"),
            ("wän\u{a0}", "wän\u{a0}"),
            ("a\"b\\c", "a\"b\\c"),
            ("\x1b[2Jx", "\\u001b[2Jx"),
            ("a\nb\tc\0", "a\\u000ab\\u0009c\\u0000"),
            ("\x7f\u{80}\u{9b}\u{9f}", "\\u007f\\u0080\\u009b\\u009f"),
            ("\u{202e}nal\u{2066}", "\\u202enal\\u2066"),
            ("\u{2028}\u{feff}", "\\u2028\\ufeff"),
            ("\u{1f600}", "\u{1f600}"),
            ("\u{fffd}", "\u{fffd}"),
        ] {
            let shown = text(format_args!("{}", Escaped(raw)));
            assert_eq!(shown, expected);
            assert_eq!(text(format_args!("{}", Escaped(&shown))), expected, "again");
        }
        let all = (0..=0x11_0000).filter_map(char::from_u32);
        for character in all.filter(|character| character.is_control()) {
            let mut raw = [0; 4];
            let shown = text(format_args!("{}", Escaped(character.encode_utf8(&mut raw))));
            assert!(shown.starts_with("\\u00"), "{character:?}");
        }
    }

    #[test]
    fn a_column_is_as_wide_as_it_is_told() {
        for (raw, expected) in [
            ("lan", "|lan       |"),
            ("a-longer-name", "|a-longer-n|"),
            ("é\x1b", "|é\\u001b   |"),
            ("br-\x1bx", "|br-\\u001bx|"),
            ("br-l\x1bx", "|br-l\\u001b|"),
            ("br-la\x1bx", "|br-la\\u001|"),
        ] {
            assert_eq!(text(format_args!("|{:10.10}|", Escaped(raw))), expected);
        }
    }
}
