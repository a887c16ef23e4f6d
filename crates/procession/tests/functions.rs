//! Tasks that are functions, in a test program whose `main` is that of the test harness: the attribute
//! `procession::test` makes it its own worker, under `cargo test` and under nextest.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use procession::{
    Blob, Context, DowncastError, Encoding, Executor, Failure, ProcessPool, Retries, Sequential,
    Task, TaskError, ThreadPool,
};
use serde::{Deserialize, Serialize};

/// A pool whose workers' output is not repeated.
fn pool() -> ProcessPool {
    ProcessPool::builder().workers(2).on_output(|_| {}).build().expect("a pool")
}

/// The output of a task on each executor, which must be the same.
fn everywhere<T: Task>(task: impl Fn() -> T) -> Result<T::Output, TaskError>
where
    T::Output: PartialEq + std::fmt::Debug,
{
    let here = Sequential::new().submit(task()).result();
    assert_eq!(here, ThreadPool::new(1).submit(task()).result());
    assert_eq!(here, pool().submit(task()).result());
    here
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Thumb {
    path: PathBuf,
    size: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum ThumbError {
    TooSmall { least: u32 },
}

impl std::fmt::Display for ThumbError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooSmall { least } => write!(f, "smaller than {least}"),
        }
    }
}

impl Error for ThumbError {}

/// Makes a thumbnail.
#[procession::task]
fn thumb(path: PathBuf, size: u32) -> Result<Thumb, ThumbError> {
    if size < 10 {
        return Err(ThumbError::TooSmall { least: 10 });
    }
    Ok(Thumb { path, size })
}

#[procession::test]
fn a_function_is_a_task_on_every_executor() {
    let path = Path::new("a.png").to_owned();
    assert_eq!(everywhere(|| thumb(path.clone(), 200)), Ok(Thumb { path, size: 200 }));
}

#[procession::test]
fn a_function_is_mapped_over_an_iterator() {
    let paths = (0..100).map(|n| PathBuf::from(n.to_string()));
    let thumbs = pool().map(paths.map(|path| thumb(path, 200))).collect::<Result<Vec<_>, _>>();
    let thumbs = thumbs.expect("outputs");
    assert!(thumbs.iter().enumerate().all(|(n, it)| it.path == Path::new(&n.to_string())));
}

#[procession::test]
fn the_error_of_a_function_comes_back_as_its_own_type() {
    let error = everywhere(|| thumb(PathBuf::new(), 1)).unwrap_err();
    assert_eq!(error.to_string(), "smaller than 10");
    assert_eq!(error.downcast(), Ok(ThumbError::TooSmall { least: 10 }));
    assert!(matches!(error.downcast::<Thumb>(), Err(DowncastError::OfAnotherType { .. })));
}

mod shapes {
    //! What functions may look like.

    use super::*;

    #[procession::task]
    pub(crate) fn nothing() {}

    /// Patterns, in the order in which nothing else is.
    #[procession::task]
    pub(crate) fn patterns(mut sum: u32, (a, b): (u32, u32), _: String, [c]: [u32; 1]) -> u32 {
        sum += a + b + c;
        sum
    }

    #[procession::task]
    pub(crate) fn first(context: &Context, by: u32) -> (u32, u32) {
        (context.attempt(), by)
    }

    #[procession::task]
    pub(crate) fn in_the_middle(a: u32, context: &procession::Context, b: u32) -> u32 {
        a + b + context.attempt()
    }

    #[procession::task]
    pub(crate) fn r#type(r#match: bool, r#fn: Vec<u8>) -> usize {
        if r#match { r#fn.len() } else { 0 }
    }

    #[procession::task(name = "a name by hand", encoding = binary)]
    pub(crate) fn named(value: f64) -> Option<Option<f64>> {
        Some(Some(value).filter(|value| !value.is_nan()))
    }

    #[procession::task]
    pub(crate) fn blobs(#[serde(default)] bytes: Blob) -> Blob {
        bytes.iter().rev().copied().collect::<Vec<_>>().into()
    }

    /// Calls itself on another executor, as an `async fn` may.
    #[procession::task]
    pub(crate) fn factorial(n: u64) -> Result<u64, TaskError> {
        if n == 0 { Ok(1) } else { Ok(n * Sequential::new().submit(factorial(n - 1)).result()?) }
    }

    #[procession::task]
    #[cfg(any())]
    pub(crate) fn absent(_: NoSuchType) {}

    #[cfg_attr(all(), doc = "Documented.", inline(never))]
    #[allow(unused_variables)]
    #[must_use]
    #[procession::task]
    pub(crate) fn attributes(unused: u8) {}

    /// A name of this module that the function does not hide.
    #[procession::task]
    pub(crate) fn names(context: u8, run: u8, output: u8, error: u8) -> Result<u8, String> {
        fn sum(of: [u8; 4]) -> u8 {
            of.into_iter().sum()
        }
        Ok(sum([context, run, output, error]))
    }
}

