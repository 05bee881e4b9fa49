//! The part of a matrix file that is shown beside a mistake: a few lines, each shortened.
//!
//! [`miette`] draws lines as they are: a line of a megabyte is drawn as a megabyte, and a column beyond 65,535 panics in the
//! standard library's formatting. So [`Snippet`] holds only the lines around the labels, shortened, under their own numbers.

use std::{ops::Range, path::Path, sync::Arc};

use miette::{LabeledSpan, MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

/// Maximum characters of a line that are shown.
const MAX_WIDTH: usize = 200;
/// Of these, characters before the label.
const BEFORE: usize = 60;
/// Lines that are kept before and after each line with a label; miette shows one, and joins two places that are near.
const AROUND: usize = 2;

/// The matrix file's text, under the name the user gave it.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    name: String,
    text: Arc<str>,
    /// Where each line begins.
    starts: Arc<[usize]>,
}

impl Source {
    pub(crate) fn new(path: &Path, text: &str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(offset, _)| offset + 1));
        Self { name: plain(&path.display().to_string()), text: text.into(), starts: starts.collect() }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// `file:line` of this byte offset.
    pub(crate) fn place(&self, offset: usize) -> String {
        format!("{}:{}", self.name, 1 + self.line(offset))
    }

    /// The line of this byte offset, from 0.
    fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset).saturating_sub(1)
    }

    /// The bytes of a line, without its end.
    fn bytes(&self, line: usize) -> Range<usize> {
        let start = self.starts.get(line).copied().unwrap_or(self.text.len());
        let end = self.starts.get(line + 1).map_or(self.text.len(), |next| next - 1);
        start..end.max(start)
    }
}

/// Text for one line of a terminal: no control characters (a matrix file may contain `\u001b`), no change of direction.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(visible).collect()
}

/// The same with a limit in characters: the quoted middle is cut, not the message around it.
pub(crate) fn clip(text: &str, most: usize) -> String {
    let length = text.chars().count();
    if length <= most {
        return plain(text);
    }
    let at = |character: usize| text.char_indices().nth(character).map_or(text.len(), |(index, _)| index);
    let (head, tail) = (at(most * 2 / 3), at(length - most / 3));
    format!("{}…{}", plain(&text[..head]), plain(&text[tail..]))
}

/// The character, or its replacement.
fn visible(c: char) -> char {
    match c {
        '\t' => c,
        '\u{0}'..='\u{1f}' => char::from_u32(0x2400 + u32::from(c)).unwrap_or(char::REPLACEMENT_CHARACTER),
        '\u{7f}' => '\u{2421}',
        '\u{80}'..='\u{9f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}'
        | '\u{feff}' => char::REPLACEMENT_CHARACTER,
        _ => c,
    }
}

/// The lines around some labels.
#[derive(Debug)]
pub(crate) struct Snippet {
    name: String,
    /// As many lines as the file has up to the last shown one; those far from any label are empty.
    text: String,
    starts: Vec<usize>,
    /// Characters of the file before the shown part of a line.
    skipped: Vec<(usize, usize)>,
}

impl Snippet {
    /// The snippet for these labels, and the labels, moved to their bytes in it. A label of several lines is cut to its first
    /// one.
    pub(crate) fn new(source: &Source, labels: &[LabeledSpan]) -> (Self, Vec<LabeledSpan>) {
        let mut snippet =
            Self { name: source.name.clone(), text: String::new(), starts: Vec::new(), skipped: Vec::new() };
        let mut moved = labels.to_vec();
        let lines: Vec<_> = labels.iter().map(|label| source.line(label.offset())).collect();
        let last = lines.iter().max().map_or(0, |last| last + AROUND).min(source.starts.len() - 1);
        for line in 0..=last {
            snippet.starts.push(snippet.text.len());
            if lines.iter().any(|labelled| labelled.abs_diff(line) <= AROUND) {
                let on_it = labels.iter().zip(&mut moved).zip(&lines).filter(|(_, labelled)| **labelled == line);
                snippet.push(source, line, on_it.map(|(label, _)| label).collect());
            }
            if line < last {
                snippet.text.push('\n');
            }
        }
        (snippet, moved)
    }

    fn push(&mut self, source: &Source, line: usize, labels: Vec<(&LabeledSpan, &mut LabeledSpan)>) {
        let bytes = source.bytes(line);
        let text = &source.text[bytes.clone()];
        // The first label is the mistake itself.
        let meant = labels.first().map_or(0, |(label, _)| label.offset() - bytes.start);
        let (skipped, window) = window(text, meant);
        if skipped > 0 {
            // The `…` replaces the last of them.
            self.skipped.push((line, skipped - 1));
            self.text.push('…');
        }
        let shown = &text[window.clone()];
        let at = self.text.len();
        let moved = |offset: usize| {
            let inside = offset.saturating_sub(bytes.start).clamp(window.start, window.end) - window.start;
            let before = shown.char_indices().take_while(|(index, c)| index + c.len_utf8() <= inside);
            at + before.map(|(_, c)| visible(c).len_utf8()).sum::<usize>()
        };
        for (label, place) in labels {
            let (start, end) = (moved(label.offset()), moved(label.offset() + label.len()));
            let words = label.label().map(str::to_owned);
            let span = SourceSpan::from(start..end.max(start));
            *place = match label.primary() {
                true => LabeledSpan::new_primary_with_span(words, span),
                false => LabeledSpan::new_with_span(words, span),
            };
        }
        self.text.extend(shown.chars().map(visible));
        if window.end < text.len() {
            self.text.push('…');
        }
    }
}

/// The shown part of a line around a byte of it, and the number of characters before that part.
fn window(line: &str, meant: usize) -> (usize, Range<usize>) {
    let length = line.chars().count();
    if length <= MAX_WIDTH {
        return (0, 0..line.len());
    }
    let meant = line.char_indices().take_while(|(index, _)| *index < meant).count();
    let first = meant.saturating_sub(BEFORE).min(length - MAX_WIDTH);
    let byte = |character: usize| line.char_indices().nth(character).map_or(line.len(), |(index, _)| index);
    (first, byte(first)..byte(first + MAX_WIDTH))
}

impl SourceCode for Snippet {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let line = |offset: usize| self.starts.partition_point(|start| *start <= offset).saturating_sub(1);
        let first = line(span.offset()).saturating_sub(before);
        let last = line(span.offset() + span.len().saturating_sub(1)) + after;
        let end = self.starts.get(last + 1).copied().unwrap_or(self.text.len());
        let start = if before == 0 { span.offset() } else { self.starts.get(first).copied().unwrap_or(end) };
        let shown = self.text.get(start..end).ok_or(MietteError::OutOfBounds)?;
        let column = if before == 0 {
            let skipped = self.skipped.iter().find(|(line, _)| *line == first).map_or(0, |(_, skipped)| *skipped);
            skipped + self.text[self.starts[first]..start].chars().count()
        } else {
            0
        };
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            shown.as_bytes(),
            (start, shown.len()).into(),
            first,
            column,
            last + 1 - first,
        )))
    }
}
