//! The two output streams: data on stdout, everything else on stderr; colours only where they are wanted.

use std::io::{self, IsTerminal as _, Write as _};

use anstream::AutoStream;
use serde::Serialize;

use crate::{
    cli::{args::Format, render},
    rpc::proto,
};

/// Where the answer and the remarks go.
pub struct Console {
    format: Format,
    stdout: AutoStream<io::Stdout>,
    stderr: AutoStream<io::Stderr>,
    /// Nobody reads stdout any more (`nexusctl … | head`): what is left of the answer is dropped,
    /// and the work is still followed to its end, for the exit code.
    closed: bool,
    /// What [`Console::picture`] drew last.
    last_picture: String,
}

/// Moves the terminal's cursor: not a colour, so that `NO_COLOR` says nothing of it.
fn control(sequence: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(sequence.as_bytes())?;
    stdout.flush()
}

impl Console {
    /// The process's own streams. `NO_COLOR`, `CLICOLOR` and `CLICOLOR_FORCE` are heeded.
    pub fn new(format: Format) -> Self {
        let (stdout, stderr) = (AutoStream::auto(io::stdout()), AutoStream::auto(io::stderr()));
        Self { format, stdout, stderr, closed: false, last_picture: String::new() }
    }

    /// Whether programs read the answer.
    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether a question can be asked and answered.
    pub fn can_ask(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Whether progress can be drawn over.
    pub fn is_live(&self) -> bool {
        io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
    }

    /// How wide a table may be: the terminal's width; unlimited elsewhere, so that nothing is cut.
    pub fn width(&self) -> Option<u16> {
        terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0)
    }

    /// Whether nobody reads the answer any more.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Begins a picture that is drawn again and again in the place of what the terminal shows; false
    /// where there is no terminal for it, or where a program reads.
    pub fn begin_picture(&mut self) -> io::Result<bool> {
        let is_terminal = io::stdout().is_terminal() && self.is_live() && !self.is_json();
        if is_terminal {
            control("\x1b[?1049h\x1b[?25l")?;
        }
        Ok(is_terminal)
    }

    /// Draws the picture anew; what does not fit on the terminal is left out, and that is said.
    pub fn picture(&mut self, text: &str) -> io::Result<()> {
        let height =
            terminal_size::terminal_size_of(io::stdout()).map_or(24, |(_, height)| usize::from(height.0));
        let lines: Vec<_> = text.lines().collect();
        let shown = if lines.len() < height { lines.len() } else { height.saturating_sub(2) };
        control("\x1b[H\x1b[J")?;
        for line in &lines[..shown] {
            self.data(&format!("{line}\n"))?;
        }
        if shown < lines.len() {
            self.data(&format!("… {} more lines\n", lines.len() - shown))?;
        }
        text.clone_into(&mut self.last_picture);
        Ok(())
    }

    /// Gives the terminal back, with the last picture on it.
    pub fn end_picture(&mut self) -> io::Result<()> {
        control("\x1b[?25h\x1b[?1049l")?;
        let last = std::mem::take(&mut self.last_picture);
        self.data(&last)
    }

    /// A part of the answer.
    pub fn data(&mut self, text: &str) -> io::Result<()> {
        self.raw(text.as_bytes())
    }

    /// The same, for bytes that may be no text.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.closed || bytes.is_empty() {
            return Ok(());
        }
        match self.stdout.write_all(bytes).and_then(|()| self.stdout.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            result => result,
        }
    }

    /// The answer as a document.
    pub fn json(&mut self, document: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_string_pretty(document)?;
        text.push('\n');
        self.raw(text.as_bytes())
    }

    /// A remark, a warning, an error. That stderr cannot be written is no reason to stop.
    pub fn note(&mut self, text: &str) {
        let _ = self.stderr.write_all(text.as_bytes()).and_then(|()| self.stderr.flush());
    }

    /// Shows why the request as a whole failed; on which database, where that is known.
    pub fn refused(&mut self, database: Option<&str>, failure: &proto::Failure) {
        if self.is_json() {
            let document = render::json::Refused { error: failure.into() };
            if let Err(error) = self.json(&document) {
                self.note(&format!("error: Cannot write the answer: {error}\n"));
            }
        }
        self.note(&render::failure::block(database, failure));
    }
}
