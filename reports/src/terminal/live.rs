//! Redrawn rows: one for every running cell and every image, runner and template in progress, and one with the counts.

use std::{collections::HashMap, fmt, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use matrix::{CellId, Digest};

use super::paint::Paint;
use crate::{Event, EventKind, Outcome, Run, clean, human, run::ImageState};

/// Maximum number of rows: the row with the counts must stay on the screen.
const MAX_ROWS: usize = 16;
/// Redraw interval.
const TICK: Duration = Duration::from_millis(200);

/// The rows.
pub(super) struct Live {
    progress: MultiProgress,
    rows: HashMap<Key, ProgressBar>,
    total: ProgressBar,
    name_width: usize,
    paint: Paint,
}

/// The subject of a row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Cell(CellId),
    Image(String),
    Runner(u32),
    Template { image: String, runner: u32, template: Digest },
}

impl Live {
    pub(super) fn new(target: ProgressDrawTarget, width: usize, paint: Paint) -> Self {
        let progress = MultiProgress::with_draw_target(target);
        let total = progress.add(ProgressBar::new_spinner());
        total.set_style(style("  {msg}  {clock}", None));
        total.enable_steady_tick(TICK);
        // The columns beside the name: spinner, phase, clock and limit.
        Self { progress, rows: HashMap::new(), total, name_width: width.saturating_sub(40).clamp(16, 60), paint }
    }

    /// Updates the rows for an event that has just been folded into `run`.
    pub(super) fn update(&mut self, run: &Run, event: &Event) {
        match &event.kind {
            EventKind::ImageStarted { image } => self.show(Key::Image(image.clone()), "image", None, true),
            EventKind::ImageProgress { image, message } => {
                self.show(Key::Image(image.clone()), clean::prefix(&clean::line(message), 60), None, false);
            }
            EventKind::ImageReady { image, .. } | EventKind::ImageFailed { image, .. } => {
                self.remove(&Key::Image(image.clone()));
            }
            EventKind::RunnerStarted { runner, .. } => self.show(Key::Runner(*runner), "runner", None, true),
            EventKind::RunnerProgress { runner, message } => {
                self.show(Key::Runner(*runner), clean::prefix(&clean::line(message), 60), None, false);
            }
            EventKind::RunnerReady { runner } => self.remove(&Key::Runner(runner.number)),
            EventKind::RunnerLost { runner: lost, .. } => self.remove_all(|key| match key {
                Key::Runner(runner) | Key::Template { runner, .. } => runner == lost,
                Key::Cell(_) | Key::Image(_) => false,
            }),
            EventKind::TemplateStarted { runner, template, image } => {
                let key = Key::Template { image: clean::line(image), runner: *runner, template: *template };
                self.show(key, "freezing", None, true);
            }
            EventKind::TemplateReady { runner, template, .. } | EventKind::TemplateFailed { runner, template, .. } => {
                let ended = (*runner, *template);
                self.remove_all(
                    |key| matches!(key, Key::Template { runner, template, .. } if (*runner, *template) == ended),
                );
            }
            EventKind::AttemptStarted { cell, .. } => self.show(Key::Cell(cell.clone()), "starting", None, true),
            EventKind::PhaseStarted { cell, phase, timeout_ms, .. } => {
                self.show(Key::Cell(cell.clone()), phase.name(), *timeout_ms, true);
            }
            EventKind::AttemptFinished { cell, .. } | EventKind::CellFinished { cell, .. } => {
                self.remove(&Key::Cell(cell.clone()));
            }
            _ => {}
        }
        self.total.set_message(self.totals(run));
    }

    /// Prints permanent lines above the rows.
    pub(super) fn print(&self, lines: &[String]) {
        // A closed terminal does not end a run.
        let _ = self.progress.println(lines.join("\n"));
    }

    /// Removes the rows.
    pub(super) fn end(&mut self) {
        for (_, row) in self.rows.drain() {
            row.finish_and_clear();
        }
        self.total.finish_and_clear();
    }

