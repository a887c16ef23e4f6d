//! Starts one worker: its sockets, its process, the memory that it shares, and its threads. Runs on the
//! supervisor thread; with a template on one of its own (`template.rs`).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};

use rustix::io::Errno;
use uuid::Uuid;

use super::Output;
use super::child::{self, Child, Ended};
use super::handler::{self, HandlerSetup, StartMarks};
use super::inner::PoolInner;
use super::output::OutputPipes;
use super::socket_dir;
use super::start_dir::AwaitedStart;
use super::supervisor::SupervisorMessage;
use super::template::Template;
use super::worker_handle::WorkerHandle;
use crate::scheduler::NextStart;
use crate::transport::{self, HandshakeMessage, Invitation, Marking, Sent, SharedRegion, Socket};
use procession_os::cgroup::Group;
use procession_os::mark::Mark;

/// Starts a worker process, its watch, listen and handler threads.
pub(super) fn start(pool: &Arc<PoolInner>, handle: &Arc<WorkerHandle>) -> Result<(), NotStarted> {
    transport::prepare().map_err(|short| NotStarted {
        cause: format!("cannot start a worker: {short}"),
        next_start: NextStart::AfterShortage,
    })?;
    let claims = pool.setup.max_calls(handle.worker());
    check_file_size_limit(SharedRegion::size(claims))?;
    let start = begin_start(pool)?;
    let (socket, input) =
        Socket::pair().map_err(|error| NotStarted::new("make a socket for a worker", &error))?;
    // If it cannot be sent, the worker works without it.
    let _ = HandshakeMessage::Begin.send(&socket, &[]);
    let template = pool.setup.template.as_ref();
    let group = pool.setup.control_groups.create_one();
    let group =
        group.map_err(|error| NotStarted::new("make a control group for a worker", &error))?;
    let (invitation, mark) = invite(pool, handle.worker(), &start, &input, template.is_none())?;
    let (rank, child, outputs) = match template {
        None => spawn(pool, &invitation, input, mark.as_ref(), group)?,
        Some(template) => copy(pool, template, handle, &invitation, input, group)?,
    };
    let awaited = StartMarks::new(start, mark, &child);
    // Allocating the region takes as long as the worker needs to load its program; after the start
    // both happen at the same time.
    let region = share_memory(&socket, claims).inspect_err(|_| child.kill_and_reap())?;
    let (segment_bytes, most_sent) = (pool.setup.segment_bytes(), pool.setup.sandbox.most_sent());
    handle.set_started(Arc::clone(&child), region, socket, segment_bytes, most_sent);
    if handle.kill_reason().is_some() {
        child.kill();
    }
    let ended = start_watching(pool, handle, &child, outputs)?;
    let setup = HandlerSetup { handle: Arc::clone(handle), awaited, invitation, rank, ended };
    let its_pool = Arc::clone(pool);
    let attend = move || handler::attend(&its_pool, setup);
    let name = format!("worker-{}", handle.worker());
    let handler = pool.start_thread(name, attend).map_err(|error| {
        child.kill();
        NotStarted::new("start a thread", &error)
    })?;
    pool.add_thread(handler, None);
    Ok(())
}

/// Whether this process has begun to remove what killed programs have left: their directories; their control groups.
static HAS_SWEPT: [AtomicBool; 2] = [AtomicBool::new(false), AtomicBool::new(false)];

/// Orders the [`sweep`], once in a process. Called when a worker is ready, so the sweep delays no start.
pub(super) fn order_sweep(pool: &PoolInner) {
    let [dirs, groups] = HAS_SWEPT.each_ref().map(|it| it.load(Ordering::Relaxed));
    if !dirs || !groups && pool.setup.control_groups.are_there() {
        let _ = pool.supervisor.send(SupervisorMessage::Sweep);
    }
}

/// Removes what killed programs have left, on a thread of its own, since that may take long and the supervisor must not
/// miss a deadline. If the thread cannot be started, the next program removes it.
pub(super) fn sweep(pool: &Arc<PoolInner>) {
    let [dirs, groups] = &HAS_SWEPT;
    let sweeps_dirs = !dirs.swap(true, Ordering::Relaxed);
    let has_groups = pool.setup.control_groups.are_there();
    let sweeps_groups = has_groups && !groups.swap(true, Ordering::Relaxed);
    if !sweeps_dirs && !sweeps_groups {
        return;
    }
    let its_pool = Arc::clone(pool);
    let sweep = move || {
        if sweeps_dirs {
            socket_dir::sweep();
        }
        if sweeps_groups {
            its_pool.setup.control_groups.sweep();
        }
    };
    if let Ok(thread) = pool.start_thread("sweep".to_owned(), sweep) {
        pool.add_thread(thread, None);
    }
}

/// Begins a start that is awaited until the worker is ready.
pub(super) fn begin_start(pool: &PoolInner) -> Result<AwaitedStart, NotStarted> {
    pool.start_dir
        .begin_start()
        .map_err(|error| NotStarted::new("make a directory for the starts of workers", &error))
}

/// Makes the invitation of a worker, and the mark that its process inherits. A copy of a template inherits none.
pub(super) fn invite(
    pool: &PoolInner,
    worker: usize,
    start: &AwaitedStart,
    input: &OwnedFd,
    is_marked: bool,
) -> Result<(Invitation, Option<Mark>), NotStarted> {
    let coordinator = std::process::id();
    let input = transport::identity(input.as_fd()).unwrap_or_default();
    let marking = Marking { coordinator, input, worker };
    let mark = is_marked.then(|| Mark::create(&marking.to_string())).transpose();
    let mark = mark.map_err(|error| NotStarted::new("make a mark for a worker", &error))?.flatten();
    let token = Uuid::new_v4().to_string();
    let number = mark.as_ref().map(Mark::number);
    let awaited = start.dir().to_string_lossy().into_owned();
    let sandbox = pool.setup.sandbox.clone();
    let invitation = Invitation {
        awaited,
        start: start.number(),
        token,
        coordinator,
        input,
        worker,
        sandbox,
        is_template: false,
        mark: number,
    };
    Ok((invitation, mark))
}

