//! `lanekeeper-lab receiver`, the built binary.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn lanekeeper_lab(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lanekeeper-lab"));
    command.arg("receiver").args(arguments);
    command
}

#[test]
fn it_says_where_it_listens_and_stops_with_a_summary() {
    for signal in ["TERM", "INT"] {
        let mut command = lanekeeper_lab(&[
            "--listen",
            "127.0.0.1:0",
            "--fail-record",
            "bad=503:1m",
            "--retry-after",
            "1s",
        ]);
        let mut child = Killed(command.stdout(Stdio::piped()).spawn().unwrap());
        let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let address = first.strip_prefix("listening on http://").expect(&first);

        for (record, expected) in [("good", "HTTP/1.1 200"), ("bad", "HTTP/1.1 503")] {
            let mut stream = TcpStream::connect(address).unwrap();
            write!(stream, "PUT /x/{record} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with(expected), "{answer}");
            assert_eq!(answer.contains("\r\nretry-after: 1\r\n"), record == "bad", "{answer}");
        }

        let killed = Command::new("kill").args(["-s", signal, &child.0.id().to_string()]).status().unwrap();
        assert!(killed.success());
        assert_eq!(child.0.wait().unwrap().code(), Some(0), "{signal}");
        let summary = lines.next().unwrap().unwrap();
        assert!(summary.starts_with("2 records: 1 updates in 2 requests; duplicates 0,"), "{summary}");
        assert!(lines.next().is_none());
    }
}

#[test]
fn a_rate_limit_and_an_outage_can_be_had_by_options() {
    let limit = ["--rate-limit", "1/1m", "--rate-limit-burst", "2", "--rate-limit-headers", "retry-after"];
    let outage =
        ["--outage", "page-503", "--outage-after", "1h", "--outage-for", "1m", "--outage-share", "0.5"];
    let mut command = lanekeeper_lab(&[&limit[..], &outage, &["--listen", "127.0.0.1:0"]].concat());
    let mut child = Killed(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let address = first.strip_prefix("listening on http://").expect(&first);
    for expected in ["HTTP/1.1 200", "HTTP/1.1 200", "HTTP/1.1 429"] {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "PUT /x/k HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with(expected), "{answer}");
        assert_eq!(answer.contains("\r\nretry-after: 60\r\n"), expected.ends_with("429"), "{answer}");
    }
    let killed = Command::new("kill").args(["-s", "TERM", &child.0.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
    assert_eq!(lines.nth(1).unwrap().unwrap(), "rate limit 1/60s: 2 requests accepted, 1 refused");
}

#[test]
fn a_name_can_lead_to_it_and_to_a_second_address_that_is_silent() {
    let mut command = lanekeeper_lab(&["--listen", "127.0.0.9:0", "--silent", "127.0.0.1:0"]);
    let mut child = Killed(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let port = first.strip_prefix("listening on http://127.0.0.9:").expect(&first);
    assert_eq!(lines.next().unwrap().unwrap(), format!("silent at 127.0.0.1:{port}"));
    TcpStream::connect(format!("127.0.0.9:{port}")).unwrap();
    let silent = format!("127.0.0.1:{port}").parse().unwrap();
    TcpStream::connect_timeout(&silent, Duration::from_millis(300)).expect_err("it answers nothing");
}

#[test]
fn a_port_in_use_is_said_and_not_a_panic() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = lanekeeper_lab(&["--listen", &address]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains(&address) && stderr.lines().count() == 1, "{stderr}");
}

#[test]
fn options_that_make_no_sense_are_refused() {
    for arguments in [
        ["--fail-share", "1.5"],
        ["--fail-share", "NaN"],
        ["--latency-jitter", "-0.1"],
        ["--latency", "soon"],
        ["--fail-with", "500,200"],
        ["--fail-record", "k"],
        ["--threads", "0"],
        ["--rate-limit", "50"],
        ["--rate-limit-headers", "ratelimit"],
        ["--outage-share", "0.5"],
        ["--outage", "gateway-200"],
        ["--tls-key", "key.pem"],
        ["--answer-end", "close-without-notify"],
        ["--extra-fields", "10001"],
        ["--hang-connections-after", "0"],
    ] {
        let output = lanekeeper_lab(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(arguments[0]), "{arguments:?}");
    }
}
