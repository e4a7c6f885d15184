//! Templates in what is sent: compiled once, rendered for each update, bounded in work and size.
//!
//! Begin with [`Template`]. `context` is what a template sees of an update, `json` reads its body without changing a number,
//! `output` puts values out, `library` has the filters and tests that are ours, and `lint` finds in a template's text what
//! could change a number or the structure of what is made.

mod context;
mod json;
mod library;
mod lint;
mod output;
#[cfg(test)]
mod tests;

use std::fmt;

use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value};

pub use self::context::context_of;
pub use self::output::Format;
/// What a template sees of an attempt.
pub use minijinja::Value as Context;

/// Longest text of a template, in bytes; as much as a `file:` value may have.
pub const SOURCE_BYTES_MAX: usize = 64 * 1024;
/// Longest value of a template in a URL or a header, in bytes.
pub const VALUE_BYTES_MAX: usize = 8 * 1024;
/// Longest body that a template makes, in bytes.
pub const MADE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Work that one template may do for an update, in units of minijinja: about an instruction, or 64 bytes made.
const FUEL: u64 = 200_000;
/// Levels of blocks and calls in a template.
const RECURSION_MAX: usize = 50;

/// The name that a template has in its own environment.
const NAME: &str = "template";

/// Why a text is no template, or why a template failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {why}")]
pub struct TemplateFault {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// In words. If a template failed on an update, they have nothing of the update in them.
    pub why: String,
}

/// A compiled template.
pub struct Template {
    environment: Box<Environment<'static>>,
    source: String,
    bytes_max: usize,
}

impl Template {
    /// Compiles a text. `bytes_max`: of what it makes.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn compile(source: &str, format: Format, bytes_max: usize) -> Result<Self, TemplateFault> {
        if source.len() > SOURCE_BYTES_MAX {
            let why = format!("the template is longer than {SOURCE_BYTES_MAX} bytes");
            return Err(TemplateFault { line: 1, column: 1, why });
        }
        let used = lint::check(source, format)?;
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION_MAX);
        // For the column of a fault.
        environment.set_debug(true);
        environment.set_auto_escape_callback(move |_| format.escape());
        environment.set_formatter(output::put_out);
        library::add(&mut environment);
        if let Some(unknown) = used.iter().find(|used| !library::has(&environment, used)) {
            let (line, column) = place(source, unknown.at);
            let kind = if unknown.is_filter { "filter" } else { "test" };
            return Err(TemplateFault {
                line,
                column,
                why: format!("there is no {kind} {:?}", unknown.name),
            });
        }
        environment
            .add_template_owned(NAME, source.to_owned())
            .map_err(|error| fault(source, &error, error.detail().unwrap_or("is no template")))?;
        Ok(Self { environment: Box::new(environment), source: source.to_owned(), bytes_max })
    }

    /// What it makes of an update. `context`: as [`context_of`] makes it.
    ///
    /// # Errors
    /// Why it fails on this update, and where; nothing of the update is in it.
    pub fn render(&self, context: &Value) -> Result<String, TemplateFault> {
        let template = self.environment.get_template(NAME);
        let rendered = template.and_then(|template| template.render(context.clone()));
        let rendered = rendered.map_err(|error| fault(&self.source, &error, &why(&error)))?;
        if rendered.len() > self.bytes_max {
            let why = format!("what it makes is longer than {} bytes", self.bytes_max);
            return Err(TemplateFault { line: 1, column: 1, why });
        }
        Ok(rendered)
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({} bytes)", self.source.len())
    }
}

/// Returns true if a text has an expression, a statement or a comment of a template in it.
#[must_use]
pub fn is_template(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|open| text.contains(open))
}

/// A reason of ours. Those of minijinja can quote values.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0}")]
struct Reason(&'static str);

/// The error of an operation that is not possible, with a reason of ours.
fn impossible(why: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, why).with_source(Reason(why))
}

fn fault(source: &str, error: &Error, why: &str) -> TemplateFault {
    let range = error.range().filter(|range| source.is_char_boundary(range.start));
    let (line, column) = match range {
        Some(range) => place(source, range.start),
        None => (error.line().unwrap_or(1), 1),
    };
    TemplateFault { line, column, why: why.to_owned() }
}

/// Line and column of a byte of a text, from 1.
fn place(source: &str, at: usize) -> (usize, usize) {
    let before = &source[..at];
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

fn why(error: &Error) -> String {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(Reason(why)) = error.downcast_ref() {
            return (*why).to_owned();
        }
        cause = error.source();
    }
    match error.kind() {
        ErrorKind::UndefinedError => {
            "a value that it needs is not there; write | default(…) if it may be missing".to_owned()
        }
        ErrorKind::OutOfFuel => "it takes more work than a template may do for one update".to_owned(),
        ErrorKind::InvalidOperation => {
            "an operation, a filter or a function does not fit the kinds of its values".to_owned()
        }
        kind => kind.to_string(),
    }
}