/// Has the template make the process. Returns the rank of its program, too.
fn copy(
    pool: &PoolInner,
    template: &Template,
    handle: &WorkerHandle,
    invitation: &Invitation,
    input: OwnedFd,
    group: Option<Group>,
) -> Result<(usize, Arc<Child>, OutputPipes), NotStarted> {
    let (outputs, its_stdout, its_stderr) = OutputPipes::create(&[])
        .map_err(|error| NotStarted::new("make pipes for a worker", &error))?;
    let streams = [input, its_stdout, its_stderr];
    let (rank, child) = template.copy(pool, handle, invitation, streams, group)?;
    Ok((rank, Arc::new(child), outputs))
}

/// Starts the process. Returns the rank of its program, too.
pub(super) fn spawn(
    pool: &PoolInner,
    invitation: &Invitation,
    input: OwnedFd,
    mark: Option<&Mark>,
    group: Option<Group>,
) -> Result<(usize, Arc<Child>, OutputPipes), NotStarted> {
    let (rank, program) = pool.setup.programs.current();
    let (env, supervisor) = (&pool.setup.worker_env, pool.supervisor.clone());
    let spawned = Child::spawn(program, invitation, env, input, mark, group, supervisor);
    let (child, outputs) = spawned.map_err(|error| {
        let not_started = NotStarted::new(&format!("start {}", program.path.display()), &error);
        // A shortage is not a fault of the program.
        let is_its_fault = not_started.next_start != NextStart::AfterShortage
            && error.kind() != io::ErrorKind::Interrupted;
        let is_passed_over = is_its_fault && pool.pass_over(rank, &error.to_string());
        match is_passed_over {
            true => NotStarted { next_start: NextStart::AtOnce, ..not_started },
            false => not_started,
        }
    })?;
    Ok((rank, Arc::new(child), outputs))
}

/// Starts the watch thread and the listen thread. Returns the receiver of the process's end.
fn start_watching(
    pool: &Arc<PoolInner>,
    handle: &Arc<WorkerHandle>,
    child: &Arc<Child>,
    outputs: OutputPipes,
) -> Result<Receiver<Ended>, NotStarted> {
    let (report, ended) = mpsc::channel();
    let (pid, worker) = (child.pid(), handle.worker());
    let (its_handle, its_pool) = (Arc::clone(handle), Arc::clone(pool));
    let on_line = move |stream, line: &str| {
        its_pool.listeners.output(&Output { worker, pid, stream, line });
    };
    let watcher = child::watch(pool, Arc::clone(child), outputs, on_line, move |end| {
        // The report first: the handler that `note_end` wakes receives it.
        let _ = report.send(end);
        its_handle.note_end();
    });
    let watcher = watcher.map_err(|error| {
        child.kill_and_reap();
        NotStarted::new("start a thread", &error)
    })?;
    pool.add_thread(watcher, Some(Arc::downgrade(child)));
    Ok(ended)
}

/// Why no worker was started. No process is left behind.
pub(super) struct NotStarted {
    pub(super) cause: String,
    pub(super) next_start: NextStart,
}

impl NotStarted {
    pub(super) fn new(what: &str, error: &io::Error) -> Self {
        let cause = format!("cannot {what}: {error}");
        let next_start =
            if is_shortage(error) { NextStart::AfterShortage } else { NextStart::WithBackoff };
        Self { cause, next_start }
    }
}

/// Checks RLIMIT_FSIZE: a file beyond it would end this process by SIGXFSZ.
fn check_file_size_limit(size: usize) -> Result<(), NotStarted> {
    use rustix::process::{Resource, getrlimit};
    match getrlimit(Resource::Fsize).current {
        Some(limit) if limit < size as u64 => {
            let cause = format!(
                "cannot make memory to share with a worker: it takes {size} bytes, but no file of \
                 this process may be larger than {limit} (ulimit -f)"
            );
            Err(NotStarted { cause, next_start: NextStart::Never })
        }
        _ => Ok(()),
    }
}

/// Errors of the operating system that pass by themselves.
const SHORTAGES: [Errno; 6] =
    [Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE, Errno::NOSPC, Errno::NOBUFS];

pub(super) fn is_shortage(error: &io::Error) -> bool {
    Errno::from_io_error(error).is_some_and(|errno| SHORTAGES.contains(&errno))
}

/// The same for the message of a panic of the channel library.
pub(super) fn is_shortage_message(message: &str) -> bool {
    let is_in = |errno: &Errno| {
        let code = errno.raw_os_error();
        message.contains(&format!("code: {code},"))
            || message.contains(&format!("os error {code})"))
    };
    SHORTAGES.iter().any(is_in)
}

/// Allocates the region that the worker and this process share, and sends it to the worker.
fn share_memory(worker: &Socket, claims: usize) -> Result<SharedRegion, NotStarted> {
    let (region, memory) = SharedRegion::create(claims)
        .map_err(|error| NotStarted::new("make memory to share with a worker", &error))?;
    match HandshakeMessage::Memory.send(worker, &[memory.as_fd()]) {
        // If the worker has ended, the watch thread reports it.
        Sent::Yes | Sent::Gone => Ok(region),
        Sent::NoRoom | Sent::Short(_) => Err(NotStarted {
            cause: "cannot send a worker its memory: the system has no room".to_owned(),
            next_start: NextStart::AfterShortage,
        }),
    }
}
