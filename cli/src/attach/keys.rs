//! The keys that detach, found in what is typed before any of it is sent.

use std::str::FromStr;

/// More keys than this are a typing error.
const KEYS_MAX: usize = 4;

/// A sequence of keys, such as `ctrl-\` or `ctrl-p,ctrl-q`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    words: String,
}

impl Default for DetachKeys {
    fn default() -> Self {
        Self { keys: vec![0x1c], words: "Ctrl-\\".to_owned() }
    }
}

impl DetachKeys {
    /// For people.
    pub(crate) fn words(&self) -> &str {
        &self.words
    }
}

impl FromStr for DetachKeys {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let keys: Vec<u8> = text.split(',').map(key).collect::<Result<_, _>>()?;
        if keys.len() > KEYS_MAX {
            return Err(format!("at most {KEYS_MAX} keys"));
        }
        let words = text.replace("ctrl-", "Ctrl-").replace(',', " ");
        Ok(Self { keys, words })
    }
}

fn key(word: &str) -> Result<u8, String> {
    let wrong =
        || format!("{word:?} is no key: expected ctrl-LETTER, ctrl-\\, ctrl-], ctrl-^, ctrl-_ or one character");
    let control = ["ctrl-", "Ctrl-", "C-"].iter().find_map(|prefix| word.strip_prefix(prefix));
    match control {
        // A shell may have left both backslashes.
        Some("\\\\") => Ok(0x1c),
        Some(rest) => match rest.as_bytes() {
            [byte @ (b'a'..=b'z' | b'A'..=b'Z' | b'\\' | b']' | b'^' | b'_' | b'@')] => {
                Ok(byte.to_ascii_uppercase() & 0x1f)
            }
            _ => Err(wrong()),
        },
        None => match word.as_bytes() {
            [byte @ 0x21..=0x7e] => Ok(*byte),
            _ => Err(wrong()),
        },
    }
}

/// Watches what is typed.
#[derive(Debug)]
pub(crate) struct DetachWatch {
    keys: Vec<u8>,
    /// How many of the keys were typed, and as which bytes: they are sent after all if the next one does not follow.
    matched: usize,
    held: Vec<u8>,
}

impl DetachWatch {
    /// Watches for these keys.
    pub(crate) fn new(keys: &DetachKeys) -> Self {
        Self { keys: keys.keys.clone(), matched: 0, held: Vec::new() }
    }

    /// What is to be sent of a chunk; and whether it detaches, after which the rest of the chunk is nobody's.
    pub(crate) fn push(&mut self, mut typed: &[u8]) -> (Vec<u8>, bool) {
        let mut send = Vec::with_capacity(typed.len());
        while let Some(&first) = typed.first() {
            let Some(length) = self.keys.get(self.matched).and_then(|key| typed_as(*key, typed)) else {
                if self.matched > 0 {
                    // Not the sequence: what was held belongs to the agent, and this key may begin the sequence anew.
                    self.matched = 0;
                    send.append(&mut self.held);
                } else {
                    send.push(first);
                    typed = &typed[1..];
                }
                continue;
            };
            self.matched += 1;
            if self.matched == self.keys.len() {
                (self.matched, self.held) = (0, Vec::new());
                return (send, true);
            }
            self.held.extend_from_slice(&typed[..length]);
            typed = &typed[length..];
        }
        (send, false)
    }
}

/// Bytes of the key at the start of what was typed: a control byte, or the form that modifyOtherKeys or CSI u gives it.
fn typed_as(key: u8, typed: &[u8]) -> Option<usize> {
    if typed.first() == Some(&key) {
        return Some(1);
    }
    let plain = (key < 0x20).then(|| (key | 0x40).to_ascii_lowercase())?;
    let forms = [format!("\x1b[{plain};5u"), format!("\x1b[27;5;{plain}~")];
    forms.iter().find(|form| typed.starts_with(form.as_bytes())).map(String::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(keys: &str, chunks: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut watch = DetachWatch::new(&keys.parse().unwrap());
        let mut sent = Vec::new();
        for chunk in chunks {
            let (send, detached) = watch.push(chunk);
            sent.extend(send);
            if detached {
                return (sent, true);
            }
        }
        (sent, false)
    }

    #[test]
    fn keys_are_read_or_refused() {
        assert_eq!("ctrl-\\".parse::<DetachKeys>().unwrap().keys, DetachKeys::default().keys);
        assert_eq!("ctrl-\\\\".parse::<DetachKeys>().unwrap().keys, [0x1c]);
        assert_eq!("ctrl-p,C-Q,~".parse::<DetachKeys>().unwrap().keys, [0x10, 0x11, b'~']);
        for bad in ["", "ctrl-", "ctrl-1", "alt-x", "ctrl-a,", "a,b,c,d,e", "é"] {
            assert!(bad.parse::<DetachKeys>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_comes_before_is_sent_and_what_comes_after_is_not() {
        assert_eq!(run("ctrl-\\", &[b"ls\x1crm"]), (b"ls".to_vec(), true));
        assert_eq!(run("ctrl-\\", &[b"ls\r"]), (b"ls\r".to_vec(), false));
        assert_eq!(run("ctrl-\\", &[b"x\x1b[27;5;92~"]), (b"x".to_vec(), true));
        assert_eq!(run("ctrl-a", &[b"\x1b[97;5u"]), (Vec::new(), true));
    }

    #[test]
    fn half_a_sequence_is_sent_once_it_is_not_one() {
        assert_eq!(run("ctrl-p,ctrl-q", &[b"a\x10", b"\x11"]), (b"a".to_vec(), true));
        assert_eq!(run("ctrl-p,ctrl-q", &[b"a\x10", b"b"]), (b"a\x10b".to_vec(), false));
        assert_eq!(run("ctrl-p,ctrl-q", &[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
    }
}
