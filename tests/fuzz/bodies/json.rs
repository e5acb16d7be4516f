//! Whether a text is one JSON value (RFC 8259) and a line feed.

pub fn is_one_line(text: &str) -> bool {
    let line = text.strip_suffix('\n').unwrap_or_default();
    !line.contains('\n') && value(line.as_bytes()).is_some_and(<[u8]>::is_empty)
}

/// Returns what follows a value, or `None` where there is no value.
fn value(text: &[u8]) -> Option<&[u8]> {
    match text.first()? {
        b'{' => list(&text[1..], b'}', |text| {
            value(string(text)?.strip_prefix(b":")?)
        }),
        b'[' => list(&text[1..], b']', value),
        b'"' => string(text),
        b'0'..=b'9' => {
            let digits = text
                .iter()
                .take_while(|octet| octet.is_ascii_digit())
                .count();
            (digits == 1 || text[0] != b'0').then(|| &text[digits..])
        }
        _ => {
            let words: [&[u8]; 3] = [b"true", b"false", b"null"];
            words.iter().find_map(|word| text.strip_prefix(*word))
        }
    }
}

fn list(mut text: &[u8], end: u8, element: impl Fn(&[u8]) -> Option<&[u8]>) -> Option<&[u8]> {
    if *text.first()? == end {
        return Some(&text[1..]);
    }
    loop {
        text = element(text)?;
        let (first, rest) = text.split_first()?;
        match *first {
            b',' => text = rest,
            octet if octet == end => return Some(rest),
            _ => return None,
        }
    }
}

fn string(text: &[u8]) -> Option<&[u8]> {
    let mut text = text.strip_prefix(b"\"")?;
    loop {
        match *text {
            [b'"', ref rest @ ..] => return Some(rest),
            [b'\\', b'"' | b'\\', ref rest @ ..] => text = rest,
            [b'\\', b'u', a, b, c, d, ref rest @ ..]
                if [a, b, c, d].iter().all(u8::is_ascii_hexdigit) =>
            {
                text = rest;
            }
            [0..=31 | b'\\', ..] | [] => return None,
            [_, ref rest @ ..] => text = rest,
        }
    }
}
