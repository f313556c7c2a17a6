//! The files of the repository: everything below its root that is written by people, without what builds leave behind.

use std::fs;
use std::path::{Path, PathBuf};

/// Directories that builds, tools and git make.
const FOREIGN_DIRS: [&str; 6] = ["target", "node_modules", "dist", ".git", ".cache", "proptest-regressions"];

/// A file with its text.
#[derive(Debug)]
pub(crate) struct TextFile {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
}

impl TextFile {
    /// Whether it lies in the folder of a module or is the file of that module: `x/api` is `x/api.rs` and everything below `x/api/`.
    pub(crate) fn is_of(&self, module: &str) -> bool {
        self.path.strip_prefix(module).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
    }
}

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// One file.
pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every text file whose name ends like this; an empty end means all. What is not UTF-8 is no text.
pub(crate) fn files(end: &str) -> Vec<TextFile> {
    let root = root();
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort_unstable();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).ok()?;
        let path = path.strip_prefix(&root).ok()?.to_str()?.to_owned();
        Some(TextFile { path, text })
    };
    let found: Vec<TextFile> = paths.into_iter().filter(|path| name(path).ends_with(end)).filter_map(read).collect();
    assert!(!found.is_empty(), "no file ends with {end:?}: the rules would hold for nothing");
    found
}

fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())).flatten() {
        let path = entry.path();
        // Links are not followed: where they lead is another place, or this one again. In a worktree `.git` is a file.
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && !FOREIGN_DIRS.contains(&name(&path)) {
            collect(&path, found);
        } else if kind.is_file() && name(&path) != ".git" && !name(&path).ends_with(".log") {
            found.push(path);
        }
    }
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}