    fn show(&mut self, key: Key, what: &str, timeout_ms: Option<u64>, restart_clock: bool) {
        if !self.rows.contains_key(&key) {
            if self.rows.len() >= MAX_ROWS {
                return;
            }
            let name = match &key {
                Key::Cell(cell) => cell.as_str().to_owned(),
                Key::Image(image) => format!("image {}", clean::line(image)),
                Key::Runner(number) => format!("runner {number}"),
                Key::Template { image, .. } => format!("template of {image}"),
            };
            let row = self.progress.insert_before(&self.total, ProgressBar::new_spinner());
            row.set_prefix(format!("{:<width$}", shorten(&name, self.name_width), width = self.name_width.min(40)));
            row.enable_steady_tick(TICK);
            self.rows.insert(key.clone(), row);
        }
        let Some(row) = self.rows.get(&key) else { return };
        if restart_clock {
            row.reset_elapsed();
        }
        row.set_style(style("  {spinner} {prefix}  {msg:<9} {clock}", timeout_ms));
        row.set_message(what.to_owned());
    }

    fn remove(&mut self, key: &Key) {
        if let Some(row) = self.rows.remove(key) {
            row.finish_and_clear();
            self.progress.remove(&row);
        }
    }

    fn remove_all(&mut self, is_over: impl Fn(&Key) -> bool) {
        for key in self.rows.keys().filter(|key| is_over(key)).cloned().collect::<Vec<_>>() {
            self.remove(&key);
        }
    }

    fn totals(&self, run: &Run) -> String {
        let finished = run.cells.iter().filter(|cell| cell.finished).count();
        let running = run.cells.iter().filter(|cell| !cell.finished && cell.started.is_some()).count();
        let mut parts = vec![format!("{finished} of {}", human::count(run.cells.len(), "cell"))];
        for outcome in [Outcome::Passed, Outcome::Failed, Outcome::Error, Outcome::Skipped, Outcome::NotRun] {
            let count = run.cells.iter().filter(|cell| cell.finished && cell.outcome() == outcome).count();
            if count > 0 {
                parts.push(self.paint.outcome(outcome, &format!("{count} {outcome}")));
            }
        }
        if running > 0 {
            parts.push(format!("{running} running"));
        }
        let images = run.images.iter().filter(|image| matches!(image.state, ImageState::Preparing { .. })).count();
        if images > 0 {
            parts.push(format!("preparing {}", human::count(images, "image")));
        }
        if run.interrupted.is_some() {
            parts.push(self.paint.notice("stopping"));
        }
        parts.join(" · ")
    }
}

/// A style with a clock since the last reset, and its limit.
fn style(template: &str, timeout_ms: Option<u64>) -> ProgressStyle {
    let limit = timeout_ms.map(|ms| format!(" of {}", human::duration(ms))).unwrap_or_default();
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner()).with_key(
        "clock",
        move |state: &ProgressState, out: &mut dyn fmt::Write| {
            let elapsed = u64::try_from(state.elapsed().as_millis()).unwrap_or(u64::MAX);
            // Drawing is best effort.
            let _ = write!(out, "{}{limit}", human::duration(elapsed));
        },
    )
}

