//! What the leader saw of the databases, for the daemons that do not look at them themselves: it is kept
//! when it is another than before, and besides, every few seconds, when each database was looked at.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use crate::{
    control::{Control, documents::Mirror},
    engine::Glance,
    fleet::{
        Fleet,
        inventory::{Member, Seen},
        kept::{self, KeptSeen},
    },
    migration::{Catalog, Failure},
};

/// What the documents are called that tell what was seen of a database, by its name.
const KIND: &str = "observation";

/// What the one document is called that tells when each was looked at.
const TIMES: &str = "looked";

/// How often that is written.
const TIMES_PAUSE: Duration = Duration::from_secs(5);

/// How many documents one statement writes.
const BATCH: usize = 500;

/// What the leader has kept of what it saw.
#[derive(Default)]
pub struct SeenHere {
    /// By database; with what was there when it was last compared, so that most need no comparison.
    kept: HashMap<String, (Arc<Seen>, KeptSeen)>,
    times: BTreeMap<String, Timestamp>,
    /// Whether they are others than those that were written, and when that was.
    are_times_new: bool,
    times_written: Option<Instant>,
}

/// What another daemon has kept of what it saw.
pub struct SeenElsewhere {
    documents: Mirror,
    times: Mirror,
    known: HashMap<String, Known>,
}

struct Known {
    kept: KeptSeen,
    glance: Option<Arc<Glance>>,
    /// As this daemon shows it; `None` where it has to be made anew.
    shown: Option<Arc<Seen>>,
}

impl Default for SeenElsewhere {
    fn default() -> Self {
        Self { documents: Mirror::new(KIND), times: Mirror::new(TIMES), known: HashMap::new() }
    }
}

impl SeenElsewhere {
    /// Reads what has changed.
    async fn refresh(&mut self, control: &Control) -> Result<(), Failure> {
        let changes = self.documents.refresh(control).await?;
        for document in changes.written {
            if let Some(kept) = kept::revive_seen(&document.body) {
                self.known.insert(document.key, Known { kept, glance: None, shown: None });
            }
        }
        for key in changes.gone {
            self.known.remove(&key);
        }
        let times = self.times.refresh(control).await?.written;
        let times = times.iter().filter_map(|document| kept::revive_times(&document.body));
        for (database, time) in times.flatten() {
            if let Some(known) = self.known.get_mut(&database).filter(|known| known.kept.time() < time) {
                known.kept.seen_at(time);
                known.shown = None;
            }
        }
        Ok(())
    }
}

impl Fleet {
    /// Keeps what this daemon saw of its databases since it was last kept.
    pub async fn keep_seen(&self, control: &Control, here: &mut SeenHere) -> Result<(), Failure> {
        let inventory = self.inventory();
        let mut written = Vec::new();
        for member in inventory.members() {
            let seen = member.seen();
            let before = here.kept.get(member.name());
            if before.is_some_and(|(before, _)| Arc::ptr_eq(before, &seen)) {
                continue;
            }
            let Some(kept) = KeptSeen::of(&seen) else { continue };
            here.times.insert(member.name().to_owned(), kept.time());
            here.are_times_new = true;
            if !before.is_some_and(|(_, before)| before.is_same(&kept)) {
                written.push((member.name().to_owned(), seen, kept));
            } else if let Entry::Occupied(mut entry) = here.kept.entry(member.name().to_owned()) {
                entry.get_mut().0 = seen;
            }
        }
        let gone = here.kept.keys().filter(|name| inventory.get(name).is_none()).cloned();
        let mut gone: Vec<String> = gone.collect();
        for name in &gone {
            here.times.remove(name);
        }
        while !written.is_empty() || !gone.is_empty() {
            let batch: Vec<_> = written.drain(..written.len().min(BATCH)).collect();
            let documents: Vec<_> =
                batch.iter().map(|(name, _, kept)| (name.clone(), kept::seen(kept))).collect();
            if !control.write(KIND, &documents, &gone).await? {
                return Ok(());
            }
            for name in gone.drain(..) {
                here.kept.remove(&name);
            }
            here.kept.extend(batch.into_iter().map(|(name, seen, kept)| (name, (seen, kept))));
        }
        let is_time = here.times_written.is_none_or(|at| at.elapsed() >= TIMES_PAUSE);
        if is_time && here.are_times_new {
            control.write(TIMES, &[(TIMES.to_owned(), kept::times(&here.times))], &[]).await?;
            (here.are_times_new, here.times_written) = (false, Some(Instant::now()));
        }
        Ok(())
    }

    /// Shows what another daemon saw.
    pub async fn show_seen(&self, control: &Control, elsewhere: &mut SeenElsewhere) -> Result<(), Failure> {
        elsewhere.refresh(control).await?;
        // Each directory is read once.
        let mut catalogs: HashMap<usize, Option<Arc<Catalog>>> = HashMap::new();
        for member in self.inventory().members() {
            let Some(known) = elsewhere.known.get_mut(member.name()) else { continue };
            if known.glance.is_none()
                && let Some(stretches) = &known.kept.pending
            {
                let directory = Arc::as_ptr(&member.directory).addr();
                let catalog = match catalogs.get(&directory) {
                    Some(catalog) => catalog.clone(),
                    None => catalogs.entry(directory).or_insert(catalog(member).await).clone(),
                };
                known.glance = catalog.map(|catalog| Arc::new(Glance::of_stretches(&catalog, stretches)));
                known.shown = known.shown.take().filter(|_| known.glance.is_none());
            }
            let Known { kept, glance, shown } = known;
            let seen = shown.get_or_insert_with(|| Arc::new(Seen { glance: glance.clone(), ..kept.seen() }));
            if !Arc::ptr_eq(&member.seen(), seen) {
                member.show(seen);
            }
        }
        Ok(())
    }
}

async fn catalog(member: &Member) -> Option<Arc<Catalog>> {
    member.compared_with().await.ok().map(|(catalog, _)| catalog)
}