#[procession::test]
fn functions_of_all_shapes_are_tasks() {
    use shapes::*;
    assert_eq!(everywhere(nothing), Ok(()));
    assert_eq!(everywhere(|| patterns(1, (2, 3), "x".into(), [4])), Ok(10));
    assert_eq!(everywhere(|| first(7)), Ok((1, 7)));
    assert_eq!(everywhere(|| in_the_middle(1, 2)), Ok(4));
    assert_eq!(everywhere(|| r#type(true, vec![1, 2])), Ok(2));
    assert_eq!(everywhere(|| named(f64::NAN)), Ok(Some(None)));
    assert_eq!(everywhere(|| blobs(vec![1, 2, 3].into())), Ok(vec![3, 2, 1].into()));
    assert_eq!(everywhere(|| factorial(5)), Ok(120));
    assert_eq!(everywhere(|| attributes(1)), Ok(()));
    assert_eq!(everywhere(|| names(1, 2, 3, 4)), Ok(10));
    assert_eq!(<shapes::named as Task>::NAME, "a name by hand");
    assert_eq!(<shapes::named as Task>::ENCODING, Encoding::Binary);
    assert_eq!(<shapes::r#type as Task>::NAME, "functions::shapes::type");
}

mod failing {
    //! Functions with errors of all kinds.

    use super::*;

    pub(crate) type Fails = Result<(), Box<dyn Error>>;

    #[procession::task]
    pub(crate) fn by_anyhow() -> anyhow::Result<()> {
        use anyhow::Context as _;
        Err(io::Error::other("inner")).context("outer")
    }

    #[procession::task]
    pub(crate) fn by_box() -> Result<(), Box<dyn Error>> {
        Err("a box")?
    }

    #[procession::task]
    pub(crate) fn by_sendable_box() -> Result<(), Box<dyn Error + Send + Sync>> {
        Err(anyhow::Error::from(io::Error::other("inner")).context("outer"))?
    }

    #[procession::task]
    pub(crate) fn by_io() -> io::Result<()> {
        Err(io::Error::other("io"))
    }

    #[procession::task]
    pub(crate) fn by_text() -> Result<(), &'static str> {
        Err("a text")
    }

    #[procession::task]
    pub(crate) fn by_string() -> Result<(), String> {
        Err("a string".to_owned())
    }

    #[procession::task]
    pub(crate) fn by_failure() -> Result<(), Failure> {
        Err(anyhow::anyhow!("anyhow in a failure"))?
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    pub(crate) struct NoError(pub u8);

    impl std::fmt::Display for NoError {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "number {}", self.0)
        }
    }

    #[procession::task]
    pub(crate) fn by_value() -> Result<(), NoError> {
        Err(NoError(7))
    }

    /// An alias of another name: the result itself is the output.
    #[procession::task]
    pub(crate) fn by_alias() -> core::result::Result<Result<u8, String>, String> {
        Ok(Err("inside".to_owned()))
    }
}

#[procession::test]
fn errors_of_all_kinds_keep_their_messages_and_causes() {
    use failing::*;
    let chain = |error: TaskError| {
        let mut chain = vec![error.to_string()];
        let mut next = error.source();
        while let Some(error) = next {
            chain.push(error.to_string());
            next = error.source();
        }
        chain
    };
    assert_eq!(chain(everywhere(by_anyhow).unwrap_err()), ["outer", "inner"]);
    assert_eq!(chain(everywhere(by_box).unwrap_err()), ["a box"]);
    assert_eq!(chain(everywhere(by_sendable_box).unwrap_err()), ["outer", "inner"]);
    assert_eq!(chain(everywhere(by_io).unwrap_err()), ["io"]);
    assert_eq!(chain(everywhere(by_text).unwrap_err()), ["a text"]);
    assert_eq!(chain(everywhere(by_string).unwrap_err()), ["a string"]);
    assert_eq!(chain(everywhere(by_failure).unwrap_err()), ["anyhow in a failure"]);
    let error = everywhere(by_value).unwrap_err();
    assert_eq!(error.downcast(), Ok(NoError(7)));
    assert_eq!(chain(error), ["number 7"]);
    assert_eq!(everywhere(by_alias), Ok(Err("inside".to_owned())));
    let fails: Fails = Ok(());
    assert!(fails.is_ok());
}

#[procession::task]
fn abort(last: String) {
    println!(
        "{last}\n\nnote: run with `RUST_BACKTRACE=1` environment variable to display a backtrace"
    );
    std::process::abort()
}

#[procession::test]
fn a_death_quotes_the_last_line_that_tells_something() {
    let error = pool().submit(abort("about to abort".into())).result().unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("into task \"functions::abort\"")
            && text.ends_with("; it last said: about to abort"),
        "{text}"
    );
}

