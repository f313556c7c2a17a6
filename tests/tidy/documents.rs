//! Documents that say what is: links lead somewhere, and what can be set or asked is told.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::assert_none;
use crate::lexer::{without_words, words};
use crate::repository::{files, read, root};

/// A document without its code: blocks and spans of it are not links.
fn prose(text: &str) -> String {
    let mut out = String::new();
    let mut in_block = false;
    for line in text.lines() {
        let is_fence = line.trim_start().starts_with("```");
        in_block ^= is_fence;
        if !in_block && !is_fence {
            // Every other part lies between backquotes.
            line.split('`').step_by(2).for_each(|part| out.push_str(part));
        }
        out.push('\n');
    }
    out
}

/// Targets of a document's links and pictures.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let starts = prose.match_indices("](").map(|(at, start)| at + start.len());
    starts.filter_map(|at| prose[at..].split_once(')').map(|(target, _)| target.to_owned())).collect()
}

/// The names under which a document's headings can be linked to.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut in_block = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        in_block ^= line.trim_start().starts_with("```");
        if let Some(heading) = line.strip_prefix('#').filter(|_| !in_block) {
            let kept =
                heading.trim_start_matches('#').trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            found.insert(kept.collect::<String>().to_lowercase().replace(' ', "-"));
        }
    }
    found
}

/// `a/b/../c` as `a/c`.
fn resolved(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

#[test]
fn links_lead_somewhere() {
    let root = root();
    let mut violations = Vec::new();
    for file in files(".md") {
        let dir = Path::new(&file.path).parent().unwrap_or(Path::new(""));
        for link in links(&file.text).into_iter().filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() { PathBuf::from(&file.path) } else { resolved(&dir.join(path)) };
            let place = root.join(&target);
            let is_there = place.exists() && !path.starts_with('/');
            let has_anchor =
                anchor.is_empty() || std::fs::read_to_string(place).is_ok_and(|text| anchors(&text).contains(anchor));
            if !is_there || !has_anchor {
                violations.push(format!("{}: {link}", file.path));
            }
        }
    }
    assert_none("relative links, and the headings they name, exist", &violations);
}

/// Every name of a variable of ours in a text. A name that ends in `_` is only the beginning of one.
fn variables(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c: char| !is_part(c));
    words.filter(|word| word.starts_with("AGENTAPI_") && !word.ends_with('_')).map(str::to_owned).collect()
}

#[test]
fn variables_and_their_page_agree() {
    let told = variables(&read("docs/configuration.md"));
    let sources = files(".rs");
    let used: BTreeSet<String> = sources.iter().flat_map(|file| variables(&file.text)).collect();
    let secret = used.difference(&told).map(|name| format!("{name} is not in docs/configuration.md"));
    let elsewhere = variables(&(read("Makefile") + &read("web/vite.config.ts")));
    let stale = told.iter().filter(|name| !used.contains(*name) && !elsewhere.contains(*name));
    let stale = stale.map(|name| format!("{name} is in docs/configuration.md and nowhere else"));
    assert_none("environment variables are documented", &secret.chain(stale).collect::<Vec<_>>());
}

#[test]
fn routes_are_told() {
    let guide = read("docs/api.md");
    let mut violations = Vec::new();
    let handlers = files(".rs").into_iter().filter(|file| file.is_of("controlplane/src/api"));
    for file in handlers {
        let routes = file.text.split("path = \"").skip(1).filter_map(|rest| rest.split('"').next());
        violations.extend(
            routes
                .filter(|route| !guide.contains(&format!("`{route}`")))
                .map(|route| format!("{}: {route}", file.path)),
        );
    }
    assert_none("every route is in docs/api.md", &violations);
}

/// Spans of code in a document, outside of blocks.
fn spans(text: &str) -> Vec<&str> {
    let outside = text.split("```").step_by(2);
    outside.flat_map(|part| part.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn the_code_that_is_spoken_of_exists() {
    let text = read("ARCHITECTURE.md");
    let sources = files(".rs");
    let code: Vec<String> = sources.iter().map(|file| without_words(&file.text)).collect();
    let known: BTreeSet<&str> = code.iter().flat_map(|code| words(code)).collect();
    let paths: Vec<String> = files("").into_iter().map(|file| file.path).collect();
    let mut violations = Vec::new();
    for span in spans(&text) {
        // `relay/viewer.rs` and `fleet/reconcile.rs::take`: a path, then a name in it.
        let (path, name) = span.split_once(".rs::").map_or((span, None), |(path, name)| (path, Some(name)));
        let is_path = [".rs", ".ts"].iter().any(|end| path.ends_with(end)) || name.is_some();
        let path = if name.is_some() { format!("{path}.rs") } else { path.to_owned() };
        if is_path && !paths.iter().any(|known| known == &path || known.ends_with(&format!("/{path}"))) {
            violations.push(format!("no file {path}"));
        }
        let names = if is_path { name.unwrap_or_default() } else { span };
        if is_path || span.contains("::") {
            let unknown = words(names).into_iter().filter(|word| !known.contains(word) && word.parse::<u64>().is_err());
            violations.extend(unknown.map(|word| format!("no {word} in the code (`{span}`)")));
        }
    }
    assert_none("files and functions of ARCHITECTURE.md exist", &violations);
}

#[test]
fn headings_are_linked_as_forges_do() {
    let text = "# Bird's eye\n```\n# no heading\n```\n## `agentapi up`\n### Files, and their modes: `x/`";
    assert_eq!(anchors(text), ["birds-eye", "agentapi-up", "files-and-their-modes-x"].map(str::to_owned).into());
    assert_eq!(links("[a](b.md#c) `[x](y)` ![d](e.png)\n```\n[f](g)\n```"), ["b.md#c", "e.png"]);
}
