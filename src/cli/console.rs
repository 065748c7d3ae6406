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
}

impl Console {
    /// The process's own streams. `NO_COLOR`, `CLICOLOR` and `CLICOLOR_FORCE` are heeded.
    pub fn new(format: Format) -> Self {
        let (stdout, stderr) = (AutoStream::auto(io::stdout()), AutoStream::auto(io::stderr()));
        Self { format, stdout, stderr, closed: false }
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
