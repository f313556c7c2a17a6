//! Signed ends of the chains, in a file outside the database: whoever may rewrite the database cannot rewrite these as well, if the file and the
//! key lie where they cannot reach.
//!
//! One file for every chain, only ever added to; a line is a [`Checkpoint`]. The key is made at the first start.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agentapi_shared::OrgId;
use agentapi_shared::audit::checkpoint::KeyError;
use agentapi_shared::audit::{Checkpoint, Manifest, PublicKey, SigningKey};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::clock;
use crate::private_file;
use crate::store::Store;

/// The file's name.
const FILE_NAME: &str = "audit-checkpoints.jsonl";
/// Beside it, for whoever verifies.
const PUBLIC_KEY_NAME: &str = "audit-checkpoints.pub";
/// In the data directory, readable by its owner only.
const KEY_NAME: &str = "audit-signing.key";

/// How long after a record at most its chain's end is signed.
const EVERY: Duration = Duration::from_secs(60);

/// Newest checkpoints of each chain that exports carry.
const KEPT_PER_CHAIN: usize = 16;

/// How much of the file's end is read at the start: some thousand checkpoints.
const READ_BYTES_MAX: u64 = 1024 * 1024;

/// Why checkpoints cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The key's file.
    #[error("cannot use the signing key {path}")]
    KeyFile {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What it holds.
    #[error("cannot use the signing key {path}; move it away to have a new one made")]
    Key {
        /// Which.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// The checkpoints' file.
    #[error("cannot write checkpoints to {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Checkpoints {
    key: SigningKey,
    public: PublicKey,
    path: PathBuf,
    file: Arc<File>,
    recent: Mutex<HashMap<OrgId, VecDeque<Checkpoint>>>,
}

impl Checkpoints {
    /// Takes the key that is in `data_dir`, or makes one, and opens the file in `dir`.
    pub fn open(data_dir: &Path, dir: &Path) -> Result<Self, CheckpointError> {
        let key_path = data_dir.join(KEY_NAME);
        let key = key(&key_path)?;
        let public = key.public();
        let path = dir.join(FILE_NAME);
        let named = |source| CheckpointError::File { path: path.clone(), source };
        std::fs::create_dir_all(dir).map_err(named)?;
        std::fs::write(dir.join(PUBLIC_KEY_NAME), format!("{public}\n")).map_err(named)?;
        let (file, text) = open(&path).map_err(named)?;
        let mut recent: HashMap<OrgId, VecDeque<Checkpoint>> = HashMap::new();
        // A line that a crash cut off is none.
        let known = text.lines().filter_map(|line| serde_json::from_str::<Checkpoint>(line).ok());
        for checkpoint in known.filter(|checkpoint| public.signed(checkpoint)) {
            keep(&mut recent, checkpoint);
        }
        info!(key = %public, file = %path.display(), "audit checkpoints are signed");
        Ok(Self { key, public, path, file: Arc::new(file), recent: Mutex::new(recent) })
    }

    /// What signatures are checked with.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The newest checkpoints of a chain between two numbers.
    #[must_use]
    pub fn recent(&self, org: OrgId, after: u64, last: u64) -> Vec<Checkpoint> {
        let recent = self.lock();
        let of = recent.get(&org).into_iter().flatten();
        of.filter(|checkpoint| (after..=last).contains(&checkpoint.number)).cloned().collect()
    }

    /// The first line of an export, signed.
    #[must_use]
    pub fn sign_manifest(&self, manifest: &Manifest) -> String {
        manifest.line(Some(&self.key))
    }

    /// Signs the end of every chain that grew. A failure is logged and made up for the next time.
    pub(super) async fn sign(&self, store: &dyn Store) {
        let heads = match store.audit_heads().await {
            Ok(heads) => heads,
            Err(failure) => {
                warn!(error = &failure as &dyn std::error::Error, "no audit checkpoint: the store is away");
                return;
            }
        };
        for head in heads.iter().filter(|head| self.signed_to(head.org) > head.seal.number) {
            let signed = self.signed_to(head.org);
            error!(org.id = %head.org, records = head.seal.number, signed, "an audit trail is shorter than it was: records are gone");
        }
        let now = clock::now();
        let new: Vec<Checkpoint> = heads
            .into_iter()
            .filter(|head| self.signed_to(head.org) < head.seal.number)
            .map(|head| self.key.sign(head.org, head.seal, now))
            .collect();
        if new.is_empty() {
            return;
        }
        let text: String = new
            .iter()
            .filter_map(|checkpoint| serde_json::to_string(checkpoint).ok())
            .map(|line| line + "\n")
            .collect();
        let file = self.file.clone();
        let written = tokio::task::spawn_blocking(move || {
            // In one piece: a kill leaves whole lines.
            (&*file).write_all(text.as_bytes())?;
            file.sync_data()
        });
        match written.await.map_err(io::Error::other).and_then(|written| written) {
            Ok(()) => {
                let mut recent = self.lock();
                new.into_iter().for_each(|checkpoint| keep(&mut recent, checkpoint));
            }
            Err(failure) => error!(error = %failure, file = %self.path.display(), "no audit checkpoint is written"),
        }
    }

    fn signed_to(&self, org: OrgId) -> u64 {
        self.lock().get(&org).and_then(VecDeque::back).map_or(0, |checkpoint| checkpoint.number)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<OrgId, VecDeque<Checkpoint>>> {
        // Whole after each line.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Signs until the group ends; what was sealed in the last moments is signed when everything has ended.
pub(super) async fn run(
    checkpoints: Arc<Checkpoints>,
    store: Arc<dyn Store>,
    mut sealed: watch::Receiver<u64>,
    end: CancellationToken,
) {
    let work = async {
        // An error would mean that the sealer has ended, and the group with it.
        while sealed.changed().await.is_ok() {
            tokio::time::sleep(EVERY).await;
            sealed.mark_unchanged();
            checkpoints.sign(&*store).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = end.cancelled() => {}
    }
}

fn keep(recent: &mut HashMap<OrgId, VecDeque<Checkpoint>>, checkpoint: Checkpoint) {
    let of = recent.entry(checkpoint.org_id).or_default();
    of.push_back(checkpoint);
    while of.len() > KEPT_PER_CHAIN {
        of.pop_front();
    }
}

fn key(path: &Path) -> Result<SigningKey, CheckpointError> {
    let named = |source| CheckpointError::KeyFile { path: path.to_owned(), source };
    let wrong = |source| CheckpointError::Key { path: path.to_owned(), source };
    match std::fs::read_to_string(path) {
        Ok(text) => SigningKey::from_text(&text).map_err(wrong),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let (_, text) = SigningKey::generate().map_err(wrong)?;
            private_file::make(path, &text).map_err(named)?;
            // Another replica may have been first: what is there counts.
            SigningKey::from_text(&std::fs::read_to_string(path).map_err(named)?).map_err(wrong)
        }
        Err(error) => Err(named(error)),
    }
}

/// The file to add to, and its end.
fn open(path: &Path) -> io::Result<(File, String)> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o644).open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(READ_BYTES_MAX)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    if bytes.last().is_some_and(|byte| *byte != b'\n') {
        // What a crash cut off must not swallow the next line.
        file.write_all(b"\n")?;
    }
    Ok((file, String::from_utf8_lossy(&bytes).into_owned()))
}
