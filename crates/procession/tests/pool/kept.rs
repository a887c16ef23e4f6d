//! Tasks that ended their workers are kept, and run again alone.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use libtest_mimic::Trial;
use procession::{
    Blob, Context, Encoding, Executor, Exit, Failure, KeptCause, KeptInput, KeptTask, Limits,
    PoolError, PoolEvent, Registry, Retries, Task, TaskError,
};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::harness::{Gate, eventually};
use crate::tasks::{Bad, Echo, Ending, Pass, quiet, warm_up};

pub(crate) fn trials() -> Vec<Trial> {
    trials![
        a_kept_task_ends_its_replay_as_it_ended_its_worker,
        a_crash_in_a_function_of_c_is_replayed,
        a_task_that_grew_too_large_is_kept_with_its_limit,
        a_task_that_overflows_the_stack_of_a_thread_is_replayed_with_such_a_stack,
        a_task_that_ran_too_long_is_kept_and_replayed_without_its_timeout,
        blobs_and_the_initializer_are_kept_and_the_output_of_a_replay_is_printed,
        of_a_chunk_the_one_task_is_kept,
        of_several_tasks_at_a_time_those_that_ran_are_kept,
        a_task_that_is_ended_because_of_another_is_not_kept,
        a_task_that_fails_is_not_kept,
        a_task_whose_retry_succeeds_is_kept_and_reported,
        each_task_has_one_file_that_of_its_last_crash,
        an_initializer_that_crashes_is_kept,
        a_directory_that_cannot_be_written_to_is_refused,
        a_task_that_cannot_be_kept_says_so_in_its_error,
    ]
}

pub(crate) fn add_to(registry: Registry) -> Registry {
    registry.with::<Load>().with::<Paint>().with::<CrashOnce>().with::<Grow>()
}

/// The initializer of `Paint`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Load(u32);

impl Task for Load {
    const NAME: &'static str = "load";
    type Output = ();

    fn run(self, context: &Context) -> Result<(), Failure> {
        context.local(|| self.0);
        Ok(())
    }
}

/// Crashes in a worker with this variable, and gives an output elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Paint {
    pub(crate) image: Blob,
    pub(crate) scale: f64,
}

pub(crate) const CRASHES: &str = "PROCESSION_TEST_PAINT_CRASHES";

impl Task for Paint {
    const NAME: &'static str = "pool::kept/paint it";
    const ENCODING: Encoding = Encoding::Binary;
    type Output = (u32, Blob, f64);

    fn run(self, context: &Context) -> Result<Self::Output, Failure> {
        if std::env::var_os(CRASHES).is_some() {
            std::process::abort();
        }
        let loaded = context.get_local::<u32>().ok_or("nothing is loaded")?;
        context.say(format_args!("painting, attempt {}", context.attempt()));
        Ok((*loaded, self.image, self.scale))
    }
}

/// Aborts at the attempts up to this one.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct CrashOnce(u32);

impl Task for CrashOnce {
    const NAME: &'static str = "crash once";
    type Output = u32;

    fn run(self, context: &Context) -> Result<u32, Failure> {
        if context.attempt() <= self.0 {
            std::process::abort();
        }
        Ok(context.attempt())
    }
}

/// Allocates this number of bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Grow(usize);

impl Task for Grow {
    const NAME: &'static str = "grow";
    type Output = usize;

    fn run(self, _: &Context) -> Result<usize, Failure> {
        Ok(std::hint::black_box(Vec::<u8>::with_capacity(self.0)).capacity())
    }
}

pub(crate) fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn files(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).expect("a directory").flatten().map(|entry| entry.path()).collect()
}

#[track_caller]
pub(crate) fn kept(error: &TaskError) -> PathBuf {
    let file = error.kept_file().unwrap_or_else(|| panic!("no file: {error:?}"));
    let text = error.to_string();
    assert!(text.ends_with(&format!("; its input is kept in {}", file.display())), "{text}");
    file.to_owned()
}

/// This program, asked to replay a file.
pub(crate) fn command(file: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.env("PROCESSION_REPLAY", file).stdin(Stdio::null());
    command
}

