//! Filter expressions of Compute Engine's lists, as far as they are used: `labels.k=v`, `labels.k:*`, `status!=RUNNING`, and several of them
//! joined by `AND` or by a space, each in brackets or not.

use serde_json::Value;

/// A filter.
pub(super) struct Filter(Vec<Term>);

struct Term {
    field: String,
    test: Test,
}

enum Test {
    Is(String),
    IsNot(String),
    Has(String),
}

impl Filter {
    /// `None`: it is none that is understood here.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut terms = Vec::new();
        for part in split(text)? {
            let at = part.find(['=', ':', '!'])?;
            let (field, rest) = (part[..at].trim(), &part[at..]);
            let (operator, value) =
                if let Some(value) = rest.strip_prefix("!=") { ("!=", value) } else { (&rest[..1], &rest[1..]) };
            let value = value.trim().trim_matches('"').to_owned();
            let is_name = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
            if field.is_empty() || value.is_empty() || !field.chars().all(is_name) {
                return None;
            }
            let test = match operator {
                "=" => Test::Is(value),
                "!=" => Test::IsNot(value),
                ":" => Test::Has(value),
                _ => return None,
            };
            terms.push(Term { field: field.to_owned(), test });
        }
        Some(Self(terms))
    }

    pub(super) fn takes(&self, resource: &Value) -> bool {
        self.0.iter().all(|term| term.takes(resource))
    }
}

impl Term {
    fn takes(&self, resource: &Value) -> bool {
        let value = self.field.split('.').try_fold(resource, |value, name| value.get(name));
        let text = value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        match (&self.test, text) {
            (Test::Is(wanted), Some(text)) => is_like(&text, wanted),
            (Test::IsNot(wanted), Some(text)) => !is_like(&text, wanted),
            (Test::Has(wanted), Some(text)) => wanted == "*" || text.contains(wanted.as_str()),
            (Test::IsNot(_), None) => true,
            (_, None) => false,
        }
    }
}

/// Equal, but for a `*` at its end.
fn is_like(text: &str, wanted: &str) -> bool {
    wanted.strip_suffix('*').map_or(text == wanted, |start| text.starts_with(start))
}

/// The terms of a filter. Brackets hold one term each.
fn split(text: &str) -> Option<Vec<String>> {
    let mut terms = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let length = if rest.starts_with('(') {
            rest.find(')')? + 1
        } else {
            rest.find(char::is_whitespace).unwrap_or(rest.len())
        };
        let term = rest[..length].trim_start_matches('(').trim_end_matches(')');
        if term != "AND" {
            terms.push(term.trim().to_owned());
        }
        rest = rest[length..].trim_start();
    }
    Some(terms)
}
