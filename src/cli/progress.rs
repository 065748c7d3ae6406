//! Progress while an operation runs: on a terminal a bar for each database that is worked on, and one
//! for all of them; plain lines elsewhere. Of many databases only what is not routine is told.

use std::{
    collections::{HashMap, HashSet},
    io,
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::{
    cli::{
        console::Console,
        render::{self, event::Line, text},
        report::Report,
    },
    rpc::proto::{self, DatabaseOutcome, event::Kind},
};

mod pace;

use pace::Pace;

const BAR: &str = "{prefix} [{bar:24}] {pos}/{len} {wide_msg} {elapsed}";
const SPINNER: &str = "{prefix} {spinner} {wide_msg} {elapsed}";
const WHOLE: &str = "[{bar:24}] {wide_msg} {elapsed}";
const TICK: Duration = Duration::from_millis(120);

/// Of more databases than these, what goes as it should is counted, and not told.
const MANY: usize = 12;

/// How often off a terminal many databases are counted.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// What is drawn, and what is printed.
pub struct Progress {
    live: Option<Live>,
    pace: Pace,
    /// When they were counted last.
    counted: Instant,
    /// The notices that were told: of many databases, each once.
    told: HashSet<String>,
}

/// The bars, drawn on stderr.
struct Live {
    all: MultiProgress,
    bars: HashMap<String, ProgressBar>,
    /// Of all databases, where there are several.
    whole: Option<ProgressBar>,
}

impl Progress {
    /// Bars if the console can draw over itself, lines otherwise.
    pub fn new(console: &Console) -> Self {
        let live =
            console.is_live().then(|| Live { all: MultiProgress::new(), bars: HashMap::new(), whole: None });
        Self { live, pace: Pace::default(), counted: Instant::now(), told: HashSet::new() }
    }

    /// Shows one event; `report` is what was heard before it.
    pub fn show(&mut self, event: &proto::Event, report: &Report, console: &mut Console) -> io::Result<()> {
        self.pace.take(event);
        if let Some(live) = &mut self.live {
            live.draw(event);
            live.draw_whole(&self.pace);
        }
        let mut lines = render::event::lines(event, report, self.live.is_some(), console.width());
        if self.pace.targets() > MANY && !report.dry_run {
            if is_routine(event) {
                lines.clear();
            }
            lines.retain(|line| match line {
                Line::Note(text) if is_notice(event) => self.told.insert(of_any_database(text, event)),
                _ => true,
            });
            lines.extend(self.count());
        }
        if lines.is_empty() {
            return Ok(());
        }
        let mut print = || {
            lines.iter().try_for_each(|line| match line {
                Line::Data(text) if !console.is_json() => console.data(text),
                Line::Data(text) | Line::Note(text) => {
                    console.note(text);
                    Ok(())
                }
            })
        };
        match &self.live {
            Some(live) => live.all.suspend(print),
            None => print(),
        }
    }

    /// How far many databases are: off a terminal, now and then.
    fn count(&mut self) -> Option<Line> {
        let is_due = self.live.is_none() && self.counted.elapsed() >= COUNT_EVERY;
        is_due.then(|| {
            self.counted = Instant::now();
            Line::Note(format!("{}\n", self.pace.text(jiff::Timestamp::now())))
        })
    }

    /// Takes the bars away.
    pub fn clear(&mut self) {
        if let Some(live) = self.live.take() {
            live.whole.iter().for_each(ProgressBar::finish_and_clear);
            live.bars.into_values().for_each(|bar| bar.finish_and_clear());
        }
    }
}

/// Whether an event of one database among many says only that all goes as it should.
fn is_routine(event: &proto::Event) -> bool {
    match &event.kind {
        Some(Kind::StepFinished(_) | Kind::LockWaiting(_) | Kind::StepRetrying(_)) => true,
        Some(Kind::DatabaseFinished(result)) => {
            matches!(result.outcome(), DatabaseOutcome::Succeeded | DatabaseOutcome::UpToDate)
        }
        _ => false,
    }
}

fn is_notice(event: &proto::Event) -> bool {
    matches!(event.kind, Some(Kind::Notice(_)))
}

/// The text of a notice without the database's name.
fn of_any_database(text: &str, event: &proto::Event) -> String {
    text.replacen(&text::clean(&event.database), "", 1)
}

impl Live {
    /// The bar of all databases stands above the others.
    fn draw_whole(&mut self, pace: &Pace) {
        if pace.targets() < 2 {
            return;
        }
        let bar = self.whole.get_or_insert_with(|| {
            let bar = self.all.insert(0, ProgressBar::new(0));
            bar.set_style(style(WHOLE));
            bar.enable_steady_tick(TICK);
            bar
        });
        bar.set_length(pace.targets() as u64);
        bar.set_position(pace.done() as u64);
        bar.set_message(pace.text(jiff::Timestamp::now()));
    }

    fn draw(&mut self, event: &proto::Event) {
        match &event.kind {
            Some(Kind::DatabaseStarted(started)) => {
                let bar = self.bar(&event.database);
                bar.set_length(started.steps.len() as u64);
                bar.set_style(style(BAR));
            }
            Some(Kind::LockWaiting(waiting)) => {
                let holder = text::clean(&waiting.holder);
                self.bar(&event.database).set_message(format!("waiting for the lock held by {holder}"));
            }
            Some(Kind::StepStarted(started)) => {
                let bar = self.bar(&event.database);
                bar.set_length(u64::from(started.total));
                bar.set_position(u64::from(started.number.saturating_sub(1)));
                let step = started.step.as_ref().map_or_else(String::new, render::plan::step_title);
                bar.set_message(step);
            }
            Some(Kind::StepProgress(progress)) => {
                let version = text::clean(&progress.version);
                let part = text::part(progress.done, progress.total);
                self.bar(&event.database).set_message(format!("{version} {part}"));
            }
            Some(Kind::StepRetrying(retrying)) => {
                self.bar(&event.database).set_message(render::event::retrying(retrying));
            }
            Some(Kind::DatabaseFinished(_)) => {
                if let Some(bar) = self.bars.remove(&event.database) {
                    bar.finish_and_clear();
                    self.all.remove(&bar);
                }
            }
            _ => {}
        }
    }

    fn bar(&mut self, database: &str) -> &ProgressBar {
        self.bars.entry(database.to_owned()).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new_spinner());
            bar.set_style(style(SPINNER));
            bar.set_prefix(text::clean(database));
            bar.enable_steady_tick(TICK);
            bar
        })
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