/// The end of a name is more specific than its beginning, so the beginning is cut.
fn shorten(name: &str, width: usize) -> String {
    let length = name.chars().count();
    if length <= width {
        name.to_owned()
    } else {
        format!("…{}", name.chars().skip(length - width + 1).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex, PoisonError},
    };

    use indicatif::TermLike;
    use matrix::Plan;

    use super::*;
    use crate::Phase;
    use crate::{Trouble, TroubleKind};

    /// A terminal that records its text.
    #[derive(Clone, Debug, Default)]
    struct RecordingTerm(Arc<Mutex<String>>);

    impl RecordingTerm {
        fn text(&self) -> String {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
        }
    }

    impl TermLike for RecordingTerm {
        fn width(&self) -> u16 {
            100
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, line: &str) -> io::Result<()> {
            self.write_str(&format!("{line}\n"))
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn plan() -> Plan {
        let dir = tempfile::tempdir().expect("temporary folder");
        let file = dir.path().join("matrix.toml");
        let names: Vec<String> = (0..30).map(|number| format!("\"v{number}\"")).collect();
        let axes = format!("[axes]\nvariant = [{}]\n", names.join(", "));
        let text = format!("[[image]]\nname = \"debian\"\n{axes}[[suite]]\nname = \"smoke\"\ninline = \"true\"\n");
        std::fs::write(&file, text).expect("writable");
        matrix::load(&file, &["debian"]).expect("a valid matrix").plan
    }

    fn tell(live: &mut Live, run: &mut Run, kind: EventKind) {
        let event = Event { at: jiff::Timestamp::UNIX_EPOCH, clock_ms: None, kind };
        run.fold_one(&event);
        live.update(run, &event);
    }

    #[test]
    fn a_row_shows_the_phase_and_its_limit_and_rows_end_with_the_screen() {
        let plan = plan();
        let paper = RecordingTerm::default();
        let target = ProgressDrawTarget::term_like(Box::new(paper.clone()));
        let mut live = Live::new(target, 100, Paint::new(false));
        let mut run = Run::new(&plan);
        for cell in &plan.cells {
            tell(&mut live, &mut run, EventKind::AttemptStarted { cell: cell.id.clone(), attempt: 1 });
        }
        assert_eq!(live.rows.len(), MAX_ROWS);
        let cell = plan.cells[0].id.clone();
        let timeout_ms = Some(180_000);
        tell(&mut live, &mut run, EventKind::PhaseStarted { cell, attempt: 1, phase: Phase::Boot, timeout_ms });
        let text = paper.text();
        let row = text.lines().rev().find(|line| line.contains("debian.smoke.variant=v0 ")).expect("a row").to_owned();
        assert!(row.contains("boot") && row.contains("of 3m 00s"), "{row}");
        assert!(text.contains("0 of 30 cells · 30 running"), "{text}");
        live.print(&["  PASS  something".to_owned()]);
        assert!(paper.text().contains("  PASS  something"));
        live.end();
        assert!(live.rows.is_empty());
    }

    #[test]
    fn a_runner_in_the_making_is_a_row_with_the_last_that_was_said_of_it() {
        let plan = plan();
        let paper = RecordingTerm::default();
        let target = ProgressDrawTarget::term_like(Box::new(paper.clone()));
        let mut live = Live::new(target, 100, Paint::new(false));
        let mut run = Run::new(&plan);
        let (kind, reason) = ("qemu".to_owned(), "asked for".to_owned());
        tell(&mut live, &mut run, EventKind::RunnerStarted { runner: 1, kind, reason: reason.clone() });
        tell(&mut live, &mut run, EventKind::RunnerProgress { runner: 1, message: "booting\u{1b}[2J".to_owned() });
        let text = paper.text();
        assert!(text.lines().any(|line| line.contains("runner 1") && line.contains("booting")), "{text}");
        let trouble = Trouble::new(TroubleKind::RunnerLost, Phase::Runner, reason);
        let lost = EventKind::RunnerLost { runner: 1, trouble };
        tell(&mut live, &mut run, lost);
        assert!(live.rows.is_empty());
    }

    #[test]
    fn a_template_in_the_making_is_a_row_until_it_or_its_runner_comes_to_an_end() {
        let plan = plan();
        let paper = RecordingTerm::default();
        let target = ProgressDrawTarget::term_like(Box::new(paper.clone()));
        let mut live = Live::new(target, 100, Paint::new(false));
        let mut run = Run::new(&plan);
        let (runner, template) = (1, plan.digest);
        let trouble = Trouble::new(TroubleKind::RunnerLost, Phase::Runner, "none");
        let started = || EventKind::TemplateStarted { runner, template, image: "debian".to_owned() };
        let failed =
            EventKind::TemplateFailed { runner, template, trouble: trouble.clone(), elapsed_ms: 1, bootable: true };
        let lost = EventKind::RunnerLost { runner, trouble };
        for end in [failed, lost] {
            tell(&mut live, &mut run, started());
            let text = paper.text();
            assert!(
                text.lines().any(|line| line.contains("template of debian") && line.contains("freezing")),
                "{text}"
            );
            assert_eq!(live.rows.len(), 1);
            tell(&mut live, &mut run, end);
            assert!(live.rows.is_empty());
        }
    }

    #[test]
    fn a_name_that_is_too_long_keeps_its_end() {
        assert_eq!(shorten("debian-12.smoke.locale=C", 10), "….locale=C");
        assert_eq!(shorten("short", 10), "short");
    }
}
