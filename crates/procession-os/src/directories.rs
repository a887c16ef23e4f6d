//! Creates directories, and says which link is in the way.

use std::path::Path;
use std::{fs, io};

/// Creates a directory and those above it that are missing. If a part of the path is a link that leads to nothing or to
/// itself, the error names this link: the error of the system says that the directory exists.
pub fn create_all(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir).map_err(|error| match broken_link(dir) {
        Some(link) => {
            let link = link.display();
            io::Error::new(error.kind(), format!("{link} is a link that leads to no directory"))
        }
        None => error,
    })
}

/// The part of this path that is a link that leads to nothing or to itself.
pub fn broken_link(path: &Path) -> Option<&Path> {
    path.ancestors().find(|part| part.is_symlink() && !part.exists())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_link_that_leads_nowhere_is_named_wherever_it_is_in_the_path() {
        let tmp = tempfile::tempdir().expect("a directory");
        let at = |path: &str| tmp.path().join(path);
        symlink("missing", at("broken")).expect("a link");
        symlink("loop", at("loop")).expect("a link");
        symlink(".", at("here")).expect("a link");
        for (dir, link) in
            [("broken", "broken"), ("broken/a/b", "broken"), ("here/loop", "here/loop")]
        {
            let error = create_all(&at(dir)).expect_err("a broken link").to_string();
            let expected = format!("{} is a link that leads to no directory", at(link).display());
            assert_eq!(error, expected);
        }
        create_all(&at("here/a/b")).expect("directories");
        create_all(&at("here/a/b")).expect("they exist already");
        assert!(at("a/b").is_dir());
        fs::write(at("file"), "").expect("a file");
        assert_eq!(
            create_all(&at("file")).expect_err("a file").kind(),
            io::ErrorKind::AlreadyExists
        );
    }
}
