//! Progress while an operation runs: a bar per database on a terminal, plain lines elsewhere.

use std::{collections::HashMap, io, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::{
    cli::{
        console::Console,
        render::{self, event::Line, text},
        report::Report,
    },
    rpc::proto::{self, event::Kind},
};

const BAR: &str = "{prefix} [{bar:24}] {pos}/{len} {wide_msg} {elapsed}";
const SPINNER: &str = "{prefix} {spinner} {wide_msg} {elapsed}";
const TICK: Duration = Duration::from_millis(120);

/// What is drawn, and what is printed.
pub struct Progress {
    live: Option<Live>,
}

/// The bars, drawn on stderr.
struct Live {
    all: MultiProgress,
    bars: HashMap<String, ProgressBar>,
}

impl Progress {
    /// Bars if the console can draw over itself, lines otherwise.
    pub fn new(console: &Console) -> Self {
        let live = console.is_live().then(|| Live { all: MultiProgress::new(), bars: HashMap::new() });
        Self { live }
    }

    /// Shows one event; `report` is what was heard before it.
    pub fn show(&mut self, event: &proto::Event, report: &Report, console: &mut Console) -> io::Result<()> {
        if let Some(live) = &mut self.live {
            live.draw(event);
        }
        let lines = render::event::lines(event, report, self.live.is_some(), console.width());
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

    /// Takes the bars away.
    pub fn clear(&mut self) {
        if let Some(live) = self.live.take() {
            live.bars.into_values().for_each(|bar| bar.finish_and_clear());
        }
    }
}

impl Live {
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