#[procession::task]
fn hang() {
    println!("in an endless loop");
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[procession::test]
fn a_timeout_names_task_worker_process_and_last_words() {
    let pool = ProcessPool::builder().workers(1).on_output(|_| {});
    let pool = pool.timeout(Duration::from_millis(500)).build().expect("a pool");
    let error = pool.submit(hang()).result().unwrap_err();
    let TaskError::TimedOut { task, worker: 0, pid, attempts: 1, last_output, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(task, "functions::hang");
    assert_eq!(last_output.last().map(String::as_str), Some("in an endless loop"));
    let text = format!(
        "task \"functions::hang\" ran longer than 500 ms and was ended together with worker 0 (pid \
         {pid}); it last said: in an endless loop"
    );
    assert_eq!(error.to_string(), text);
}

#[procession::test]
fn a_worker_of_a_test_prints_only_what_its_tasks_print() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&lines);
    let pool = ProcessPool::builder().workers(1).retries(Retries::none());
    let pool = pool.on_output(move |it| hears.lock().expect("lines").push(it.line.to_owned()));
    let pool = pool.build().expect("a pool");
    let _ = pool.submit(abort("a line".into())).result();
    pool.shutdown(procession::Shutdown::Wait);
    let lines = lines.lock().expect("lines");
    assert_eq!(lines.first().map(String::as_str), Some("a line"), "{lines:?}");
}

#[procession::task]
fn doubled(numbers: BTreeMap<String, u32>) -> BTreeMap<String, u32> {
    numbers.into_iter().map(|(name, number)| (name, 2 * number)).collect()
}

/// Also of a test that is no `procession::test`, since others of this program are.
#[test]
fn a_pool_in_a_plain_test_of_the_same_program_works() {
    let numbers = || BTreeMap::from([("a".to_owned(), 1)]);
    assert_eq!(pool().submit(doubled(numbers())).result().expect("an output")["a"], 2);
}

/// A worker may be started by the name of this test.
#[procession::test]
#[ignore = "to be run with --ignored only"]
fn an_ignored_test_serves_as_well() {}

#[procession::test]
#[should_panic = "as it should"]
fn a_test_that_should_panic_may_have_a_pool() {
    assert_eq!(pool().submit(shapes::nothing()).result(), Ok(()));
    panic!("as it should");
}

#[procession::test]
fn a_test_may_return_a_result() -> Result<(), Box<dyn Error>> {
    pool().submit(shapes::nothing()).result()?;
    Ok(())
}

#[procession::test]
#[tokio::test]
async fn a_test_of_a_runtime_may_have_a_pool() {
    assert_eq!(pool().submit(outside()).await, Ok(true));
}

/// Whether no runtime is entered.
#[procession::task]
fn outside() -> bool {
    tokio::runtime::Handle::try_current().is_err()
}

#[procession::test]
fn tasks_of_a_library_are_found_and_its_pool_works() {
    let texts = ["one two", "three"].map(str::to_owned);
    assert_eq!(example_library::count_words(&texts), Ok(vec![2, 1]));
}

#[procession::test]
fn a_worker_program_of_another_kind_is_given_its_arguments() {
    let this = std::env::current_exe().expect("a path");
    let script = "exec \"$0\" --exact an_ignored_test_serves_as_well --include-ignored --nocapture";
    let arguments = ["-c".as_ref(), script.as_ref(), this.as_os_str()];
    let pool = ProcessPool::builder().workers(1).on_output(|_| {}).worker_program("/bin/sh");
    let pool = pool.worker_args(arguments).build().expect("a pool");
    assert_eq!(pool.submit(shapes::first(7)).result(), Ok((1, 7)));
}

#[procession::test]
fn a_test_replays_the_task_that_the_environment_names() {
    let dir = tempfile::tempdir().expect("a directory");
    let pool = ProcessPool::builder().workers(1).on_output(|_| {}).keep_crashes(dir.path());
    let error = pool.build().expect("a pool").submit(abort(String::new())).result().unwrap_err();
    let mut this = Command::new(std::env::current_exe().expect("a path"));
    this.args(["--exact", "an_ignored_test_serves_as_well", "--include-ignored"]);
    let replay = this.env("PROCESSION_REPLAY", error.kept_file().expect("a file")).output();
    assert_eq!(replay.expect("this program").status.signal(), Some(libc::SIGABRT));
}
