//! Finds in the text of a template what the language allows and we do not: what could round a number, compare one by
//! its kind, or put a value where it could change the structure of a document.

use super::{Format, TemplateFault, place};

/// What has been read of an expression or a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Number,
    Equals,
    Minus,
    Dot,
    Pipe,
    Is,
    Other,
}

/// A filter or a test that a template uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Used {
    /// Its place in the text.
    pub(super) at: usize,
    pub(super) name: String,
    /// It is a filter, and no test.
    pub(super) is_filter: bool,
}

/// Checks a text. Returns what it uses.
///
/// # Errors
/// What is in it, and where.
pub(super) fn check(source: &str, format: Format) -> Result<Vec<Used>, TemplateFault> {
    let fault = |at: usize, why: &str| {
        let (line, column) = place(source, at);
        Err(TemplateFault { line, column, why: why.to_owned() })
    };
    let (mut at, mut in_string, mut used) = (0, false, Vec::new());
    while at < source.len() {
        let rest = &source[at..];
        if rest.starts_with("{#") {
            at += rest.find("#}").map_or(rest.len(), |end| end + 2);
        } else if rest.starts_with("{{") || rest.starts_with("{%") {
            if in_string && format == Format::Json && rest.starts_with("{{") {
                return fault(
                    at,
                    "a value in a JSON body brings its own quotes: write {{ … }} without quotes around it, and join \
                     texts in it, as in {{ \"id-\" ~ record_key }}",
                );
            }
            let close = if rest.starts_with("{{") { "}}" } else { "%}" };
            match tag(&rest[2..], close) {
                Ok((length, found)) => {
                    used.extend(found.into_iter().map(|found| Used { at: at + 2 + found.at, ..found }));
                    at += 2 + length;
                }
                Err((offset, why)) => return fault(at + 2 + offset, why),
            }
        } else {
            let c = rest.chars().next().unwrap_or_default();
            match c {
                '\\' if in_string => at += rest.chars().nth(1).map_or(0, char::len_utf8),
                '"' => in_string = !in_string,
                _ => {}
            }
            at += c.len_utf8();
        }
    }
    Ok(used)
}

/// Reads an expression or a statement with its end. Returns its length, and what it uses; an unfinished one is for the compiler
/// to find.
fn tag(text: &str, close: &str) -> Result<(usize, Vec<Used>), (usize, &'static str)> {
    let (mut at, mut depth, mut used) = (0, 0_u32, Vec::new());
    let (mut before, mut last) = (Token::Other, Token::Other);
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        if depth == 0
            && (rest.starts_with(close)
                || rest.strip_prefix(['-', '+']).is_some_and(|r| r.starts_with(close)))
        {
            return Ok((at + rest.find(close).unwrap_or_default() + close.len(), used));
        }
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        let (length, token) = match c {
            '"' | '\'' => (string(rest), Token::Other),
            '0'..='9' => {
                let length =
                    rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                let fraction = rest[length..]
                    .strip_prefix('.')
                    .is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()));
                let exponent = !rest.starts_with("0x") && rest[..length].contains(['e', 'E']);
                if last != Token::Dot && (fraction || exponent) {
                    return Err((at, "a fraction in a template may be rounded; write it as text, in quotes"));
                }
                if last == Token::Equals || (last, before) == (Token::Minus, Token::Equals) {
                    return Err((at, EQUALS));
                }
                (length, Token::Number)
            }
            c if c.is_alphabetic() || c == '_' => {
                let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                if matches!(&rest[..length], "autoescape" | "raw") && last == Token::Other && close == "%}" {
                    return Err((at, "the statements autoescape and raw are not allowed"));
                }
                let name = &rest[..length];
                match (last, name) {
                    (Token::Dot, _) => (length, Token::Other),
                    (Token::Is, "not") => (length, Token::Is),
                    (Token::Pipe | Token::Is, name) => {
                        used.push(Used { at, name: name.to_owned(), is_filter: last == Token::Pipe });
                        (length, Token::Other)
                    }
                    (_, "is") => (length, Token::Is),
                    _ => (length, Token::Other),
                }
            }
            _ if rest.starts_with("==") || rest.starts_with("!=") => {
                if last == Token::Number {
                    return Err((at, EQUALS));
                }
                (2, Token::Equals)
            }
            _ if rest.starts_with("//") => (2, Token::Other),
            _ if rest.starts_with("**") => return Err((at, "** makes numbers that may be rounded")),
            '/' => return Err((at, "/ makes numbers that may be rounded; // divides whole numbers")),
            '<' | '>' => {
                return Err((
                    at,
                    "write is lt(…), is le(…), is gt(…) or is ge(…), which compare numbers exactly, as in \
                     {% if body.amount is gt(100) %}",
                ));
            }
            '{' | '[' | '(' => {
                depth += 1;
                (1, Token::Other)
            }
            '}' | ']' | ')' => {
                depth = depth.saturating_sub(1);
                (1, Token::Other)
            }
            '-' => (1, Token::Minus),
            '.' => (1, Token::Dot),
            '|' => (1, Token::Pipe),
            c => (c.len_utf8(), Token::Other),
        };
        at += length;
        (before, last) = (last, token);
    }
    Ok((text.len(), used))
}

const EQUALS: &str =
    "write is eq(…) or is ne(…), which compare numbers exactly, as in {% if body.amount is eq(0) %}";

/// The length of a string with its quotes.
fn string(text: &str) -> usize {
    let mut chars = text.char_indices();
    let Some((_, quote)) = chars.next() else { return 0 };
    let mut escaped = false;
    for (at, c) in chars {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}
