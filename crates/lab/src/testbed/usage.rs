//! What the kernel knows about processes: processor time, memory, who listens on a port. Linux only (`/proc`).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What processes have used. All zero where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Processor time in seconds, user and system.
    pub cpu_seconds: f64,
    /// Most resident memory so far, in MiB. For several processes it is the sum, with what they share counted again.
    pub peak_mb: f64,
    /// Resident memory now, in MiB.
    pub now_mb: f64,
}

impl Usage {
    /// Of a process and all its descendants that run; of those that ended, the time that a parent has waited for.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        kernel::usage(pid).unwrap_or_default()
    }
}

/// Lets this process, and those that it starts from now on, have as many files and connections as the system allows.
pub fn raise_open_files_max() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    setrlimit(Resource::Nofile, raised).expect("a process may raise its limit up to the highest");
}

/// The process that listens on this TCP port of this machine; `None`: not known, or another machine's.
pub fn listener_on(port: u16) -> Option<u32> {
    kernel::listener_on(port)
}

/// The load average of the last minute; `?` where it is not known.
pub fn load_average() -> String {
    kernel::load_average().map_or_else(|| "?".to_owned(), |load| format!("{load:.2}"))
}

#[cfg(target_os = "linux")]
mod kernel {
    use procfs::net::TcpState;
    use procfs::process::{FDTarget, Process, all_processes};
    use procfs::{Current as _, LoadAverage, net, ticks_per_second};

    use super::Usage;

    const KIB_PER_MIB: f64 = 1024.0;

    pub(super) fn usage(pid: u32) -> Option<Usage> {
        let mut family = vec![i32::try_from(pid).ok()?];
        // A process can end while it is looked at: nothing is known of it then.
        let stats: Vec<_> = processes().filter_map(|process| process.stat().ok()).collect();
        let mut next = 0;
        while let Some(parent) = family.get(next).copied() {
            family.extend(stats.iter().filter(|stat| stat.ppid == parent).map(|stat| stat.pid));
            next += 1;
        }
        let mut usage = Usage::default();
        for stat in stats.iter().filter(|stat| family.contains(&stat.pid)) {
            let ticks = stat.utime + stat.stime + stat.cutime.unsigned_abs() + stat.cstime.unsigned_abs();
            usage.cpu_seconds += ticks as f64 / ticks_per_second() as f64;
            let Ok(memory) = Process::new(stat.pid).and_then(|process| process.status()) else { continue };
            usage.peak_mb += memory.vmhwm.unwrap_or_default() as f64 / KIB_PER_MIB;
            usage.now_mb += memory.vmrss.unwrap_or_default() as f64 / KIB_PER_MIB;
        }
        Some(usage)
    }

    pub(super) fn listener_on(port: u16) -> Option<u32> {
        let sockets = net::tcp().into_iter().chain(net::tcp6()).flatten();
        let mut listening = sockets.filter(|socket| socket.state == TcpState::Listen);
        let inode = listening.find(|socket| socket.local_address.port() == port)?.inode;
        let is_its = |process: &Process| {
            let files = process.fd().into_iter().flatten().flatten();
            files.into_iter().any(|file| matches!(file.target, FDTarget::Socket(socket) if socket == inode))
        };
        processes().find(is_its).and_then(|process| u32::try_from(process.pid()).ok())
    }

    pub(super) fn load_average() -> Option<f32> {
        LoadAverage::current().ok().map(|load| load.one)
    }

    fn processes() -> impl Iterator<Item = Process> {
        all_processes().into_iter().flatten().flatten()
    }
}

#[cfg(not(target_os = "linux"))]
mod kernel {
    use super::Usage;

    pub(super) fn usage(_: u32) -> Option<Usage> {
        None
    }

    pub(super) fn listener_on(_: u16) -> Option<u32> {
        None
    }

    pub(super) fn load_average() -> Option<f32> {
        None
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn this_process_has_used_memory_and_listens() {
        let usage = Usage::of(std::process::id());
        assert!(usage.now_mb > 0.5 && usage.peak_mb >= usage.now_mb, "{usage:?}");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(listener_on(listener.local_addr().unwrap().port()), Some(std::process::id()));
    }

    #[test]
    fn what_a_process_starts_counts_as_its_own() {
        let before = Usage::of(std::process::id()).now_mb;
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let with_child = Usage::of(std::process::id()).now_mb;
        let of_child = Usage::of(child.id()).now_mb;
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(of_child > 0.0 && with_child > before, "{before} {with_child} {of_child}");
    }
}
