//! Failpoints: the boundaries at which a fault test kills the daemon, freezes it, or holds it up.
//!
//! They exist only in a build with the feature `failpoints`, which no release is. There the variable
//! `FAILPOINTS` says what happens where, in the words of the crate `fail`:
//! `apply.marked=1*off->return(kill)` kills the daemon at the second apply that has marked its row.
//! `return(kill)` ends the process as `kill -9` does, `return(freeze)` stops it as `kill -STOP` does,
//! `sleep(MS)` holds up the thread that comes there. In every other build a failpoint is no code at all.

use std::fmt::Display;

/// Reads `FAILPOINTS`; what it says holds as long as the returned value is kept.
pub fn arm() -> impl Sized {
    #[cfg(feature = "failpoints")]
    fail::FailScenario::setup()
}

/// A boundary: the `point` that has been reached in some `work`.
#[inline]
pub fn reached(work: impl Display, point: &'static str) {
    #[cfg(feature = "failpoints")]
    imp::reached(&format!("{work}.{point}"));
    #[cfg(not(feature = "failpoints"))]
    let _ = (work, point);
}

/// Whether a safeguard is taken away, to show that a test sees that it is missing.
#[inline]
pub fn is_without(safeguard: &'static str) -> bool {
    #[cfg(feature = "failpoints")]
    return imp::is_without(safeguard);
    #[cfg(not(feature = "failpoints"))]
    {
        let _ = safeguard;
        false
    }
}

#[cfg(feature = "failpoints")]
mod imp {
    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };

    pub(super) fn reached(name: &str) {
        fail::fail_point!(name, |signal| {
            let signal = match signal.as_deref() {
                Some("freeze") => Signal::SIGSTOP,
                _ => Signal::SIGKILL,
            };
            // A process may always signal itself.
            let _ = kill(Pid::this(), signal);
            // Another thread may be the one that takes the signal: this one goes no further meanwhile.
            std::thread::sleep(std::time::Duration::from_millis(500));
        });
    }

    pub(super) fn is_without(name: &str) -> bool {
        fail::fail_point!(name, |_| true);
        false
    }
}
