//! Secrets of the settings: `Debug` and `Display` never show them.

use std::path::Path;

use super::Strings;

pub use secrecy::{ExposeSecret, SecretString};

/// The longest secret file that is read; a longer one is somebody's mistake.
const FILE_LIMIT_BYTES: u64 = 64 * 1024;

/// Reads a secret from a file, as Docker and Kubernetes mount them, without the line end that editors add.
pub(super) fn read_file(path: &Path) -> Result<SecretString, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > FILE_LIMIT_BYTES {
        return Err(format!("it is longer than {FILE_LIMIT_BYTES} bytes"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() { Err("it is empty".to_owned()) } else { Ok(SecretString::from(text)) }
}

/// Reads a secret that is named by where it is: `env:NAME` or `file:PATH`. None if the text is neither.
pub(crate) fn read_reference(text: &str, strings: &dyn Strings) -> Option<Result<SecretString, String>> {
    match text.split_once(':')? {
        ("env", name) => {
            let value =
                strings.get(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
            Some(value.map(SecretString::from).ok_or_else(|| format!("the variable {name} isn't set")))
        }
        ("file", path) => {
            Some(read_file(Path::new(path)).map_err(|problem| format!("{path} can't be used: {problem}")))
        }
        _ => None,
    }
}
