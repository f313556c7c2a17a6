//! What each installed agent said of its version, by what its file is.
//!
//! Answers are kept in the state directory, so that a restart asks nobody; `questions` asks.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::files;

/// In the state directory.
const FILE: &str = "versions.json";

/// What a file was when it was asked. Package managers set the time of modification to a constant; the time of change is the kernel's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// As it is now.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let file = fs::metadata(path)?;
        Ok(Self { inode: file.ino(), bytes: file.size(), changed: (file.ctime(), file.ctime_nsec()) })
    }
}

/// What a file said.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) stamp: Stamp,
    /// None: it was asked and said nothing.
    pub(crate) version: Option<String>,
}

/// The answers so far, by path.
#[derive(Debug, Default)]
pub(crate) struct Versions {
    answers: Mutex<BTreeMap<PathBuf, Answer>>,
    /// Rises when the facts about agents are others than before.
    changed: watch::Sender<u64>,
}

impl Versions {
    /// What earlier supervisors were told.
    pub(crate) fn read(state_dir: &Path) -> Self {
        // Without the file everybody is asked again.
        let answers = files::read_json(&state_dir.join(FILE)).unwrap_or_default();
        Self { answers: Mutex::new(answers), changed: watch::Sender::default() }
    }

    /// What the file at `path` answered; none if it was not asked since it is what it is.
    pub(crate) fn known(&self, path: &Path) -> Option<Option<String>> {
        let stamp = Stamp::of(path).ok()?;
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(path).filter(|answer| answer.stamp == stamp).map(|answer| answer.version.clone())
    }

    /// Hears of changes from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// The facts about agents are others than before.
    pub(crate) fn tell_change(&self) {
        self.changed.send_modify(|revision| *revision += 1);
    }

    /// Keeps an answer, on disk as well.
    pub(crate) fn keep(&self, state_dir: &Path, path: PathBuf, answer: Answer) -> io::Result<()> {
        let all = {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.retain(|path, _| path.exists());
            answers.insert(path, answer);
            // One that did not answer is asked again by the next supervisor: it may lack what comes later, such as its interpreter.
            answers
                .iter()
                .filter(|(_, answer)| answer.version.is_some())
                .map(|(path, answer)| (path.clone(), answer.clone()))
                .collect::<BTreeMap<_, _>>()
        };
        files::write_json(&state_dir.join(FILE), &all)
    }
}

#[cfg(test)]
mod tests {
    use agentapi_shared::SessionId;

    use super::*;

    #[test]
    fn an_answer_holds_as_long_as_the_file_is_the_same() {
        let dir = std::env::temp_dir().join(format!("agentapi-versions-{}", SessionId::generate()));
        fs::create_dir(&dir).unwrap();
        let program = dir.join("agent");
        fs::write(&program, "one").unwrap();
        let versions = Versions::read(&dir);
        assert_eq!(versions.known(&program), None);
        let answer = Answer { stamp: Stamp::of(&program).unwrap(), version: Some("1.0".to_owned()) };
        versions.keep(&dir, program.clone(), answer).unwrap();
        assert_eq!(Versions::read(&dir).known(&program), Some(Some("1.0".to_owned())));
        fs::write(&program, "other").unwrap();
        assert_eq!(Versions::read(&dir).known(&program), None);
        fs::remove_dir_all(dir).unwrap();
    }
}
