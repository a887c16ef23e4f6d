//! The names of files: what may be typed, and the default, which is made of the URL's path.

use std::path::{Component, Path};

use ureq::http::Uri;

use procession_os::terminal::is_control;

/// The name of a file whose URL has none.
const INDEX: &str = "index.html";

/// The longest default name, in bytes. File systems allow 255.
const LONGEST: usize = 200;

/// The most bytes of a part of a typed name.
const LONGEST_PART: usize = 255;

/// Names that begin so are those of files that a download itself makes.
const RESERVED: [&str; 2] = [".procession-", ".validators.jsonl"];

/// Why a typed name is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It leads out of the destination, or to no file.
    #[error("the name {0:?} must be that of a file in the destination: relative, and without ..")]
    Outside(String),
    /// It has characters that control a terminal or change the direction of text.
    #[error("the name {0:?} has a control character")]
    Control(String),
    /// A part of it is too long.
    #[error("a part of the name {0:?} has more than {LONGEST_PART} bytes")]
    Long(String),
    /// A download makes such files itself.
    #[error("the name {0:?} begins as those of files that a download makes itself")]
    Reserved(String),
}

/// Checks a typed name, and returns it without `./` and doubled slashes.
pub fn typed(name: &str) -> Result<String, NameError> {
    let owned = || name.to_owned();
    if name.chars().any(is_control) {
        return Err(NameError::Control(owned()));
    }
    let mut parts = Vec::new();
    for component in Path::new(name).components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_str().unwrap_or_default()),
            _ => return Err(NameError::Outside(owned())),
        }
    }
    if parts.is_empty() || name.ends_with('/') {
        return Err(NameError::Outside(owned()));
    }
    if parts.iter().any(|part| part.len() > LONGEST_PART) {
        return Err(NameError::Long(owned()));
    }
    if RESERVED.iter().any(|reserved| parts[0].starts_with(reserved)) {
        return Err(NameError::Reserved(owned()));
    }
    Ok(parts.join("/"))
}

/// The default name: the last part of the path, with `%20` and the like decoded. Characters that are no part
/// of a plain name become `_`, and so does a point at the begin, which would hide the file.
pub fn of_url(uri: &Uri) -> String {
    let path = uri.path().trim_end_matches('/');
    let last = path.rsplit('/').next().unwrap_or_default();
    let plain = |c: char| if is_control(c) || "/\\:*?\"<>|".contains(c) { '_' } else { c };
    let name: String = decoded(last).trim().chars().map(plain).collect();
    let name = match name.strip_prefix('.') {
        Some(rest) => format!("_{rest}"),
        None => name,
    };
    if name.is_empty() { INDEX.to_owned() } else { shortened(&name) }
}

/// The name with a number before its extension.
pub fn numbered(name: &str, number: usize) -> String {
    let (stem, extension) = split(name);
    format!("{stem}-{number}{extension}")
}

/// The stem and the extension, with its point. `.tar.gz` and the like are one extension.
fn split(name: &str) -> (&str, &str) {
    let stem =
        name.strip_suffix(".gz").or(name.strip_suffix(".xz")).filter(|stem| stem.ends_with(".tar"));
    let point = stem.unwrap_or(name).rfind('.').filter(|&point| point > 0);
    name.split_at(point.unwrap_or(name.len()))
}

fn shortened(name: &str) -> String {
    if name.len() <= LONGEST {
        return name.to_owned();
    }
    let (stem, extension) = split(name);
    let extension = if extension.len() > 20 { "" } else { extension };
    let mut end = LONGEST - extension.len();
    while !stem.is_char_boundary(end.min(stem.len())) {
        end -= 1;
    }
    format!("{}{extension}", &stem[..end.min(stem.len())])
}

/// The text with its percent-encoding decoded; as it is if that is no UTF-8.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let hex = hex.filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        plain.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    String::from_utf8(plain).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_name_is_the_last_part_of_the_path_made_harmless() {
        let name = |url: &str| of_url(&url.parse().unwrap());
        for (url, expected) in [
            ("http://h/a/b.tar.gz?x=1", "b.tar.gz"),
            ("http://h", "index.html"),
            ("http://h/", "index.html"),
            ("http://h/docs/", "docs"),
            ("http://h/a%20b.txt", "a b.txt"),
            ("http://h/%2e%2e%2fetc%2fpasswd", "_._etc_passwd"),
            ("http://h/..", "_."),
            ("http://h/.bashrc", "_bashrc"),
            ("http://h/a%0ab%1b", "a_b_"),
            ("http://h/a%e2%80%aegnp.exe%d8%9c", "a_gnp.exe_"),
            ("http://h/%zz%", "%zz%"),
            ("http://h/%c3%a9.png", "é.png"),
            ("http://h/%ff.png", "%ff.png"),
        ] {
            assert_eq!(name(url), expected, "{url}");
        }
        let long = name(&format!("http://h/{}.jpeg", "x".repeat(400)));
        assert!(long.len() == LONGEST && long.ends_with("x.jpeg"), "{long}");
    }

    #[test]
    fn a_typed_name_stays_in_the_destination() {
        assert_eq!(typed("./a//b c.png").as_deref(), Ok("a/b c.png"));
        for bad in [
            "",
            ".",
            "..",
            "/etc/passwd",
            "a/../../b",
            "a/",
            "a\u{1b}",
            "a\u{202e}b",
            ".procession-x",
        ] {
            assert!(typed(bad).is_err(), "{bad:?}");
        }
        assert!(typed(&"x".repeat(256)).is_err());
    }

    #[test]
    fn a_number_comes_before_the_extension() {
        for (name, expected) in
            [("a.png", "a-2.png"), ("a", "a-2"), (".a", ".a-2"), ("a.b.tar.gz", "a.b-2.tar.gz")]
        {
            assert_eq!(numbered(name, 2), expected);
        }
    }
}
