//! Expressions in the text of a URL: `{{ … }}` stands for a value that is made for each update.

use super::TemplateFault;

/// A URL's text with a word for each expression that no URL parser changes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Marked {
    /// The text, with words instead of expressions.
    pub text: String,
    /// What each word begins with. It is nowhere else in the text.
    prefix: String,
    /// The expressions, without braces and spaces around them.
    pub expressions: Vec<Box<str>>,
}

/// What ends a word.
const END: char = 'z';

impl Marked {
    /// Takes the expressions out of a text.
    ///
    /// # Errors
    /// One has no end, or there is nothing in it.
    pub fn new(text: &str) -> Result<Self, TemplateFault> {
        let mut prefix = "slot".to_owned();
        while text.to_ascii_lowercase().contains(&prefix) {
            prefix.push('x');
        }
        let (mut marked, mut expressions, mut rest) = (String::new(), Vec::new(), text);
        while let Some((before, after)) = rest.split_once("{{") {
            let unknown = || TemplateFault::UnknownPlaceholder { found: "{{".to_owned() };
            let end = end_of_expression(after).ok_or_else(unknown)?;
            let expression = after[..end].trim();
            if expression.is_empty() {
                return Err(unknown());
            }
            marked.extend([before, &prefix, &expressions.len().to_string()]);
            marked.push(END);
            expressions.push(expression.into());
            rest = &after[end + 2..];
        }
        marked += rest;
        Ok(Self { text: marked, prefix, expressions })
    }

    /// Returns true if a part of the text has a word in it.
    pub fn is_in(&self, part: &str) -> bool {
        part.contains(&self.prefix)
    }

    /// Takes a part of the text apart: text, then the number of an expression and the text behind it, and so on.
    pub fn split<'t>(&self, part: &'t str) -> (&'t str, Vec<(usize, &'t str)>) {
        let mut parts = part.split(&self.prefix);
        let first = parts.next().unwrap_or_default();
        let numbered = parts.filter_map(|part| {
            let (number, text) = part.split_once(END)?;
            Some((number.parse().ok()?, text))
        });
        (first, numbered.collect())
    }
}

/// Where the `}}` is that ends an expression: not in a string, nor within braces.
fn end_of_expression(text: &str) -> Option<usize> {
    let (mut depth, mut quote, mut escaped) = (0_u32, None, false);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), _) if open == c => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '{') => depth += 1,
            (None, '}') if depth > 0 => depth -= 1,
            (None, '}') => return text[at..].starts_with("}}").then_some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_ends_where_its_braces_do() {
        let check = |text: &str, marked: &str, expressions: &[&str]| {
            let found = Marked::new(text).unwrap();
            let found_expressions: Vec<&str> = found.expressions.iter().map(|text| &**text).collect();
            assert_eq!((found.text.as_str(), found_expressions.as_slice()), (marked, expressions), "{text}");
        };
        check("a/{{ b }}/c", "a/slot0z/c", &["b"]);
        check("{{a}}{{ b.c | upper }}", "slot0zslot1z", &["a", "b.c | upper"]);
        check(r#"{{ "}}" ~ '"}}\'' }}x"#, "slot0zx", &[r#""}}" ~ '"}}\''"#]);
        check("{{ {'a': {'b': 1}}.a.b }}", "slot0z", &["{'a': {'b': 1}}.a.b"]);
        check("SLOT/{{ a }}", "SLOT/slotx0z", &["a"]);
        check("{record_key}", "{record_key}", &[]);
        for text in ["{{", "{{ }}", "{{ a }", "{{ '}}", "{{ { }}", "{{ a }b }}"] {
            assert!(Marked::new(text).is_err(), "{text}");
        }
    }
}
