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
    Other,
}

/// Checks a text.
///
/// # Errors
/// What is in it, and where.
pub(super) fn check(source: &str, format: Format) -> Result<(), TemplateFault> {
    let fault = |at: usize, why: &str| {
        let (line, column) = place(source, at);
        Err(TemplateFault { line, column, why: why.to_owned() })
    };
    let (mut at, mut in_string) = (0, false);
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
                Ok(length) => at += 2 + length,
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
    Ok(())
}

/// Reads an expression or a statement with its end. Returns its length; an unfinished one is for the compiler to find.
fn tag(text: &str, close: &str) -> Result<usize, (usize, &'static str)> {
    let (mut at, mut depth) = (0, 0_u32);
    let (mut before, mut last) = (Token::Other, Token::Other);
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        if depth == 0
            && (rest.starts_with(close)
                || rest.strip_prefix(['-', '+']).is_some_and(|r| r.starts_with(close)))
        {
            return Ok(at + rest.find(close).unwrap_or_default() + close.len());
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
                (length, Token::Other)
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
            c => (c.len_utf8(), Token::Other),
        };
        at += length;
        (before, last) = (last, token);
    }
    Ok(text.len())
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
