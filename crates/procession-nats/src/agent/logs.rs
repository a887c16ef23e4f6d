//! Answers a request for the logs of this host: puts the log files into the bucket of bodies, under the name that the
//! request contains.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use procession_os::held_dir::HeldDir;

use super::AgentShared;
use crate::host_logs::{LogsHead, LogsRequest, MOST_BYTES, MOST_FILES, is_log_path};
use crate::message::join;

/// Answers a request. The agent answers one request at a time, and ignores others until that answer is sent.
pub(super) fn answer(shared: &Arc<AgentShared>, request: LogsRequest) {
    let Ok(permit) = Arc::clone(&shared.answers).try_acquire_owned() else { return };
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let _permit = permit;
        let instance = shared.instance.borrow().id.clone();
        let Some(name) = request.body_name(&instance) else { return };
        let dir = shared.logs.clone();
        let gathered = tokio::task::spawn_blocking(move || match dir {
            Some(dir) => gather(&dir).unwrap_or_else(|error| {
                let why = format!("cannot read {}: {error}", dir.display());
                (LogsHead { why_none: Some(why), ..LogsHead::default() }, Vec::new())
            }),
            None => (LogsHead::default(), Vec::new()),
        });
        let Ok((head, bytes)) = gathered.await else { return };
        // If this fails, the requester waits for some seconds, and reports that no answer came.
        let _ = shared.link.put_body(&name, &join(&head, [&bytes[..]])).await;
    });
}

/// A log file that may be sent.
struct FoundFile {
    path: String,
    modified: SystemTime,
    len: u64,
}

/// The files of a directory and of its subdirectories, the newest first, as many as there is room for.
fn gather(dir: &Path) -> io::Result<(LogsHead, Vec<u8>)> {
    let dir = HeldDir::open(dir)?;
    let mut found = find(&dir)?;
    found.sort_by(|a, b| (b.modified, &a.path).cmp(&(a.modified, &b.path)));
    let (mut head, mut bytes) = (LogsHead { has_logs: true, ..LogsHead::default() }, Vec::new());
    for file in found {
        let has_room = head.files.len() < MOST_FILES && file.len <= room(&bytes);
        // A file may be removed at any time: only the journals of the last runs are kept.
        match has_room.then(|| append(&dir, &file.path, &mut bytes)) {
            Some(Ok(len)) => head.files.push((file.path, len)),
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Some(Err(_)) | None => head.left_out += 1,
        }
    }
    Ok((head, bytes))
}

fn room(bytes: &[u8]) -> u64 {
    (MOST_BYTES - bytes.len()) as u64
}

/// Finds the log files in the directory and in its subdirectories. A worker writes into such a file, and may put
/// something else in its place at any time. So each file is opened first; links, pipes and the like are ignored.
fn find(dir: &HeldDir) -> io::Result<Vec<FoundFile>> {
    let mut found = Vec::new();
    let names = dir.names()?;
    find_in(dir, "", names.files, &mut found);
    for name in names.dirs {
        // It may have been removed.
        let Ok(run) = dir.dir(&name) else { continue };
        let files = run.names().map(|names| names.files);
        find_in(&run, &format!("{name}/"), files.unwrap_or_default(), &mut found);
    }
    Ok(found)
}

fn find_in(dir: &HeldDir, prefix: &str, files: Vec<String>, found: &mut Vec<FoundFile>) {
    for name in files {
        let path = format!("{prefix}{name}");
        if !is_log_path(&path) {
            continue;
        }
        // It is counted as left out if it cannot be opened when it is to be sent, either.
        let metadata = dir.file(&name).and_then(|file| file.metadata());
        let len = metadata.as_ref().map_or(0, fs::Metadata::len);
        let modified = metadata.and_then(|metadata| metadata.modified());
        let modified = modified.unwrap_or(SystemTime::UNIX_EPOCH);
        found.push(FoundFile { path, modified, len });
    }
}

/// Appends a file, and returns its length. The file may grow while it is read. A worker that was taken over writes
/// into the same directory, and may have replaced the file, or the directory, since it was found.
fn append(dir: &HeldDir, path: &str, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let before = bytes.len();
    let file = match path.split_once('/') {
        Some((run, name)) => dir.dir(run)?.file(name)?,
        None => dir.file(path)?,
    };
    let read = file.take(room(bytes)).read_to_end(bytes);
    read.inspect_err(|_| bytes.truncate(before))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_are_gathered_the_newest_first_and_links_are_not_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("run-1/too/deep")).expect("directories");
        for (path, seconds) in [("run-1/worker-0.jsonl", 10), ("run-1/old.jsonl", 5)] {
            fs::write(at(path), path).expect("a file");
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            let file = fs::File::options().write(true).open(at(path));
            file.and_then(|file| file.set_modified(time)).expect("a time");
        }
        fs::write(at("run-1/too/deep/file"), "x").expect("a file");
        symlink("/etc/passwd", at("run-1/link.jsonl")).expect("a link");
        let (head, bytes) = gather(dir.path()).expect("logs");
        let names: Vec<_> = head.files.iter().map(|(path, _)| &path[..]).collect();
        assert_eq!(names, ["run-1/worker-0.jsonl", "run-1/old.jsonl"]);
        assert_eq!(bytes, b"run-1/worker-0.jsonlrun-1/old.jsonl");
        assert_eq!(head.left_out, 0);
    }

    /// A worker writes into the same directory, and may replace a file that was found.
    #[test]
    fn what_has_taken_the_place_of_a_file_is_neither_followed_nor_waited_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |path: &str| dir.path().join(path);
        fs::write(at("secret"), "secret").expect("a file");
        symlink(at("secret"), at("link")).expect("a link");
        let made = std::process::Command::new("mkfifo").arg(at("pipe")).status();
        assert!(made.expect("a program").success());
        let mut bytes = b"before".to_vec();
        let logs = HeldDir::open(dir.path()).expect("a directory");
        for path in ["link", "pipe"] {
            assert!(append(&logs, path, &mut bytes).is_err(), "{path}");
        }
        assert_eq!(bytes, b"before");
    }

    /// A worker may replace the directory of a run as well, before or after its files were found.
    #[test]
    fn a_link_in_the_place_of_the_directory_of_a_run_is_not_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |path: &str| dir.path().join(path);
        for path in ["secrets", "logs/run-1"] {
            fs::create_dir_all(at(path)).expect("a directory");
            fs::write(at(path).join("worker-0.jsonl"), path).expect("a file");
        }
        let logs = HeldDir::open(&at("logs")).expect("a directory");
        let found = find(&logs).expect("files");
        assert_eq!(found.len(), 1);
        fs::rename(at("logs/run-1"), at("elsewhere")).expect("another name");
        symlink(at("secrets"), at("logs/run-1")).expect("a link");
        let mut bytes = Vec::new();
        assert!(append(&logs, &found[0].path, &mut bytes).is_err());
        assert!(bytes.is_empty() && find(&logs).expect("files").is_empty());
    }
}
