//! How many files and connections the system lets the daemon have open, and how many of them are clients'.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// How many listeners share what clients may have.
const LISTENERS: u64 = 3;

/// The least number of clients that a listener serves, however little there is.
const LEAST_CLIENTS: usize = 8;

/// Asks the system for as many descriptors as it gives, and says how many there are.
pub(super) fn raise() -> u64 {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if soft < hard => {
            if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
                hard
            } else {
                soft
            }
        }
        Ok((soft, _)) => soft,
        Err(error) => {
            tracing::warn!(%error, "the limit of descriptors cannot be read");
            u64::MAX
        }
    }
}

/// How many clients each listener serves: what the configuration says, but of all descriptors one half at
/// most, so that databases, files and the log have theirs.
pub(super) fn clients(configured: usize, descriptors: u64) -> usize {
    let room = usize::try_from(descriptors / 2 / LISTENERS).unwrap_or(usize::MAX).max(LEAST_CLIENTS);
    if room < configured {
        tracing::warn!(
            max_clients = configured,
            serves = room,
            descriptors,
            "the system gives too few descriptors for max_clients: raise LimitNOFILE, or ulimit -n"
        );
    }
    configured.min(room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_one_half() {
        let check = |configured, descriptors, expected| {
            assert_eq!(clients(configured, descriptors), expected, "{configured} of {descriptors}");
        };
        check(512, 524_288, 512);
        check(512, 1024, 170);
        check(100, 1024, 100);
        check(512, 20, 8);
        check(4, 20, 4);
        check(512, u64::MAX, 512);
    }
}
