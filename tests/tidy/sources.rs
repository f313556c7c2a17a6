//! How source files look.

use crate::assert_none;
use crate::lexer::{without_words, words};
use crate::repository::files;

/// What fits a reader's head; above it a file is several things.
const LINES_MAX: usize = 600;

#[test]
fn every_file_says_first_what_it_is() {
    let silent = files(".rs").into_iter().filter(|file| !file.text.starts_with("//! "));
    assert_none("Rust files open with `//!`", &silent.map(|file| file.path).collect::<Vec<_>>());
}

#[test]
fn no_file_is_too_long() {
    let long = |end: &str| {
        let all = files(end).into_iter().map(|file| (file.text.lines().count(), file.path));
        all.filter(|(lines, _)| *lines > LINES_MAX)
            .map(|(lines, path)| format!("{path}: {lines} lines"))
            .collect::<Vec<_>>()
    };
    assert_none("no source has more than 600 lines", &[long(".rs"), long(".ts"), long(".mjs")].concat());
}

#[test]
fn modules_are_files_beside_their_folder() {
    let old = files(".rs").into_iter().filter(|file| file.path.ends_with("/mod.rs"));
    assert_none("`foo.rs` and `foo/`, never `foo/mod.rs`", &old.map(|file| file.path).collect::<Vec<_>>());
}

#[test]
fn unsafe_code_is_below_sys_alone() {
    let outside = files(".rs").into_iter().filter(|file| {
        // Tests included: they have no more reason than others.
        let uses = words(&without_words(&file.text)).iter().any(|word| ["unsafe", "unsafe_code"].contains(word));
        uses && !file.path.ends_with("/sys.rs") && !file.path.contains("/sys/")
    });
    assert_none("`unsafe` stands below a `sys` module only", &outside.map(|file| file.path).collect::<Vec<_>>());
}

/// Tables of people, who are in several organisations or in none: memberships say where. The second is the first while it is being replaced.
const OF_NOBODY: [&str; 2] = ["users", "users_new"];

#[test]
fn every_table_says_whose_its_rows_are() {
    let mut violations = Vec::new();
    for file in files(".sql") {
        for table in file.text.split("CREATE TABLE ").skip(1) {
            let name = table.split_whitespace().next().unwrap_or_default();
            if OF_NOBODY.contains(&name) {
                continue;
            }
            let body = table.split(';').next().unwrap_or_default();
            let columns = words(body);
            let lacks = ["org_id", "created_by"].into_iter().filter(|column| !columns.contains(column));
            violations.extend(lacks.map(|column| format!("{}: {name} has no {column}", file.path)));
        }
    }
    assert_none("every table has org_id and created_by", &violations);
}

#[test]
fn the_repository_speaks_of_no_machine() {
    // In two parts, or this file would be the first to break its rule.
    let workshop = concat!("/wo", "rk/");
    let is_absolute = |text: &str, at: usize| {
        let before = text[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && !"_.-/}".contains(c))
    };
    let mut violations = Vec::new();
    for file in files("") {
        for (number, line) in file.text.lines().enumerate() {
            if line.match_indices(workshop).any(|(at, _)| is_absolute(line, at)) {
                violations.push(format!("{}:{}", file.path, number + 1));
            }
        }
    }
    assert_none("paths of one machine have no place here", &violations);
}

#[test]
fn lock_files_name_no_registry_but_the_public_index() {
    const INDEX: &str = r#"source = "registry+https://github.com/rust-lang/crates.io-index""#;
    let mut violations = Vec::new();
    let mut look = |end: &str, is_foreign: &dyn Fn(&str) -> bool| {
        for file in files(end) {
            let foreign = file.text.lines().enumerate().filter(|(_, line)| is_foreign(line.trim()));
            violations.extend(foreign.map(|(number, line)| format!("{}:{}: {}", file.path, number + 1, line.trim())));
        }
    };
    look("Cargo.lock", &|line| line.starts_with("source = ") && line != INDEX);
    // npm fetches from the registry that the machine has, by name and hash.
    look("package-lock.json", &|line| line.starts_with("\"resolved\"") && line.contains("://"));
    look(".npmrc", &|line| line.contains("registry=") || line.contains("://"));
    assert_none("lock files work with any registry", &violations);
}
