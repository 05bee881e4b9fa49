//! `[[exclude]]`: which cells are left out. Avoids comparing every rule with every cell.
//!
//! Values are looked up, a glob is compared once with each value of its dimension, and a rule is tried only for cells that have
//! one of the values of its narrowest condition.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    rc::Rc,
};

use indexmap::IndexMap;

use crate::{
    error::{Mistakes, Problem},
    located::At,
    rules::Dimensions,
    scalar::OneOrMany,
    text::{self, GLOB_HELP},
};

/// Maximum number of comparisons of globs with values: about a second.
const MAX_COMPARISONS: usize = 2_000_000;
/// Cost of compiling a glob, in comparisons.
const GLOB_COSTS: usize = 500;
/// Maximum number of trials of rules with cells: one or two seconds.
const MAX_TRIALS: usize = 20_000_000;

/// Positions of values in their dimension, ascending.
type Positions = Rc<[usize]>;

/// The checked excludes.
pub(crate) struct Excludes {
    rules: Vec<Exclude>,
    /// Values of every dimension.
    lengths: Vec<usize>,
}

/// Cells to leave out: those that match all conditions.
struct Exclude {
    /// The rule in the file.
    span: Range<usize>,
    conditions: Vec<Condition>,
}

/// Values of one dimension: those in any of these lists.
struct Condition {
    dimension: usize,
    lists: Vec<Positions>,
}

impl Exclude {
    /// The condition with the fewest values.
    fn narrowest(&self) -> Option<&Condition> {
        self.conditions.iter().min_by_key(|condition| condition.values().count())
    }
}

impl Condition {
    fn values(&self) -> impl Iterator<Item = usize> {
        self.lists.iter().flat_map(|positions| positions.iter().copied())
    }

    fn matches(&self, cell: &[usize]) -> bool {
        self.lists.iter().any(|positions| positions.binary_search(&cell[self.dimension]).is_ok())
    }
}

impl Excludes {
    /// Checks the rules of the file.
    pub(crate) fn new(
        file: &[At<IndexMap<At<String>, At<OneOrMany>>>],
        dimensions: &Dimensions<'_>,
        mistakes: &mut Mistakes,
    ) -> Self {
        let mut matcher = Matcher { dimensions, globs: HashMap::new(), comparisons: 0 };
        let lengths = (0..dimensions.count()).map(|dimension| dimensions.values(dimension).len()).collect();
        let mut rules = Vec::new();
        for rule in file {
            if mistakes.is_full() {
                break;
            }
            match matcher.exclude(rule, mistakes) {
                Ok(exclude) => rules.extend(exclude),
                Err(problem) => {
                    mistakes.push(*problem);
                    break;
                }
            }
        }
        Self { rules, lengths }
    }

    /// Reports a mistake if evaluating the excludes for this many cells would take too long.
    pub(crate) fn check_size(&self, cells: usize, mistakes: &mut Mistakes) {
        let trials = |rule: &Exclude| {
            let narrowest = rule.narrowest()?;
            let cells = narrowest.values().count().saturating_mul(cells / self.lengths[narrowest.dimension].max(1));
            Some(cells.saturating_mul(rule.conditions.iter().map(|condition| condition.lists.len()).sum()))
        };
        let trials = self.rules.iter().filter_map(trials).fold(0, usize::saturating_add);
        if trials > MAX_TRIALS {
            let (number, first) = (self.rules.len(), self.rules.first().map_or(0..0, |rule| rule.span.clone()));
            let message =
                format!("{number} excludes take {trials} comparisons with {cells} cells, the limit is {MAX_TRIALS}");
            let help = "join excludes into one with lists of values, or drop values from the axes";
            mistakes.push(mistakes.at(first, message, "the first exclude").with_help(help));
        }
    }

    /// The rules, by the values they are tried for.
    pub(crate) fn by_value(&self) -> ByValue<'_> {
        let mut to_try: Vec<_> = self.lengths.iter().map(|length| vec![Vec::new(); *length]).collect();
        for (number, rule) in self.rules.iter().enumerate() {
            let Some(narrowest) = rule.narrowest() else { continue };
            for position in narrowest.values() {
                let rules: &mut Vec<u32> = &mut to_try[narrowest.dimension][position];
                // Two patterns of one rule may match the same value.
                if rules.last() != Some(&(number as u32)) {
                    rules.push(number as u32);
                }
            }
        }
        ByValue { rules: &self.rules, to_try }
    }

    /// The spans of the rules in the file, by their numbers.
    pub(crate) fn spans(&self) -> impl Iterator<Item = Range<usize>> {
        self.rules.iter().map(|rule| rule.span.clone())
    }
}

