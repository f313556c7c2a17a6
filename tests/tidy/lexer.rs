//! Rust without its comments, literals and tests: enough of a lexer to ask which names a file uses.

use std::collections::BTreeSet;

/// The code of a file as the product has it: without comments, literals, and items that are `#[cfg(test)]`.
pub(crate) fn code(text: &str) -> String {
    without_tests(&without_words(text))
}

/// Rust without comments and the contents of literals.
pub(crate) fn without_words(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = comment(rest).or_else(|| raw_string(rest)).or_else(|| quoted(rest));
        if let Some(length) = skipped {
            out.push(' ');
            rest = &rest[length..];
        } else {
            // A whole word at once, so that the `r` of `for"` is never taken for the start of a raw string.
            let word = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len()).max(first.len_utf8());
            out.push_str(&rest[..word]);
            rest = &rest[word..];
        }
    }
    out
}

/// Leaves out each item after `#[cfg(test)]`: up to its semicolon, or to the end of its braces.
fn without_tests(code: &str) -> String {
    let mut parts = code.split("#[cfg(test)]");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut depth = 0;
        let end = part.char_indices().find(|(_, c)| {
            depth += i32::from(*c == '{') - i32::from(*c == '}');
            depth == 0 && matches!(c, ';' | '}')
        });
        out.push_str(end.map_or("", |(at, _)| &part[at + 1..]));
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Length of the comment that starts here.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    // Nested ones are not used here.
    text.starts_with("/*").then(|| text.find("*/").map_or(text.len(), |end| end + 2))
}

/// Length of the raw string that starts here.
fn raw_string(text: &str) -> Option<usize> {
    let body = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let hashes = body.bytes().take_while(|byte| *byte == b'#').count();
    let start = text.len() - body.len() + hashes + 1;
    body[hashes..].starts_with('"').then(|| {
        let end = format!("\"{}", "#".repeat(hashes));
        text[start..].find(&end).map_or(text.len(), |at| start + at + end.len())
    })
}

/// Length of the string or character that starts here; a lifetime is none.
fn quoted(text: &str) -> Option<usize> {
    let body = text.strip_prefix('b').unwrap_or(text);
    let offset = text.len() - body.len();
    let quote = body.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    if quote == '\'' {
        let mut after = body.chars().skip(1);
        let is_character = matches!((after.next(), after.next()), (Some('\\'), _) | (_, Some('\'')));
        if !is_character {
            return None;
        }
    }
    let mut escaped = false;
    for (index, c) in body.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(offset + index + 1),
            _ => {}
        }
    }
    Some(text.len())
}

/// Every word of the code.
pub(crate) fn words(code: &str) -> BTreeSet<&str> {
    code.split(|c: char| !is_word(c)).filter(|word| !word.is_empty()).collect()
}

/// The modules of the own crate that the code names: `crate::x` and `crate::{x, y::z}`.
pub(crate) fn modules(code: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for (at, start) in code.match_indices("crate::") {
        let path = &code[at + start.len()..];
        match path.strip_prefix('{') {
            Some(group) => found.extend(heads(group)),
            None => found.extend(head(path)),
        }
    }
    found
}

/// What the code names in a module, wherever that stands: `module::x` and `module::{x, y::z}`.
pub(crate) fn below<'a>(code: &'a str, module: &str) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let within = format!("{module}::");
    for (at, start) in code.match_indices(&within) {
        if code[..at].chars().next_back().is_some_and(is_word) {
            continue;
        }
        let path = &code[at + start.len()..];
        match path.strip_prefix('{') {
            Some(group) => found.extend(heads(group)),
            None => found.extend(head(path)),
        }
    }
    found
}

fn head(path: &str) -> Option<&str> {
    path.split(|c: char| !is_word(c)).next().filter(|word| !word.is_empty())
}

/// The first word of each part of a group, whose opening brace is gone.
fn heads(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    for (index, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                found.extend(head(group[start..index].trim_start()));
                start = index + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found
}

#[test]
fn what_is_no_code_is_blank() {
    let text = r####"
        // unsafe one
        /* unsafe two */ let a = "unsafe three \" unsafe"; let b = r#"unsafe " four"#; let c = b'\''; let d: &'static str = b"unsafe";
        for"unsafe five"; real(); 'x'
        #[cfg(test)]
        mod contract_unsafe;
        fn after() {}
        #[cfg(test)]
        mod tests { unsafe {} unsafe {} }
        fn last() {}
    "####;
    let code = code(text);
    assert!(!code.contains("unsafe"), "{code}");
    assert!(words(&code).is_superset(&["let", "static", "str", "for", "real", "after", "last"].into()), "{code}");
}

#[test]
fn modules_are_found_in_every_form() {
    let code = "use crate::a::B; use crate::{c, d::{E, f}, g as h}; pub(in crate::i) fn x() { crate::j::k() }";
    assert_eq!(modules(code), ["a", "c", "d", "g", "i", "j"].into());
    let code = "use crate::{a, d::{E, f::g}}; use super::d::h; ad::b(); d::i::j();";
    assert_eq!(below(code, "d"), ["E", "f", "h", "i"].into());
}