pub(crate) fn replay(file: &Path) -> Output {
    command(file).output().expect("this program runs")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn exit_of(output: &Output) -> Exit {
    Exit::from(output.status)
}

fn a_kept_task_ends_its_replay_as_it_ended_its_worker() {
    let dir = directory();
    let pool = quiet().workers(2).keep_crashes(dir.path()).build().expect("a pool");
    let endings = [
        Ending::Abort,
        Ending::Segfault,
        Ending::StackOverflow,
        Ending::Kill,
        Ending::Exit(42),
        Ending::Exit(0),
    ];
    for ending in &endings {
        let error = pool.submit(Bad(ending.clone())).result().expect_err("an error");
        let file = kept(&error);
        let TaskError::WorkerDied(death) = &error else { panic!("{error:?}") };
        let task = KeptTask::read(&file).expect("a kept task");
        assert_eq!((task.task(), task.pid()), (Bad::NAME, death.pid));
        assert_eq!(task.cause(), KeptCause::Died(death.exit));
        let decoded = task.decode::<Bad>().expect("the task");
        assert_eq!(format!("{decoded:?}"), format!("{:?}", Bad(ending.clone())));
        let mode = fs::metadata(&file).expect("a file").permissions().mode();
        assert_eq!(mode & 0o077, 0, "for this user alone");
        let output = replay(&file);
        assert_eq!(exit_of(&output), death.exit, "{ending:?}: {output:?}");
        let said = text(&output.stderr);
        let announced = format!("replaying task {:?} of {}", Bad::NAME, file.display());
        assert!(said.contains(&announced), "{said}");
        assert!(said.contains(&format!("which died of {} in", death.exit)), "{said}");
    }
    assert_eq!(files(dir.path()).len(), endings.len());
}

fn a_crash_in_a_function_of_c_is_replayed() {
    let dir = directory();
    let pool = quiet().workers(1).keep_crashes(dir.path()).build().expect("a pool");
    let error = pool.submit(crate::backtraces::Decode::broken()).result().expect_err("an error");
    let text = error.to_string();
    if cfg!(all(target_os = "linux", not(feature = "portable"))) {
        assert!(text.contains(", in decode_row <- decode_image <- "), "{text}");
    }
    assert_eq!(replay(&kept(&error)).status.signal(), Some(Signal::SEGV.as_raw()));
}

fn a_task_that_grew_too_large_is_kept_with_its_limit() {
    let dir = directory();
    let limits = Limits::none().address_space(4 << 30);
    let pool = quiet().workers(1).limits(limits).keep_crashes(dir.path()).build().expect("a pool");
    let error = pool.submit(Grow(8 << 30)).result().expect_err("an error");
    let TaskError::WorkerDied(death) = &error else { panic!("{error:?}") };
    let output = replay(&kept(&error));
    assert_eq!(exit_of(&output), death.exit, "{output:?}");
}

fn a_task_that_overflows_the_stack_of_a_thread_is_replayed_with_such_a_stack() {
    let dir = directory();
    let builder = quiet().workers(1).concurrency(2).stack_size(512 * 1024);
    let pool = builder.keep_crashes(dir.path()).build().expect("a pool");
    let error = pool.submit(Bad(Ending::StackOverflow)).result().expect_err("an error");
    let output = replay(&kept(&error));
    assert_eq!(output.status.signal(), Some(Signal::ABORT.as_raw()), "{output:?}");
    let said = text(&output.stderr);
    assert!(said.contains("thread 'replay'") && said.contains("overflowed its stack"), "{said}");
}

fn a_task_that_ran_too_long_is_kept_and_replayed_without_its_timeout() {
    let (dir, gate) = (directory(), Gate::new());
    let limit = Duration::from_millis(300);
    let builder = quiet().workers(1).timeout(limit).keep_crashes(dir.path());
    let pool = builder.build().expect("a pool");
    let error = pool.submit(Pass(gate.path())).result().expect_err("an error");
    assert!(matches!(error, TaskError::TimedOut { .. }), "{error:?}");
    let file = kept(&error);
    let cause = KeptTask::read(&file).expect("a kept task").cause();
    assert_eq!(cause, KeptCause::TimedOut(limit));
    let before = gate.arrivals();
    let replay =
        command(&file).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a process");
    gate.await_arrivals(before + 1);
    std::thread::sleep(2 * limit);
    gate.open();
    let pid = replay.id();
    let output = replay.wait_with_output().expect("its output");
    assert_eq!(exit_of(&output), Exit::Code(0), "{output:?}");
    assert_eq!(text(&output.stdout), format!("{pid}\n"), "the output of the task");
}

fn blobs_and_the_initializer_are_kept_and_the_output_of_a_replay_is_printed() {
    let dir = directory();
    let builder = quiet().workers(1).initializer(Load(7)).worker_env(CRASHES, "1");
    let pool = builder.keep_crashes(dir.path()).build().expect("a pool");
    // Larger than a record, so that it is in sealed memory.
    let image: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
    let paint = Paint { image: image.clone().into(), scale: f64::INFINITY };
    let error = pool.submit(paint.clone()).result().expect_err("an error");
    let file = kept(&error);
    let name = file.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(name.ends_with("-pool__kept_paint_it.procession"), "{name}");

    let task = KeptTask::read(&file).expect("a kept task");
    assert_eq!(task.decode::<Paint>(), Ok(paint));
    let wrong = task.decode::<Echo>().expect_err("another type").to_string();
    assert!(wrong.contains("pool::kept/paint it") && wrong.contains("Echo"), "{wrong}");
    let output = task.replay(&add_to(Registry::new())).expect("an output");
    assert_eq!(output.decode(), Ok((7_u32, Blob::from(image), f64::INFINITY)));

    let output = replay(&file);
    assert_eq!(exit_of(&output), Exit::Code(0), "{output:?}");
    let printed = text(&output.stdout);
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines[0], "painting, attempt 1");
    assert!(lines[1].ends_with(" bytes in the binary encoding"), "{printed}");
    assert_eq!(lines[2..], ["blob 0: 300000 bytes"]);
}

