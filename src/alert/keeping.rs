//! Where alerts are kept: in a file of the daemon's own, or in the control database, where one daemon
//! looks after them and the others show what it keeps.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::{
    alert::{Alerts, Keeping, Shared, StartError, errand, life::Life, life::Outcome, store},
    control::{Control, documents::Mirror},
    migration::{Acknowledgement, Alert, Code, Failure},
};

/// What the documents of alerts are called.
const KIND: &str = "alert";

/// How many documents one statement writes.
const BATCH: usize = 1_000;

/// How long those who tell sinks may take to end when another daemon is to lead.
const FLUSH: Duration = Duration::from_secs(3);

/// Where the state is kept.
pub(super) enum Place {
    /// In a file.
    File {
        path: PathBuf,
        /// Keeps others from the file as long as it is open; `None` where it cannot be locked.
        _lock: Option<File>,
    },
    /// In the control database.
    Control {
        control: Arc<Control>,
        /// What is there, as this daemon has read and written it.
        kept: Mutex<Kept>,
    },
}

/// What the control database has of alerts.
pub(super) struct Kept {
    mirror: Mirror,
    lives: HashMap<Uuid, Life>,
    /// Whether this daemon shows them as they are there, and nothing that did not come to be kept.
    is_shown: bool,
}

impl Place {
    /// Opens it, and reads what is there as long as nobody else can write it.
    pub(super) fn open(keeping: Keeping) -> Result<(Self, Vec<Life>), StartError> {
        match keeping {
            Keeping::File(path) => {
                let Ok(lock) = store::lock(&path) else { return Err(StartError::InUse { path }) };
                let lives = store::read(&path);
                Ok((Self::File { path, _lock: lock }, lives))
            }
            Keeping::Control(control) => {
                let kept = Kept { mirror: Mirror::new(KIND), lives: HashMap::new(), is_shown: true };
                Ok((Self::Control { control, kept: Mutex::new(kept) }, Vec::new()))
            }
        }
    }

    /// Whether this daemon may change what is there at this very moment.
    pub(super) fn is_ours(&self) -> bool {
        match self {
            Self::File { .. } => true,
            Self::Control { control, .. } => control.leads(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } => write!(f, "{}", path.display()),
            Self::Control { .. } => f.write_str("the control database"),
        }
    }
}

impl Kept {
    /// Reads what has changed; says whether anything has.
    async fn refresh(&mut self, control: &Control) -> Result<bool, Failure> {
        let changes = self.mirror.refresh(control).await?;
        let has_changed = !changes.written.is_empty() || !changes.gone.is_empty();
        for document in changes.written {
            let Some(life) = store::decode_one(&document.body) else {
                tracing::warn!(key = document.key, "an alert of the control database cannot be read");
                continue;
            };
            self.lives.insert(life.alert.id, life);
        }
        for key in changes.gone {
            if let Ok(id) = Uuid::parse_str(&key) {
                self.lives.remove(&id);
            }
        }
        Ok(has_changed)
    }
}

impl Alerts {
    /// Looks after the alerts from now on: goes on with what is kept, and returns it.
    pub async fn lead(&self) -> Result<Vec<Alert>, Failure> {
        self.refresh().await?;
        self.0.leads.send_replace(true);
        Ok(self.list())
    }

    /// Does not look after them any more. Where this daemon still leads, what sinks were told is kept
    /// before that.
    pub async fn follow(&self) {
        self.0.leads.send_replace(false);
        if !self.0.place.is_ours() {
            return;
        }
        // Nobody tells any more after this.
        if tokio::time::timeout(FLUSH, self.0.telling.write()).await.is_err() {
            tracing::warn!("a sink of alerts takes long: it may be told the same again");
        }
        self.0.save_or_warn(&mut false).await;
    }

    /// Shows what the daemon that leads has kept by now.
    pub async fn refresh(&self) -> Result<(), Failure> {
        let Place::Control { control, kept } = &self.0.place else { return Ok(()) };
        let mut kept = kept.lock().await;
        if *self.0.leads.borrow() {
            return Ok(());
        }
        if kept.refresh(control).await? || !kept.is_shown {
            kept.is_shown = true;
            let changed = self.0.lives().replace(kept.lives.values().cloned().collect());
            for alert in changed {
                // Nobody need be watching.
                let _ = self.0.watchers.send(alert);
            }
        }
        Ok(())
    }

