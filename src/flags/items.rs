//! The items of flags: `{base}/{cc}/{cc}.gif`, saved as `{cc}.gif`, a GIF.

use super::codes::Code;
use crate::files::item::{BodyCheck, FileItem};

/// The item of a flag at a server, whose base URL has no trailing slash.
pub fn item(base_url: &str, code: Code) -> FileItem {
    let cc = code.lower();
    FileItem {
        code: code.to_string(),
        url: format!("{base_url}/{cc}/{cc}.gif"),
        file: format!("{cc}.gif"),
        check: BodyCheck::Gif,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_and_the_file_of_a_flag_have_its_code_in_lower_case() {
        let item = item("http://localhost/flags", "BR".parse().unwrap());
        assert_eq!(item.url, "http://localhost/flags/br/br.gif");
        assert_eq!((item.code.as_str(), item.file.as_str()), ("BR", "br.gif"));
    }
}
