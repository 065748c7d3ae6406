//! `nexusd` and `nexusctl` as processes: started, signalled, waited for.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    servers::http_get,
    support::{PATIENCE, fail},
};

/// What a command printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().or_else(|| output.status.signal().map(|signal| 128 + signal)),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Fails the test unless it ended with this code; returns both streams.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        format!("{}{}", self.stdout, self.stderr)
    }

    #[track_caller]
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| fail(&format!("no JSON ({error}):\n{}\n{}", self.stdout, self.stderr)))
    }
}

/// How long `nexusctl` may take.
const LONGEST: Duration = Duration::from_mins(3);

/// Variables of a process's environment.
pub(crate) type Environment<'a> = &'a [(&'a str, &'a str)];

/// A daemon that runs.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    config: PathBuf,
    /// What it has said on stderr since it serves.
    said: Arc<Mutex<String>>,
    pub(crate) socket: PathBuf,
    pub(crate) http: String,
    pub(crate) grpc: String,
}

impl Daemon {
    pub(crate) fn start(config: &Path, socket: PathBuf, environment: Environment<'_>) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_nexusd"))
            .args(["serve", "--config"])
            .arg(config)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nexusd starts");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
        let mut seen = String::new();
        let serving = loop {
            let Some(Ok(line)) = lines.next() else { fail(&format!("nexusd ended:\n{seen}")) };
            if line.contains("serving") {
                break line;
            }
            seen.push_str(&line);
            seen.push('\n');
        };
        // The rest is read away, so that the daemon never waits for its reader.
        let said = Arc::new(Mutex::new(String::new()));
        let heard = said.clone();
        drop(thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut said = heard.lock().expect("nobody panics with it");
                said.push_str(&line);
                said.push('\n');
            }
        }));
        let field = |name: &str| {
            let value = serving.split(&format!("{name}=")).nth(1).expect("the line has the field");
            value.split_whitespace().next().expect("the field has a value").to_owned()
        };
        Self { child, config: config.to_owned(), said, socket, http: field("http"), grpc: field("grpc") }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the daemon is signalled");
    }

    pub(crate) fn pid(&self) -> Pid {
        pid_of(&self.child)
    }

    /// What it has said on stderr since it serves.
    pub(crate) fn said(&self) -> String {
        self.said.lock().expect("nobody panics with it").clone()
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the daemon is waited for") {
                return status.code().or_else(|| status.signal().map(|signal| 128 + signal));
            }
            assert!(Instant::now() < until, "the daemon does not end");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGKILL, and gone.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }

    /// Starts it again.
    pub(crate) fn restart(&mut self) {
        if self.child.try_wait().expect("the daemon is waited for").is_none() {
            self.kill();
        }
        let socket = self.socket.clone();
        *self = Self::start(&self.config.clone(), socket, &[]);
    }

    pub(crate) fn ctl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nexusctl"));
        command
            .args(arguments)
            .env("NEXUS_SERVER", format!("unix:{}", self.socket.display()))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    /// Runs `nexusctl`.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> Ended {
        self.ctl_begin(arguments).end()
    }

    /// Starts `nexusctl` and does not wait for it.
    pub(crate) fn ctl_begin(&self, arguments: &[&str]) -> Begun {
        Begun::of(self.ctl_command(arguments))
    }

    /// A page of the HTTP server: status and body.
    pub(crate) fn page(&self, path: &str) -> (u16, String) {
        self.try_page(path).expect("HTTP answers")
    }

    /// The same; `None` where nothing answers.
    pub(crate) fn try_page(&self, path: &str) -> Option<(u16, String)> {
        http_get(&self.http, path)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a pid fits"))
}

/// A `nexusctl` that runs.
pub(crate) struct Begun(pub(crate) Child);

impl Begun {
    pub(crate) fn of(mut command: Command) -> Self {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("nexusctl starts");
        Self(child)
    }

    /// Waits for its end; one that does not come to it is killed, and has failed by that.
    pub(crate) fn end(self) -> Ended {
        let pid = pid_of(&self.0);
        let (ended, waits) = mpsc::channel::<()>();
        let watch = thread::spawn(move || {
            if waits.recv_timeout(LONGEST) == Err(RecvTimeoutError::Timeout) {
                // It may just have ended.
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
        let output = self.0.wait_with_output().expect("nexusctl ends");
        drop(ended);
        watch.join().expect("the watch ends");
        Ended::of(&output)
    }

    pub(crate) fn kill(mut self) {
        self.0.kill().expect("nexusctl is killed");
        self.0.wait().expect("nexusctl ends");
    }
}
