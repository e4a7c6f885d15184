//! `lanekeeper test`: cases in files, of what the config makes of updates and answers.

mod case;
mod compare;
mod run;

use std::fmt::Write as _;
use std::path::PathBuf;

use self::case::TestFile;
use super::arguments::ConfigArguments;
use super::exit::Exit;
use super::process::{print, say_error};
use super::rehearsal::Rehearsal;
use crate::config::Purpose;

/// A larger file is not read.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Options of `lanekeeper test`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = FORMAT)]
pub struct Arguments {
    /// Files with cases (TOML).
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    config: ConfigArguments,
}

const FORMAT: &str = r#"A file has cases. Each sends one update through the config, without a broker and without a target:
  [[case]]
  name = "a deleted customer"
  update = { key = "42", id = "u-1", type = "customer.deleted", body = {} }   # as a line of `lanekeeper publish`,
                                                  # or the line itself in '…', if numbers must stay as they are
  request.target = "crm"                          # what is expected; what is left out is not compared
  request.method = "DELETE"
  request.url = "https://api.example/customers/42"    # with *** where `lanekeeper try` shows it
  request.headers = { content-type = "application/json" }
  request.headers_absent = ["if-match"]
  request.body = {}                               # compared as JSON; or body_text, compared byte by byte
  # or: rejected = "part of the reason"           # instead of request: the update cannot be sent

  [[case.answer]]                                 # an answer of the target, and what it means
  status = 200
  body = { error = { code = "E42" } }             # or body_text; headers = { … }
  outcome = "rejected"                            # applied, retryable, refused, rejected or conflict

attempt = 2 and etag = "…" of a case say what the attempt knows. Secrets are not shown.

Exit codes: 0 all cases hold, 1 some do not, 2 the config or a file has faults."#;

/// Runs all cases of all files.
pub fn main(arguments: &Arguments) -> Exit {
    let loaded = match arguments.config.load(Purpose::Dispatch) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let rehearsal = match Rehearsal::new(&loaded) {
        Ok(rehearsal) => rehearsal,
        Err(fault) => {
            say_error(format_args!("error: {fault}"));
            return Exit::Config;
        }
    };
    let mut files = Vec::new();
    for path in &arguments.files {
        match case::read(path, FILE_BYTES_MAX) {
            Ok(file) => files.push((path, file)),
            Err(fault) => say_error(format_args!("error: {}: {fault}", path.display())),
        }
    }
    if files.len() < arguments.files.len() {
        return Exit::Config;
    }
    let (mut text, mut cases, mut failed) = (String::new(), 0_usize, 0_usize);
    for (path, TestFile { cases: of_file }) in files {
        let _ = writeln!(text, "{}", path.display());
        for case in of_file {
            cases += 1;
            let differences = run::differences(&rehearsal, &case);
            if differences.is_empty() {
                let _ = writeln!(text, "  ok      {}", case.name);
                continue;
            }
            failed += 1;
            let _ = writeln!(text, "  FAILED  {}", case.name);
            for difference in differences {
                for line in difference.lines() {
                    let _ = writeln!(text, "          {line}");
                }
            }
        }
    }
    let s = if cases == 1 { "" } else { "s" };
    let _ = writeln!(text, "{cases} case{s}, {failed} failed");
    print(&text, if failed == 0 { Exit::Done } else { Exit::Other })
}
