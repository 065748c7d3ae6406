//! Whether mutations are admitted, as probes are told: whoever asks as often as they like makes the daemon
//! look once in a while.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::Mutex, task::spawn_blocking};

use crate::{
    fleet::Gate,
    migration::{Code, Failure},
};

/// How long an answer is given again.
const FRESH: Duration = Duration::from_secs(1);

/// What was seen, and when.
type Look = (Instant, Result<(), Failure>);

/// A gate that is looked at once in a while.
#[derive(Clone)]
pub struct Watched {
    gate: Gate,
    last: Arc<Mutex<Option<Look>>>,
}

impl Watched {
    /// Watches a gate.
    pub fn new(gate: Gate) -> Self {
        Self { gate, last: Arc::default() }
    }

    /// Whether it is open; the answer may be a second old. One look at a time: it is the disk that is
    /// waited for.
    pub(super) async fn look(&self) -> Result<(), Failure> {
        let mut last = self.last.lock().await;
        if let Some((when, answer)) = &*last
            && when.elapsed() < FRESH
        {
            return answer.clone();
        }
        let gate = self.gate.clone();
        let looked = spawn_blocking(move || gate()).await;
        let answer = looked
            .unwrap_or_else(|_| Err(Failure::new(Code::Internal, "The look at the log ended unexpectedly")));
        *last = Some((Instant::now(), answer.clone()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn who_asks_often_is_told_what_was_seen_last() {
        let looks = Arc::new(AtomicU32::new(0));
        let gate = {
            let looks = looks.clone();
            Watched::new(Arc::new(move || match looks.fetch_add(1, Ordering::Relaxed) {
                0 => Ok(()),
                _ => Err(Failure::new(Code::LogUnwritable, "it is full")),
            }))
        };
        for _ in 0..100 {
            assert!(gate.look().await.is_ok());
        }
        assert_eq!(looks.load(Ordering::Relaxed), 1);
        if let Some((when, _)) = &mut *gate.last.lock().await {
            *when -= FRESH;
        }
        assert!(gate.look().await.is_err());
    }
}