    /// Takes note of a firing alert, named by its id or the beginning of it. Where another daemon leads,
    /// that one is asked to.
    pub async fn acknowledge(&self, id: &str, acknowledgement: Acknowledgement) -> Result<Alert, Failure> {
        match &self.0.place {
            Place::Control { control, .. } if !self.0.leads() => {
                let answer = control.ask(None, &errand::ask(id, acknowledgement)).await?;
                let alert = errand::read(&answer)?;
                // Whoever asks this daemon next finds it so.
                self.refresh().await?;
                Ok(alert)
            }
            _ => self.take_note(id, acknowledgement).await,
        }
    }

    /// Does what another daemon asks of the one that leads; `None` where that is not about alerts.
    pub async fn answer(&self, asked: &str) -> Option<String> {
        let (id, acknowledgement) = errand::asked(asked)?;
        Some(errand::answer(self.take_note(&id, acknowledgement).await))
    }

    async fn take_note(&self, id: &str, acknowledgement: Acknowledgement) -> Result<Alert, Failure> {
        let alert = {
            let mut lives = self.0.lives();
            let alert = lives.acknowledge(id, acknowledgement, Timestamp::now())?;
            self.0.tell(Outcome { changed: vec![alert.clone()], ..Outcome::default() });
            alert
        };
        self.0.keep_beside().await?;
        Ok(alert)
    }
}

impl Shared {
    /// Keeps the state where others go on with it; a file can wait.
    pub(super) async fn keep_beside(&self) -> Result<(), Failure> {
        match &self.place {
            Place::File { .. } => Ok(()),
            Place::Control { control, kept } => self.write(control, kept).await,
        }
    }

    /// Writes the state.
    pub(super) async fn save(&self) -> Result<(), Failure> {
        match &self.place {
            Place::File { path, .. } => {
                let written = self.write_file(path).await;
                written.map_err(|error| Failure::new(Code::Internal, error.to_string()))
            }
            Place::Control { control, kept } => self.write(control, kept).await,
        }
    }

    async fn write_file(&self, path: &Path) -> io::Result<()> {
        let encoded = store::encode(self.lives().all());
        let path = path.to_owned();
        let write = move || store::write(&path, &encoded.map_err(io::Error::from)?);
        tokio::task::spawn_blocking(write).await?
    }

    /// Writes the lives that are others than those that are there, and takes those away that are
    /// forgotten.
    async fn write(&self, control: &Control, kept: &Mutex<Kept>) -> Result<(), Failure> {
        let mut kept = kept.lock().await;
        kept.is_shown = false;
        let (written, gone) = {
            let lives = self.lives();
            let is_another = |life: &&Life| kept.lives.get(&life.alert.id) != Some(*life);
            let written: Vec<Life> = lives.all().filter(is_another).cloned().collect();
            let there: HashSet<Uuid> = lives.all().map(|life| life.alert.id).collect();
            (written, kept.lives.keys().copied().filter(|id| !there.contains(id)).collect::<Vec<_>>())
        };
        let mut gone = gone;
        let mut left = written.as_slice();
        while !left.is_empty() || !gone.is_empty() {
            let (batch, rest) = left.split_at(left.len().min(BATCH));
            let document = |life: &Life| {
                let body = store::encode_one(life);
                body.map(|body| (life.alert.id.to_string(), body))
            };
            let documents = batch.iter().map(document).collect::<Result<Vec<_>, _>>();
            let documents = documents.map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
            let keys: Vec<_> = gone.iter().map(Uuid::to_string).collect();
            if !control.write(KIND, &documents, &keys).await? {
                return Err(Failure::new(Code::ControlUnavailable, "This daemon does not lead any more"));
            }
            kept.lives.extend(batch.iter().map(|life| (life.alert.id, life.clone())));
            for id in gone.drain(..) {
                kept.lives.remove(&id);
            }
            left = rest;
        }
        Ok(())
    }
}
