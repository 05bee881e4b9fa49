//! Starting QEMU so that it cannot outlive us, and ending it so that it is really gone.

use std::{
    fmt, io,
    os::fd::{AsRawFd, OwnedFd},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus},
    sync::mpsc,
    time::Duration,
};

use procfs::process::Stat;
use rustix::{
    io::{FdFlags, fcntl_setfd},
    param::clock_ticks_per_second,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, set_parent_process_death_signal},
};
use tokio::sync::{oneshot, watch};

type Job = (Command, Vec<OwnedFd>, bool, oneshot::Sender<io::Result<Process>>);

/// A thread that starts guests for as long as the run lives.
///
/// Linux sends the parent-death signal when the *thread* that made the child ends (prctl(2)), and threads of an async runtime
/// do end; so one thread does nothing but start children.
#[derive(Clone, Debug)]
pub struct Spawner {
    jobs: mpsc::Sender<Job>,
}

impl Spawner {
    /// Starts the thread.
    pub fn start() -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        std::thread::Builder::new().name("spawner".into()).spawn(move || {
            while let Ok((command, inherited, dies_with_us, reply)) = queue.recv() {
                // Owned from the first moment: an answer that nobody takes is dropped, here or on its way, and that kills it.
                let _ = reply.send(spawn(command, &inherited, dies_with_us).and_then(Process::watch));
            }
            // Every sender is gone, so no guest of ours is meant to live; those that do get their signal now.
        })?;
        Ok(Self { jobs })
    }

    /// Starts `command`; it inherits each of `fds` under its own number. `dies_with_us`: it is killed when this process ends, however.
    pub(crate) async fn spawn(&self, command: Command, fds: Vec<OwnedFd>, dies_with_us: bool) -> io::Result<Process> {
        let (reply, answer) = oneshot::channel();
        let gone = || io::Error::other("the thread that starts guests is gone");
        self.jobs.send((command, fds, dies_with_us, reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

fn spawn(mut command: Command, inherited: &[OwnedFd], dies_with_us: bool) -> io::Result<Child> {
    // A group of its own: Ctrl-C in the terminal is for us, and we decide what happens to guests.
    command.process_group(0);
    let fds: Vec<_> = inherited.iter().map(AsRawFd::as_raw_fd).collect();
    let parent = std::process::id();
    // SAFETY: between fork and exec only async-signal-safe system calls are made (prctl, getppid, fcntl); no allocation.
    unsafe {
        command.pre_exec(move || {
            if dies_with_us {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                // We may have died before the line above took effect.
                if std::os::unix::process::parent_id() != parent {
                    return Err(io::ErrorKind::Interrupted.into());
                }
            }
            for &fd in &fds {
                fcntl_setfd(rustix::fd::BorrowedFd::borrow_raw(fd), FdFlags::empty())?;
            }
            Ok(())
        });
    }
    command.spawn()
}

/// How a child ended; `None`: nobody knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exit(pub(super) Option<ExitStatus>);

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(status) => status.fmt(f),
            None => f.write_str("its exit status is not known"),
        }
    }
}

/// A running child, waited for on a thread of its own. Dropping it kills it unless it was disarmed.
#[derive(Debug)]
pub(crate) struct Process {
    armed: bool,
    pid: u32,
    handle: OwnedFd,
    exited: watch::Receiver<Option<Exit>>,
    pub(crate) stdin: Option<std::process::ChildStdin>,
    pub(crate) stdout: Option<std::process::ChildStdout>,
    pub(crate) stderr: Option<std::process::ChildStderr>,
}

impl Process {
    fn watch(mut child: Child) -> io::Result<Self> {
        let pid = child.id();
        let opened = Pid::from_raw(pid as i32)
            .ok_or_else(|| io::Error::other("a child without a process id"))
            .and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?));
        let handle = match opened {
            Ok(handle) => handle,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        };
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (exit, exited) = watch::channel(None);
        let process = Self { armed: true, pid, handle, exited, stdin, stdout, stderr };
        // If no thread can be started, `process` is dropped, which kills the child.
        std::thread::Builder::new().name("waiter".into()).spawn(move || {
            // An error here means that somebody else reaped it: it is gone all the same, and nobody knows how.
            exit.send_replace(Some(Exit(child.wait().ok())));
        })?;
        Ok(process)
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends SIGKILL; the handle makes sure that it hits this process and no later one of the same number.
    pub(crate) fn kill(&self) {
        let _ = pidfd_send_signal(&self.handle, Signal::KILL);
    }

    /// Lets it live on when this value is dropped.
    pub(super) fn disarm(&mut self) {
        self.armed = false;
    }

    /// How it ended; `None`: it runs.
    pub(super) fn status(&self) -> Option<Exit> {
        *self.exited.borrow()
    }

    /// Waits until it is gone and reaped. Holds no borrow, so it can be awaited elsewhere.
    pub(crate) fn gone(&self) -> impl Future<Output = Exit> + Send + 'static {
        let mut exited = self.exited.clone();
        async move {
            match exited.wait_for(Option::is_some).await {
                Ok(exit) => exit.unwrap_or(Exit(None)),
                Err(_) => Exit(None),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.armed {
            self.kill();
        }
    }
}

/// `/proc/PID/stat`; `None`: there is no such process, or it is only waited for.
fn stat(pid: u32) -> Option<Stat> {
    let stat = procfs::process::Process::new(pid.try_into().ok()?).ok()?.stat().ok()?;
    (stat.state != 'Z').then_some(stat)
}

/// When the process `pid` was started, in clock ticks since boot; `None`: there is none.
///
/// Together with the number it names a process for good: numbers are used again, start times are not.
pub fn start_time(pid: u32) -> Option<u64> {
    stat(pid).map(|stat| stat.starttime)
}

/// CPU time that the process `pid` has had; `None`: there is none.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let ticks = stat(pid).map(|stat| stat.utime + stat.stime)?;
    Some(Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64))
}

/// Is the process of this number still the one that was started then?
pub fn alive(pid: u32, started: u64) -> bool {
    start_time(pid) == Some(started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_time_of_a_process_grows_and_one_that_is_gone_has_none() {
        let own = std::process::id();
        let before = cpu_time(own).unwrap();
        let mut number = 0_u64;
        while cpu_time(own).unwrap() == before {
            number = std::hint::black_box(number + 1);
        }
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(cpu_time(child.id()).is_some() && start_time(child.id()).is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((cpu_time(child.id()), start_time(child.id())), (None, None));
    }

    #[tokio::test]
    async fn a_child_whose_caller_went_away_before_it_was_handed_over_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let pid_file = folder.path().join("pid");
        let mut command = Command::new("sh");
        command.arg("-c").arg("echo $$ >\"$0.new\" && mv \"$0.new\" \"$0\" && exec sleep 600").arg(&pid_file);
        let (fd, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let spawner = Spawner::start().unwrap();
        let mut start = Box::pin(spawner.spawn(command, vec![OwnedFd::from(fd)], false));
        // Asked for once and then not looked at again, like a start that is cancelled.
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(start.as_mut().poll(cx))).await.is_pending());
        while !pid_file.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let pid = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
        assert!(start_time(pid).is_some());
        drop(start);
        for _ in 0..1000 {
            if start_time(pid).is_none() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("process {pid} still runs");
    }
}