fn of_a_chunk_the_one_task_is_kept() {
    let dir = directory();
    let pool = quiet().workers(1).keep_crashes(dir.path()).build().expect("a pool");
    warm_up(&pool);
    let bad = |n: usize| if n == 137 { Ending::Abort } else { Ending::None };
    let results: Vec<_> = pool.map((0..300).map(|n| Bad(bad(n)))).collect();
    let errors: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert_eq!(errors.len(), 1);
    let task = KeptTask::read(kept(errors[0])).expect("a kept task");
    assert!(matches!(task.decode(), Ok(Bad(Ending::Abort))));
    assert_eq!(files(dir.path()).len(), 1);
}

fn of_several_tasks_at_a_time_those_that_ran_are_kept() {
    let (dir, gate) = (directory(), Gate::new());
    let builder = quiet().workers(1).concurrency(2).keep_crashes(dir.path());
    let pool = builder.build().expect("a pool");
    let beside = pool.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    let error = pool.submit(Bad(Ending::Abort)).result().expect_err("an error");
    let other = beside.result().expect_err("it ended with its worker");
    let names: HashSet<_> = [kept(&error), kept(&other)]
        .iter()
        .map(|file| KeptTask::read(file).expect("a kept task").task().to_owned())
        .collect();
    assert_eq!(names, HashSet::from([Bad::NAME.to_owned(), Pass::NAME.to_owned()]));
}

fn a_task_that_is_ended_because_of_another_is_not_kept() {
    let (dir, gate, endless) = (directory(), Gate::new(), Gate::new());
    let builder = quiet().workers(1).concurrency(2).keep_crashes(dir.path());
    let pool = builder.build().expect("a pool");
    let beside = pool.submit(Pass(gate.path()));
    gate.await_arrivals(1);
    let options = procession::TaskOptions::new().timeout(Duration::from_millis(300));
    let error = pool.submit_with(options, Pass(endless.path())).result().expect_err("an error");
    assert!(matches!(error, TaskError::TimedOut { .. }), "{error:?}");
    let Err(TaskError::WorkerDied(death)) = beside.result() else { panic!("it lives") };
    assert!(death.is_collateral);
    assert_eq!(death.kept, None);
    assert_eq!(files(dir.path()), [kept(&error)]);
}

fn a_task_that_fails_is_not_kept() {
    let dir = directory();
    let pool = quiet().workers(1).keep_crashes(dir.path()).build().expect("a pool");
    for ending in [Ending::Fail, Ending::Panic, Ending::None] {
        let result = pool.submit(Bad(ending)).result();
        assert_eq!(result.err().and_then(|error| error.kept_file().map(Path::to_owned)), None);
    }
    assert_eq!(files(dir.path()), [] as [PathBuf; 0]);
}

