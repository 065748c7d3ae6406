//! The cases of the matrix, how they are run, and the table that they give.

use std::{
    cell::RefCell,
    collections::{BTreeSet, VecDeque},
    fmt::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

/// One fault in one situation.
pub(crate) struct Case {
    /// The row of the table.
    fault: &'static str,
    /// The situation.
    name: String,
    run: Box<dyn FnOnce(&mut Trial) + Send>,
    /// It does little but wait: it is run beside the others from the beginning.
    waits: bool,
}

impl Case {
    pub(crate) fn new(
        fault: &'static str,
        name: impl Into<String>,
        run: impl FnOnce(&mut Trial) + Send + 'static,
    ) -> Self {
        Self { fault, name: name.into(), run: Box::new(run), waits: false }
    }

    /// The same, of one that does little but wait.
    pub(crate) fn waiting(self) -> Self {
        Self { waits: true, ..self }
    }

    pub(crate) fn is_called(&self, filter: &str) -> bool {
        format!("{}: {}", self.fault, self.name).contains(filter)
    }
}

/// What a case has shown.
#[derive(Default)]
pub(crate) struct Trial {
    states: BTreeSet<String>,
    violations: Vec<String>,
    converged: Option<Duration>,
    not_run: Option<String>,
}

impl Trial {
    /// A legal state.
    pub(crate) fn saw(&mut self, state: String) {
        self.states.insert(state);
    }

    /// Something that may not be.
    pub(crate) fn violates(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    /// How many there are so far.
    pub(crate) fn violations(&self) -> usize {
        self.violations.len()
    }

    /// Everything is as it should be, so long after the fault was over.
    pub(crate) fn converged(&mut self, after: Duration) {
        self.converged = Some(after);
    }

    /// The machine does not let this fault happen.
    pub(crate) fn cannot_run(&mut self, why: impl Into<String>) {
        self.not_run = Some(why.into());
    }
}

/// A case that has been run.
struct Ended {
    number: usize,
    fault: &'static str,
    name: String,
    trial: Trial,
    took: Duration,
}

thread_local! {
    /// The last panic of the thread, with its place.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs the cases, so many at once, and returns the table and how many cases did not hold.
pub(crate) fn run(cases: Vec<Case>, at_once: usize) -> (String, usize) {
    std::panic::set_hook(Box::new(|panic| PANIC.set(panic.to_string())));
    let (waiting, working): (Vec<_>, Vec<_>) =
        cases.into_iter().enumerate().partition(|(_, case)| case.waits);
    let (working, ended) = (Mutex::new(VecDeque::from(working)), Mutex::new(Vec::new()));
    let keep = |done: Ended| ended.lock().unwrap_or_else(PoisonError::into_inner).push(done);
    thread::scope(|scope| {
        for case in waiting {
            scope.spawn(|| keep(run_one(case)));
        }
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(case) = next(&working) {
                    keep(run_one(case));
                }
            });
        }
    });
    let mut ended = ended.into_inner().unwrap_or_else(PoisonError::into_inner);
    ended.sort_by_key(|case| case.number);
    let violated = ended.iter().filter(|case| !case.trial.violations.is_empty()).count();
    (table(&ended), violated)
}

fn next(waiting: &Mutex<VecDeque<(usize, Case)>>) -> Option<(usize, Case)> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

fn run_one((number, case): (usize, Case)) -> Ended {
    let mut trial = Trial::default();
    let began = std::time::Instant::now();
    let Case { fault, name, run, .. } = case;
    // What a case asserts is a violation like any other.
    if catch_unwind(AssertUnwindSafe(|| run(&mut trial))).is_err() {
        trial.violates(PANIC.take());
    }
    let took = began.elapsed();
    let mark = if trial.violations.is_empty() { "ok" } else { "VIOLATED" };
    crate::say(&format!("{mark:8} {:5.1} s  {fault}: {name}", took.as_secs_f64()));
    for violation in &trial.violations {
        crate::say(&format!("         {violation}"));
    }
    Ended { number, fault, name, trial, took }
}

fn table(ended: &[Ended]) -> String {
    let mut faults: Vec<&'static str> = Vec::new();
    for case in ended {
        if !faults.contains(&case.fault) {
            faults.push(case.fault);
        }
    }
    let mut rows = vec![["fault", "runs", "violations", "converged", "legal states seen"].map(str::to_owned)];
    let mut notes = String::new();
    for fault in faults {
        let cases: Vec<_> = ended.iter().filter(|case| case.fault == fault).collect();
        let ran: Vec<_> = cases.iter().filter(|case| case.trial.not_run.is_none()).collect();
        let states: BTreeSet<_> = ran.iter().flat_map(|case| case.trial.states.iter().cloned()).collect();
        let violations: usize = ran.iter().map(|case| case.trial.violations.len()).sum();
        let mut times: Vec<_> = ran.iter().filter_map(|case| case.trial.converged).collect();
        times.sort();
        let seconds = |time: &Duration| format!("{:.1}", time.as_secs_f64());
        let times = match (times.get(times.len() / 2), times.last()) {
            (Some(median), Some(longest)) => format!("{} / {} s", seconds(median), seconds(longest)),
            _ => "–".to_owned(),
        };
        let states = states.into_iter().collect::<Vec<_>>().join(", ");
        rows.push([fault.to_owned(), ran.len().to_string(), violations.to_string(), times, states]);
        for case in cases {
            if let Some(why) = &case.trial.not_run {
                // Writing to a String cannot fail.
                let _ = writeln!(notes, "not run here: {fault}: {}: {why}", case.name);
            }
        }
    }
    let total: Duration = ended.iter().map(|case| case.took).sum();
    let runs = ended.iter().filter(|case| case.trial.not_run.is_none()).count();
    let violations: usize = ended.iter().map(|case| case.trial.violations.len()).sum();
    rows.push([
        "all".to_owned(),
        runs.to_string(),
        violations.to_string(),
        String::new(),
        format!("{:.0} s, one after the other", total.as_secs_f64()),
    ]);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut table = String::new();
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(table, "{}", cells.join("  ").trim_end());
    }
    format!("{table}{notes}")
}
