//! Reads the values of arguments. The error says what a value is not.

use protocol::time::Duration;

use crate::control::is_instance_name;

pub fn seconds(text: &str) -> Result<Duration, String> {
    match number(text) {
        Ok(seconds) => Ok(Duration::from_secs(seconds.into())),
        Err(_) => Err("not a whole number of seconds".to_owned()),
    }
}

pub fn number(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| "not a whole number, or too large".to_owned())
}

/// The name of an instance, which is also a file's name.
pub fn instance_name(text: &str) -> Result<String, String> {
    match is_instance_name(text) {
        true => Ok(text.to_owned()),
        false => {
            Err("not 1 to 32 letters, digits, '_', '-' and '.', the first no '-' or '.'".to_owned())
        }
    }
}

/// The path of a Unix socket, at most as long as `sun_path` of unix(7).
pub fn socket_path(text: &str) -> Result<String, String> {
    match text.len() {
        1..=107 => Ok(text.to_owned()),
        _ => Err("not 1 to 107 octets long, as the path of a socket must be".to_owned()),
    }
}
