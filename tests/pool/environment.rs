//! Odd surroundings in which a pool must work all the same.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use libtest_mimic::Trial;

use crate::program::{assert_works, command, command_after, command_of};

pub fn trials() -> Vec<Trial> {
    trials![
        nothing_is_left_behind_by_a_pool,
        a_hundred_thousand_tasks_leave_no_trace,
        it_works_with_a_temporary_directory_whose_name_is_too_long_for_sockets,
        it_works_with_a_temporary_directory_that_is_missing,
        it_works_with_a_temporary_directory_that_is_read_only,
        it_works_with_a_temporary_directory_whose_name_is_odd,
        it_works_with_standard_input_closed,
        it_works_with_64_open_files,
        more_blobs_are_kept_than_there_are_descriptors,
        what_is_large_is_sent_with_few_descriptors,
        what_is_large_is_sent_when_there_are_descriptors_again,
        a_pool_that_can_never_send_what_is_large_gives_up,
        it_works_with_the_current_directory_deleted,
        it_works_with_a_umask_of_0,
        it_works_with_the_signal_for_broken_pipes_ignored,
        it_works_in_a_path_with_spaces_and_unicode,
        it_works_after_its_program_file_was_deleted,
    ]
}

fn a_hundred_thousand_tasks_leave_no_trace() {
    if cfg!(target_os = "linux") {
        assert_works(&mut command("endures"));
    }
}

fn nothing_is_left_behind_by_a_pool() {
    let tmp = tempfile::tempdir().expect("a directory");
    assert_works(command("leaks").env("TMPDIR", tmp.path()));
    assert_eq!(fs::read_dir(tmp.path()).expect("a directory").count(), 0, "files");
}

fn works_with_tmpdir(dir: &Path) {
    assert_works(command("works").env("TMPDIR", dir));
}

fn it_works_with_a_temporary_directory_whose_name_is_too_long_for_sockets() {
    let tmp = tempfile::tempdir().expect("a directory");
    let long = tmp.path().join("x".repeat(100));
    fs::create_dir(&long).expect("a directory");
    works_with_tmpdir(&long);
}

fn it_works_with_a_temporary_directory_that_is_missing() {
    works_with_tmpdir(Path::new("/no/such/directory"));
}

fn it_works_with_a_temporary_directory_that_is_read_only() {
    let tmp = tempfile::tempdir().expect("a directory");
    fs::set_permissions(tmp.path(), fs::Permissions::from_mode(0o555)).expect("a mode");
    works_with_tmpdir(tmp.path());
    // Modes do not bind a superuser; here nobody can make a file.
    works_with_tmpdir(Path::new("/proc"));
}

fn it_works_with_a_temporary_directory_whose_name_is_odd() {
    let tmp = tempfile::tempdir().expect("a directory");
    let odd = tmp.path().join("ünï \"cödé\" \\ dir");
    fs::create_dir(&odd).expect("a directory");
    works_with_tmpdir(&odd);
    assert_works(command("works").env("TMPDIR", "relative").current_dir(tmp.path()));
    assert_works(command("works").env("TMPDIR", ""));
}

fn it_works_with_standard_input_closed() {
    assert_works(&mut command_after("exec <&-", "works"));
}

fn it_works_with_64_open_files() {
    assert_works(&mut command_after("ulimit -n 64", "works"));
}

fn more_blobs_are_kept_than_there_are_descriptors() {
    assert_works(&mut command_after("ulimit -n 128", "keeps blobs"));
}

fn what_is_large_is_sent_with_few_descriptors() {
    assert_works(&mut command_after("ulimit -n 128", "sends with few descriptors"));
}

fn what_is_large_is_sent_when_there_are_descriptors_again() {
    assert_works(&mut command_after("ulimit -n 128", "sends when there are descriptors again"));
}

fn a_pool_that_can_never_send_what_is_large_gives_up() {
    assert_works(&mut command_after("ulimit -n 128", "gives up without descriptors"));
}

fn it_works_with_the_current_directory_deleted() {
    let tmp = tempfile::tempdir().expect("a directory");
    let gone = tmp.path().join("gone");
    fs::create_dir(&gone).expect("a directory");
    assert_works(command_after("rmdir ../gone", "works").current_dir(gone));
}

fn it_works_with_a_umask_of_0() {
    assert_works(&mut command_after("umask 0", "works"));
}

fn it_works_with_the_signal_for_broken_pipes_ignored() {
    assert_works(&mut command_after("trap '' PIPE", "works"));
}

/// A directory on the file system of this program, so that the program can be linked there.
fn nearby() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

fn it_works_in_a_path_with_spaces_and_unicode() {
    let tmp = nearby();
    let program = tmp.path().join("ein prögramm 🇧🇷");
    fs::hard_link(std::env::current_exe().expect("a path"), &program).expect("a link");
    assert_works(&mut command_of(&program, "works"));
}

fn it_works_after_its_program_file_was_deleted() {
    let tmp = nearby();
    let program = tmp.path().join("short-lived");
    fs::hard_link(std::env::current_exe().expect("a path"), &program).expect("a link");
    assert_works(&mut command_of(&program, "works without its file"));
}