/// The inputs that were reported as kept, with their tasks.
type Reported = Arc<Mutex<Vec<(u64, KeptInput)>>>;

fn reporting() -> (procession::Builder, Reported) {
    let reported = Reported::default();
    let add = Arc::clone(&reported);
    let builder = quiet().on_event(move |event| {
        if let PoolEvent::InputKept { task, input, .. } = event {
            let id = task.to_string().parse().expect("a number");
            add.lock().expect("no panic").push((id, input.clone()));
        }
    });
    (builder, reported)
}

fn a_task_whose_retry_succeeds_is_kept_and_reported() {
    let dir = directory();
    let (builder, reported) = reporting();
    let builder = builder.workers(1).retries(Retries::times(1)).keep_crashes(dir.path());
    let pool = builder.build().expect("a pool");
    let future = pool.submit(CrashOnce(1));
    let id = future.id().to_string().parse().expect("a number");
    assert_eq!(future.result(), Ok(2));
    let files = files(dir.path());
    assert_eq!(files.len(), 1);
    let reported = reported.lock().expect("no panic");
    let reported: Vec<_> = reported.iter().map(|(id, input)| (*id, input.file())).collect();
    assert_eq!(reported, [(id, Some(&*files[0]))]);
    assert_eq!(exit_of(&replay(&files[0])), Exit::Signal(Signal::ABORT.as_raw()));
}

fn each_task_has_one_file_that_of_its_last_crash() {
    let dir = directory();
    let (builder, reported) = reporting();
    let builder = builder.workers(1).retries(Retries::times(2)).keep_crashes(dir.path());
    let pool = builder.build().expect("a pool");
    let errors: Vec<_> = (0..2).map(|_| pool.submit(CrashOnce(9)).result().unwrap_err()).collect();
    for error in &errors {
        let TaskError::WorkerDied(death) = error else { panic!("{error:?}") };
        let task = KeptTask::read(kept(error)).expect("a kept task");
        assert_eq!((death.attempts, task.pid()), (3, death.pid));
    }
    assert_eq!(files(dir.path()).len(), 2);
    assert_eq!(reported.lock().expect("no panic").len(), 6);
}

fn an_initializer_that_crashes_is_kept() {
    let dir = directory();
    let builder = quiet().workers(1).initializer(Bad(Ending::Abort)).keep_crashes(dir.path());
    let pool = builder.build().expect("a pool");
    let error = pool.submit(Echo(String::new())).result().expect_err("an error").to_string();
    let files = files(dir.path());
    let [file] = &files[..] else { panic!("{files:?}") };
    assert!(error.contains(&format!("; its input is kept in {}", file.display())), "{error}");
    assert_eq!(replay(file).status.signal(), Some(Signal::ABORT.as_raw()));
}

fn a_directory_that_cannot_be_written_to_is_refused() {
    let dir = directory();
    let file = dir.path().join("file");
    fs::write(&file, "").expect("written");
    let refused = quiet().keep_crashes(file.join("below")).build().expect_err("a refusal");
    let PoolError::Setting(reason) = refused else { panic!("{refused:?}") };
    assert!(reason.starts_with(&format!("cannot keep crashes in {}", file.display())), "{reason}");
    // One that does not exist yet is made.
    let below = dir.path().join("a/b");
    drop(quiet().workers(1).keep_crashes(&below).build().expect("a pool"));
    assert_eq!(files(&below), [] as [PathBuf; 0]);
}

fn a_task_that_cannot_be_kept_says_so_in_its_error() {
    let dir = directory();
    let (builder, reported) = reporting();
    let pool = builder.workers(1).keep_crashes(dir.path()).build().expect("a pool");
    dir.close().expect("removed");
    let error = pool.submit(Bad(Ending::Abort)).result().expect_err("an error");
    assert!(error.to_string().contains("; its input could not be kept: "), "{error}");
    assert_eq!(error.kept_file(), None);
    eventually("a report", || !reported.lock().expect("no panic").is_empty());
    let reported = reported.lock().expect("no panic");
    let [(_, input)] = &reported[..] else { panic!("{reported:?}") };
    assert!(input.file().is_none() && input.failure().is_some(), "{input:?}");
}
