//! Texts with placeholders that a signature is made of.

use super::fault::Problem;

/// What a placeholder stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placeholder {
    /// The body of the request, byte for byte.
    Body,
    /// The time of the attempt.
    Timestamp,
    /// The update's id.
    UpdateId,
    /// The method of the request.
    Method,
    /// The path of its URL, as it is sent.
    Path,
    /// The query of its URL, without "?"; may be empty.
    Query,
    /// The signature, or all of them.
    Signature,
}

impl Placeholder {
    const ALL: [(&str, Self); 7] = [
        ("body", Self::Body),
        ("timestamp", Self::Timestamp),
        ("update_id", Self::UpdateId),
        ("method", Self::Method),
        ("path", Self::Path),
        ("query", Self::Query),
        ("signature", Self::Signature),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, placeholder)| *placeholder == self).expect("ALL has each").0
    }
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Stands for itself.
    Text(String),
    /// Stands for something of the request.
    Placeholder(Placeholder),
}

/// A text with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureTemplate(Vec<Part>);

impl SignatureTemplate {
    /// Reads a text in which these placeholders may stand.
    ///
    /// # Errors
    /// There is another one, or a brace that belongs to none.
    pub fn parse(text: &str, allowed: &[Placeholder]) -> Result<Self, Problem> {
        let problem = |what: String| {
            let known: Vec<String> =
                allowed.iter().map(|placeholder| format!("{{{}}}", placeholder.name())).collect();
            Problem::new(
                what,
                format!("placeholders are {}; other braces cannot be written", known.join(", ")),
            )
        };
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, after) = rest.split_at(at);
            let (name, after) = after
                .strip_prefix('{')
                .and_then(|after| after.split_once('}'))
                .ok_or_else(|| problem("has a brace without its other half".to_owned()))?;
            let placeholder = Placeholder::ALL
                .into_iter()
                .find(|(known, placeholder)| *known == name && allowed.contains(placeholder))
                .ok_or_else(|| problem(format!("{{{name}}} is no placeholder of this key")))?;
            parts.extend([Part::Text(before.to_owned()), Part::Placeholder(placeholder.1)]);
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        parts.retain(|part| !matches!(part, Part::Text(text) if text.is_empty()));
        Ok(Self(parts))
    }

    /// In their order.
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// How often it has this placeholder.
    pub fn count(&self, placeholder: Placeholder) -> usize {
        self.0.iter().filter(|part| **part == Part::Placeholder(placeholder)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&[Part], &str>) {
        let allowed = [Placeholder::Timestamp, Placeholder::Body];
        match (SignatureTemplate::parse(text, &allowed), expected) {
            (Ok(template), Ok(expected)) => assert_eq!(template.parts(), expected, "{text:?}"),
            (Err(problem), Err(part)) => assert!(problem.to_string().contains(part), "{text:?}: {problem}"),
            (got, _) => panic!("{text:?}: {got:?}"),
        }
    }

    #[test]
    fn a_template_is_text_with_the_placeholders_of_its_key() {
        let text = |text: &str| Part::Text(text.to_owned());
        let [timestamp, body] = [Placeholder::Timestamp, Placeholder::Body].map(Part::Placeholder);
        check("", Ok(&[]));
        check("v0", Ok(&[text("v0")]));
        check("{body}", Ok(std::slice::from_ref(&body)));
        check("v0:{timestamp}:{body}\n", Ok(&[text("v0:"), timestamp, text(":"), body.clone(), text("\n")]));
        check("{body}{body}", Ok(&[body.clone(), body]));
        check("{path}", Err("{path} is no placeholder of this key"));
        check("{Body}", Err("placeholders are {timestamp}, {body}"));
        check("{{body}}", Err("is no placeholder"));
        check("{body", Err("a brace without its other half"));
        check("body}", Err("a brace without its other half"));
        check("{}", Err("{} is no placeholder"));
    }
}
