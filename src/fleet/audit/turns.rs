//! How many audits run at once that somebody asked for: each looks at everything, and who may only read may
//! ask for one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    access::Caller,
    migration::{Code, Failure},
};

/// How many run at once.
const MOST: usize = 8;

/// How many of them one caller has asked for.
const MOST_OF_ONE: usize = 2;

/// The audits that run, by who asked for them.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<String, usize>>);

/// One audit that runs.
pub(super) struct Turn {
    turns: Arc<Turns>,
    caller: String,
}

impl Turns {
    /// Lets one more run; refused where that would be too many.
    pub(super) fn take(self: &Arc<Self>, caller: &Caller) -> Result<Turn, Failure> {
        let (mut running, caller) = (self.running(), caller.identity());
        let of_caller = running.get(&caller).copied().unwrap_or_default();
        let (all, hint) = (running.values().sum::<usize>(), "ask again when one has ended");
        if of_caller >= MOST_OF_ONE {
            let message = format!("{of_caller} audits run that you asked for");
            return Err(Failure::new(Code::TooManyRequests, message).hint(hint));
        }
        if all >= MOST {
            let message = format!("{all} audits run that somebody asked for");
            return Err(Failure::new(Code::TooManyRequests, message).hint(hint));
        }
        *running.entry(caller.clone()).or_default() += 1;
        Ok(Turn { turns: self.clone(), caller })
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut running = self.turns.running();
        if let Some(count) = running.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Origin, Proof};

    #[test]
    fn so_many_run_at_once_in_all_and_of_one() {
        let turns = Arc::new(Turns::default());
        let take = |name: &str| {
            let proof = Proof::Token { id: "1a2b3c4d".to_owned() };
            turns.take(&Caller { name: name.to_owned(), proof, from: Origin::Unix(None) })
        };
        let refusal = |name: &str| take(name).err().map(|failure| (failure.code, failure.message));
        let of_ana = [take("ana").expect("the first"), take("ana").expect("the second")];
        let said = "2 audits run that you asked for".to_owned();
        assert_eq!(refusal("ana"), Some((Code::TooManyRequests, said)));
        let others: Vec<_> = (2..MOST).map(|n| take(&n.to_string()).expect("there is room")).collect();
        let said = "8 audits run that somebody asked for".to_owned();
        assert_eq!(refusal("bob"), Some((Code::TooManyRequests, said)));
        drop(of_ana);
        assert_eq!(refusal("ana"), None);
        drop(others);
        assert!(turns.running().is_empty());
    }
}
