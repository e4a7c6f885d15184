//! `lanekeeper status --watch` on a terminal.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::harness::{Signal, World, lanekeeper_command, until};

/// Both ends of a terminal: ours, and that of the program.
fn terminal() -> (OwnedFd, File) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("it is ours");
    let name = ptsname(&ours, Vec::new()).expect("it has a name").into_string().expect("a plain name");
    let theirs = OpenOptions::new().read(true).write(true).open(name).expect("it can be opened");
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&ours, size).expect("a size");
    (ours, theirs)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_leaves_the_terminal_as_it_was() {
    let world = World::new("watch").await;
    let _dispatcher = world.dispatcher("updates.partitions = 2").await;
    let config = world.dir.path().join("lanekeeper.toml");
    let (ours, theirs) = terminal();
    let modes = || tcgetattr(&theirs).expect("it is a terminal").local_modes;
    let before = modes();
    assert!(before.contains(LocalModes::ICANON | LocalModes::ECHO), "{before:?}");
    let end = || Stdio::from(theirs.try_clone().expect("it can be shared"));
    let mut watching = lanekeeper_command()
        .args(["status", "--watch", "--config"])
        .arg(&config)
        .stdin(end())
        .stdout(end())
        .stderr(end())
        .spawn()
        .expect("the binary starts");
    let shown = Arc::new(Mutex::new(String::new()));
    let (mut screen, text) = (File::from(ours), Arc::clone(&shown));
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(length @ 1..) = screen.read(&mut bytes) {
            text.lock().expect("no panic").push_str(&String::from_utf8_lossy(&bytes[..length]));
        }
    });
    until("a status while keys are read", || async {
        let text = shown.lock().expect("no panic").clone();
        if text.contains("l1.p001") && !modes().contains(LocalModes::ICANON) { Ok(()) } else { Err(text) }
    })
    .await;
    kill_process(Pid::from_child(&watching), Signal::TERM).expect("it runs");
    let ended = tokio::task::spawn_blocking(move || watching.wait()).await.expect("it does not panic");
    assert_eq!(ended.expect("it is ours").code(), Some(0));
    assert_eq!(modes(), before);
}