/// Rules, sorted under the values of their narrowest condition.
pub(crate) struct ByValue<'a> {
    rules: &'a [Exclude],
    /// For every dimension and every value of it, numbers of rules.
    to_try: Vec<Vec<Vec<u32>>>,
}

impl ByValue<'_> {
    /// Calls with the number of every rule that leaves out this cell: its position in every dimension.
    pub(crate) fn each_of(&self, cell: &[usize], mut call: impl FnMut(usize)) {
        for (rules, position) in self.to_try.iter().zip(cell) {
            for number in &rules[*position] {
                let number = *number as usize;
                if self.rules[number].conditions.iter().all(|condition| condition.matches(cell)) {
                    call(number);
                }
            }
        }
    }
}

/// Finds values.
struct Matcher<'a> {
    dimensions: &'a Dimensions<'a>,
    /// What a glob matched in a dimension: excludes repeat them.
    globs: HashMap<(usize, String), Positions>,
    comparisons: usize,
}

impl Matcher<'_> {
    /// A rule; `None`, and mistakes, if it is wrong. `Err`: no further rule can be checked in time.
    fn exclude(
        &mut self,
        rule: &At<IndexMap<At<String>, At<OneOrMany>>>,
        mistakes: &mut Mistakes,
    ) -> Result<Option<Exclude>, Box<Problem>> {
        if rule.get().is_empty() {
            mistakes.push(
                mistakes
                    .at(rule.span(), "an exclude without a condition leaves out every cell", "empty")
                    .with_help("add `image`, `suite` or an axis, or remove it"),
            );
            return Ok(None);
        }
        let mut conditions = Vec::new();
        for (key, value) in rule.get() {
            let Some(dimension) = self.dimensions.check_key(key, mistakes) else { continue };
            let patterns = match value.get() {
                OneOrMany::One(one) => vec![(one.to_string(), value.span())],
                OneOrMany::Many(many) => many.iter().map(|one| (one.get().to_string(), one.span())).collect(),
            };
            let (mut plain, mut lists, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
            for (pattern, span) in patterns {
                if !is_glob(&pattern) {
                    plain.extend(self.plain(dimension, &pattern, span, mistakes));
                } else if seen.insert(pattern.clone()) {
                    lists.extend(self.glob(dimension, pattern, span, mistakes)?);
                }
            }
            plain.sort_unstable();
            plain.dedup();
            lists.extend((!plain.is_empty()).then(|| Positions::from(plain)));
            conditions.push(Condition { dimension, lists });
        }
        Ok(Some(Exclude { span: rule.span(), conditions }))
    }

    /// The position of this value, if there is one.
    fn plain(&self, dimension: usize, value: &str, span: Range<usize>, mistakes: &mut Mistakes) -> Option<usize> {
        match Dimensions::is_named(dimension) {
            true => self.dimensions.position(dimension, value, span, mistakes),
            false => self.dimensions.find(dimension, value),
        }
    }

    /// The values that a glob matches; `None`, and a mistake, if it is not a glob.
    fn glob(
        &mut self,
        dimension: usize,
        pattern: String,
        span: Range<usize>,
        mistakes: &mut Mistakes,
    ) -> Result<Option<Positions>, Box<Problem>> {
        if let Some(known) = self.globs.get(&(dimension, pattern.clone())) {
            return Ok(Some(Rc::clone(known)));
        }
        let values = self.dimensions.values(dimension);
        self.comparisons += values.len() + GLOB_COSTS;
        if self.comparisons > MAX_COMPARISONS {
            let message = format!(
                "the globs of the excludes take more than {MAX_COMPARISONS} comparisons with {} values",
                values.len()
            );
            let help = "write the values themselves, which are looked up, or fewer globs";
            return Err(Box::new(mistakes.at(span, message, "this glob, after many others").with_help(help)));
        }
        let glob = match text::name_glob(&pattern) {
            Ok(glob) => glob,
            Err(error) => {
                let message = format!("`{pattern}` is not a glob: {error}");
                mistakes.push(mistakes.at(span, message, "not a glob").with_help(GLOB_HELP));
                return Ok(None);
            }
        };
        // A value always matches itself, whatever characters it holds.
        let found = self.dimensions.find(dimension, &pattern);
        let matches =
            |(position, value): (usize, &&str)| (found == Some(position) || glob.is_match(value)).then_some(position);
        let positions: Positions = values.iter().enumerate().filter_map(matches).collect();
        self.globs.insert((dimension, pattern), Rc::clone(&positions));
        Ok(Some(positions))
    }
}

fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?', '[', ']', '{', '}', '\\'])
}
