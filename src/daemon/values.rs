//! The values that arguments can have. An error is what the value is not.

use std::str::FromStr;
use std::time::Duration;

pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: u32 = text
        .parse()
        .map_err(|_| "not a whole number of seconds".to_owned())?;
    Ok(Duration::from_secs(seconds.into()))
}

pub fn number<N: FromStr>(text: &str) -> Result<N, String> {
    text.parse()
        .map_err(|_| "not a whole number, or too large".to_owned())
}

/// The name of an instance, which is also that of a file.
pub fn instance_name(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let first = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    if first && text.len() <= 32 && text.chars().all(allowed) {
        return Ok(text.to_owned());
    }
    Err("not 1 to 32 letters, digits, '_', '-' and '.', the first no '-' or '.'".to_owned())
}

/// A path for a unix socket, `sun_path` of unix(7).
pub fn socket_path(text: &str) -> Result<String, String> {
    match text.len() {
        1..=107 => Ok(text.to_owned()),
        _ => Err("not 1 to 107 octets long, as the path of a socket must be".to_owned()),
    }
}
