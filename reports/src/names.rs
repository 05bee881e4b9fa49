//! Unique names.

use std::collections::HashMap;

/// Makes names unique: a second `boots` becomes `boots (2)`.
#[derive(Debug, Default)]
pub struct UniqueNames {
    /// Name -> the number to try next for it, so that equal names do not take quadratic time.
    given: HashMap<String, u64>,
}

impl UniqueNames {
    /// This name, or the first free one made from it.
    pub fn take(&mut self, name: String) -> String {
        let Some(next) = self.given.get(&name).copied() else {
            self.given.insert(name.clone(), 2);
            return name;
        };
        let mut number = next;
        let free = loop {
            let candidate = format!("{name} ({number})");
            number += 1;
            if !self.given.contains_key(&candidate) {
                break candidate;
            }
        };
        self.given.insert(name, number);
        self.given.insert(free.clone(), 2);
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_given_out_once_even_if_somebody_numbered_already() {
        let mut names = UniqueNames::default();
        let taken = ["a", "a (2)", "a", "a", "b"].map(|name| names.take(name.to_owned()));
        assert_eq!(taken, ["a", "a (2)", "a (3)", "a (4)", "b"]);
    }
}
