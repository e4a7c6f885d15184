//! Text from outside must not steer a terminal, or look like lines of ours.

/// Escapes control characters, and characters that change the direction of text.
pub fn printable(text: &str) -> String {
    escape(text, steers)
}

/// As [`printable`], except for line ends: for whole outputs.
pub fn printable_lines(text: &str) -> String {
    escape(text, |c| steers(c) && c != '\n')
}

fn escape(text: &str, escapes: impl Fn(char) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if escapes(c) {
            escaped.extend(c.escape_default());
        } else {
            escaped.push(c);
        }
    }
    escaped
}

fn steers(c: char) -> bool {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_cannot_steer_the_terminal() {
        assert_eq!(
            printable("schön \u{1b}[2J\n客户\u{9b}\u{202e}"),
            "schön \\u{1b}[2J\\n客户\\u{9b}\\u{202e}"
        );
        assert_eq!(printable_lines("a\n\u{1b}b\r\n"), "a\n\\u{1b}b\\r\n");
    }
}
