//! Replaces `${NAME}` and `file:PATH` in the strings of a config.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::fault::{Origin, Problem};
use super::layers::{Environment, VariableFault};
use super::source::ReadFiles;
use lanekeeper_core::secret::MASK;

/// Largest file that a `file:` value may name. All authorities of a system, as PEM, have less than a quarter of this.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A string with its references replaced.
#[derive(Clone, Debug, Default)]
pub struct Resolved {
    /// What it stands for.
    pub text: String,
    /// The same with [`MASK`] for each reference.
    pub masked: String,
    /// What the references stand for.
    pub secrets: Vec<String>,
}

impl Resolved {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.masked.push_str(text);
    }

    fn push_secret(&mut self, text: &str) {
        self.text.push_str(text);
        self.masked.push_str(MASK);
        self.secrets.push(text.to_owned());
    }
}

/// What a string refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// Nothing: it stands for itself.
    None,
    /// A file has all of it.
    File,
    /// Variables have parts of it.
    Variable,
}

impl Reference {
    /// What a string as written refers to.
    pub fn of(written: &str) -> Self {
        let mut rest = written;
        while let Some(at) = rest.find("${") {
            if !rest[..at].ends_with('$') {
                return if written.starts_with("file:") { Self::File } else { Self::Variable };
            }
            rest = &rest[at + 2..];
        }
        if written.starts_with("file:") { Self::File } else { Self::None }
    }
}

/// Replaces references to variables and files.
#[derive(Debug)]
pub struct Strings<'a> {
    environment: &'a Environment,
    /// What was read.
    pub(super) files: ReadFiles,
}

impl<'a> Strings<'a> {
    /// Takes variables from `environment`.
    pub fn new(environment: &'a Environment) -> Self {
        Self { environment, files: ReadFiles::default() }
    }

    /// The string that `written` stands for. References in the value of a variable or in a file are not replaced.
    ///
    /// # Errors
    /// A variable or a file is missing or unfit. No problem quotes its content.
    pub fn resolve(&self, written: &str, origin: &Origin) -> Result<Resolved, Problem> {
        match written.strip_prefix("file:") {
            Some(path) => {
                let mut resolved = Resolved::default();
                let content = self.files.content(&self.path(path, origin)?, read)?;
                resolved.push_secret(content.reveal());
                Ok(resolved)
            }
            None => self.interpolate(written),
        }
    }

    fn path(&self, written: &str, origin: &Origin) -> Result<PathBuf, Problem> {
        let path = PathBuf::from(self.interpolate(written)?.text);
        let base = match origin {
            Origin::File(file) => file.parent().map(ToOwned::to_owned).unwrap_or_default(),
            _ => PathBuf::new(),
        };
        Ok(base.join(path))
    }

    fn interpolate(&self, written: &str) -> Result<Resolved, Problem> {
        let mut resolved = Resolved::default();
        let mut rest = written;
        while let Some(at) = rest.find("${") {
            let (before, after) = (&rest[..at], &rest[at + 2..]);
            if let Some(before) = before.strip_suffix('$') {
                resolved.push(before);
                resolved.push("${");
                rest = after;
                continue;
            }
            let (name, after) = after.split_once('}').ok_or_else(|| {
                Problem::new("\"${\" has no \"}\" after it", "write ${NAME}, or $${ for ${ itself")
            })?;
            resolved.push(before);
            resolved.push_secret(self.variable(name)?);
            rest = after;
        }
        resolved.push(rest);
        Ok(resolved)
    }

    fn variable(&self, name: &str) -> Result<&str, Problem> {
        let fit = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && name.starts_with(|c: char| !c.is_ascii_digit());
        if !fit {
            return Err(Problem::new(
                format!("${{{name}}} is not a variable: a name has letters, digits and \"_\""),
                "write ${NAME}, or $${ for ${ itself",
            ));
        }
        self.environment.text(name).map_err(|fault| {
            let fix = match fault {
                VariableFault::Missing => format!("set {name}, or write $${{ for ${{ itself"),
                VariableFault::NotUtf8 => format!("set {name} to text"),
            };
            Problem::new(format!("the environment variable {name} {fault}"), fix)
        })
    }
}

/// The content of a file, without one line end at its end.
fn read(path: &Path) -> Result<String, Problem> {
    let shown = path.display();
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    match read {
        Err(error) => Err(Problem::new(
            format!("cannot read the file {shown}: {error}"),
            "make it a readable text file, or correct the path after \"file:\"",
        )),
        Ok(bytes) if bytes as u64 > FILE_BYTES_MAX => Err(Problem::new(
            format!("the file {shown} is larger than {FILE_BYTES_MAX} bytes"),
            "name a file that contains only the value",
        )),
        Ok(_) => {
            let text = text.strip_suffix('\n').unwrap_or(&text);
            Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(written: &str, expected: Result<&str, &str>) {
        let environment: Environment =
            [("TOKEN", "s3cret"), ("EMPTY", ""), ("LOOP", "${TOKEN}")].into_iter().collect();
        let got = Strings::new(&environment).resolve(written, &Origin::BuiltIn).map(|resolved| resolved.text);
        match expected {
            Ok(text) => assert_eq!(got.as_deref(), Ok(text), "{written}"),
            Err(part) => {
                let problem = format!("{:?}", got.expect_err(written));
                assert!(problem.contains(part), "{written}: {problem}");
            }
        }
    }

    #[test]
    fn variables_are_replaced_once() {
        check("plain", Ok("plain"));
        check("Bearer ${TOKEN}!", Ok("Bearer s3cret!"));
        check("${EMPTY}${TOKEN}${EMPTY}", Ok("s3cret"));
        check("${LOOP}", Ok("${TOKEN}"));
        check("$${TOKEN} $5 {record_key} $", Ok("${TOKEN} $5 {record_key} $"));
        check("$$${TOKEN}", Ok("$${TOKEN}"));
        check("${GONE}", Err("GONE is not set"));
        check("${TOKEN", Err("has no"));
        check("${}", Err("is not a variable"));
        check("${1A}", Err("is not a variable"));
        check("${a b}", Err("is not a variable"));
    }

    #[test]
    fn what_a_string_refers_to_is_seen_in_what_is_written() {
        let check = |written: &str, expected| assert_eq!(Reference::of(written), expected, "{written}");
        check("{{ body.a }} $5 $${A}", Reference::None);
        check("a${A}", Reference::Variable);
        check("$${A} ${B}", Reference::Variable);
        check("file:a", Reference::File);
        check("file:${A}/b", Reference::File);
    }

    #[test]
    fn a_file_is_taken_from_the_directory_of_the_config_file() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("token"), "a ${TOKEN}\n\r\n").unwrap();
        std::fs::write(directory.path().join("large"), vec![b'a'; 1024 * 1024 + 1]).unwrap();
        std::fs::write(directory.path().join("binary"), [0xff, 0xfe]).unwrap();
        let (environment, origin) =
            (Environment::default(), Origin::File(directory.path().join("lanekeeper.toml")));
        let resolve = |written: &str| {
            Strings::new(&environment).resolve(written, &origin).map(|resolved| resolved.text)
        };
        assert_eq!(
            resolve("file:token").as_deref(),
            Ok("a ${TOKEN}\n"),
            "one line end goes, and no variable is replaced"
        );
        for unfit in ["file:large", "file:binary", "file:gone", "file:", "file:${GONE}"] {
            assert!(resolve(unfit).is_err(), "{unfit}");
        }
    }
}
