//! Processes of a measurement, each in a group of its own, and what the kernel says of them (Linux: `/proc`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::failure::Failure;

/// How long a process may take to end in order.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// The kernel counts processor time in hundredths of a second for programs (`man 5 proc`, `USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;
/// Lines of a log that are shown.
const TAIL_LINES: usize = 12;

/// A process, and all that it starts. It ends with this value.
#[derive(Debug)]
pub(super) struct Process {
    who: String,
    child: Child,
    id: u32,
    log: PathBuf,
    gone: bool,
}

impl Process {
    /// Starts it, with standard error into `log`.
    pub(super) fn start(who: &str, mut command: Command, log: PathBuf) -> Result<Self, Failure> {
        let step = "start a process";
        let file = File::create(&log).map_err(Failure::system("write a log"))?;
        command.stdin(Stdio::null()).stderr(file).process_group(0).kill_on_drop(true);
        let child = command.spawn().map_err(Failure::system(step))?;
        let id = child.id().expect("it was not waited for yet");
        Ok(Self { who: who.to_owned(), child, id, log, gone: false })
    }

    pub(super) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// # Errors
    /// It has ended by itself.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        match self.child.try_wait().map_err(Failure::system("ask for a process"))? {
            Some(_) => Err(self.ended()),
            None => Ok(()),
        }
    }

    /// Processor time and memory by now, of it and all that it started.
    pub(super) fn usage(&self) -> Usage {
        Usage::of(self.id)
    }

    /// SIGTERM to all of it. When it has returned, the first process is gone, by SIGKILL if need be.
    pub(super) async fn stop(mut self) -> Result<(), Failure> {
        signal_group("TERM", self.id);
        match timeout(STOP_TIMEOUT, self.child.wait()).await {
            Ok(ended) => self.gone = ended.map(|_: ExitStatus| true).map_err(Failure::system("wait"))?,
            Err(_) => self.kill(),
        }
        Ok(())
    }

    fn ended(&self) -> Failure {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        Failure::Ended { who: self.who.clone(), tail }
    }

    fn kill(&self) {
        signal_group("KILL", self.id);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.gone {
            self.kill();
        }
    }
}

/// Every Unix has this shell and its `kill`; the standard library only sends SIGKILL, and to one process.
fn signal_group(signal: &str, id: u32) {
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", "kill -s \"$1\" -- \"-$2\" 2>/dev/null", "sh", signal, &id.to_string()]);
    // That it is gone already is what we want.
    let _ = command.status();
}

/// What processes have used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    /// Processor time in seconds, user and system.
    pub(super) cpu_seconds: f64,
    /// Most resident memory so far, in MB (of several processes: the sum, with what they share counted again).
    pub(super) peak_mb: f64,
    /// Resident memory now, in MB.
    pub(super) now_mb: f64,
}

impl Usage {
    /// Of a process and all its descendants; nothing of what has gone.
    pub(super) fn of(id: u32) -> Self {
        let mut usage = Self::default();
        for id in family(id) {
            let directory = PathBuf::from(format!("/proc/{id}"));
            if let Some(stat) = stat(&directory) {
                usage.cpu_seconds += stat.cpu_seconds;
            }
            let status = fs::read_to_string(directory.join("status")).unwrap_or_default();
            usage.peak_mb += kilobytes(&status, "VmHWM:") / 1024.0;
            usage.now_mb += kilobytes(&status, "VmRSS:") / 1024.0;
        }
        usage
    }
}

/// What we want of `/proc/ID/stat`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stat {
    parent: u32,
    cpu_seconds: f64,
}

fn stat(directory: &Path) -> Option<Stat> {
    parse_stat(&fs::read_to_string(directory.join("stat")).ok()?)
}

/// Fields as `man 5 proc` numbers them; the second is a name in brackets, which can hold anything.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u32>().ok();
    // Its own time, and that of children that it has waited for.
    let ticks = field(14)? + field(15)? + field(16)? + field(17)?;
    Some(Stat { parent: field(4)?, cpu_seconds: f64::from(ticks) / TICKS_PER_SECOND })
}

fn kilobytes(status: &str, name: &str) -> f64 {
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
    value.and_then(|value| value.parse().ok()).unwrap_or_default()
}

fn family(id: u32) -> Vec<u32> {
    let mut parents = BTreeMap::new();
    for process in numbered(Path::new("/proc")) {
        if let Some(stat) = stat(Path::new(&format!("/proc/{process}"))) {
            parents.insert(process, stat.parent);
        }
    }
    let mut family = vec![id];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(parents.iter().filter(|(_, of)| **of == parent).map(|(process, _)| *process));
        next += 1;
    }
    family
}

fn numbered(directory: &Path) -> Vec<u32> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The process that listens on this port of this machine; `None` where it is not known: it may be another machine's.
pub(super) fn listener_on(port: u16) -> Option<u32> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let table = fs::read_to_string(table).ok()?;
        table.lines().find_map(|line| listening_inode(line, port))
    })?;
    let wanted = format!("socket:[{inode}]");
    numbered(Path::new("/proc")).into_iter().find(|process| {
        let files = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
        files
            .into_iter()
            .any(|file| fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == &*wanted))
    })
}

/// A line of `/proc/net/tcp`: number, local address, remote address, state (0A: listening), …, inode as the tenth.
fn listening_inode(line: &str, port: u16) -> Option<u64> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let local = fields.get(1)?.rsplit_once(':')?.1;
    let listens = *fields.get(3)? == "0A" && u16::from_str_radix(local, 16) == Ok(port);
    if listens { fields.get(9)?.parse().ok() } else { None }
}

/// The load of the machine over the last minute, for beside a figure.
pub(super) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let text = "42 (a) b (c)) S 7 42 42 0 -1 4194304 1 2 3 4 150 50 20 5 20 0 1 0 100 0 0";
        assert_eq!(parse_stat(text), Some(Stat { parent: 7, cpu_seconds: 2.25 }));
        assert_eq!(parse_stat("42 (a"), None);
        assert!((kilobytes("Name: x\nVmHWM:\t  2048 kB\n", "VmHWM:") - 2048.0).abs() < 0.1);
    }

    #[test]
    fn a_listener_is_distinguished_from_a_connection() {
        let line = "   0: 0100007F:1628 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0";
        assert_eq!(listening_inode(line, 5672), Some(4711));
        assert_eq!(listening_inode(line, 5673), None);
        assert_eq!(listening_inode(&line.replace(" 0A ", " 01 "), 5672), None);
    }

    #[test]
    fn this_process_has_used_memory() {
        let usage = Usage::of(std::process::id());
        assert!(usage.now_mb > 0.5 && usage.peak_mb >= usage.now_mb, "{usage:?}");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(listener_on(listener.local_addr().unwrap().port()), Some(std::process::id()));
    }
}
