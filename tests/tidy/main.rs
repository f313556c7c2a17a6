//! The rules of this repository as tests: what a reviewer would otherwise have to see each time. Plain text is looked at; nothing is built.
//!
//! A rule that fails names every place at once. Where a rule is in the way of something better, change the rule and say why in the commit.

mod directions;
mod documents;
mod lexer;
mod repository;
mod sources;

/// Fails with every violation of a rule.
#[track_caller]
fn assert_none(rule: &str, violations: &[String]) {
    assert!(violations.is_empty(), "{rule}:\n  {}", violations.join("\n  "));
}
