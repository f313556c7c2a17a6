//! Names of keys and the bytes a terminal sends for them.
//!
//! Which of its modes a program switched on is known on its host only, so the sequences are those of the normal modes, which every
//! program accepts. Names are those of tmux and of people: `Enter`, `C-c`, `M-x`, `S-Tab`, `C-Left`, `F5`, or a single character.

/// The bytes of one key; none for a name nobody knows.
#[must_use]
pub fn bytes_of(name: &str) -> Option<Vec<u8>> {
    let (modifiers, base) = Modifiers::split(name);
    if let Some(letter) = cursor_final(base) {
        return Some(cursor(letter, modifiers));
    }
    if let Some(number) = tilde_number(base) {
        return Some(tilde(number, modifiers));
    }
    let plain = match base {
        "Tab" if modifiers.shift => return Some(escaped(b"\x1b[Z", modifiers.meta)),
        "BTab" => return Some(escaped(b"\x1b[Z", modifiers.meta)),
        "Enter" | "Return" => "\r".to_owned(),
        "Tab" => "\t".to_owned(),
        "Escape" | "Esc" => "\x1b".to_owned(),
        "Space" => " ".to_owned(),
        "Backspace" | "BSpace" => "\x7f".to_owned(),
        one if one.chars().count() == 1 => one.to_owned(),
        _ => return None,
    };
    let plain = if modifiers.shift { plain.to_uppercase() } else { plain };
    if !modifiers.control {
        return Some(escaped(plain.as_bytes(), modifiers.meta));
    }
    Some(escaped(&[control(&plain)?], modifiers.meta))
}

#[derive(Debug, Clone, Copy, Default)]
struct Modifiers {
    control: bool,
    meta: bool,
    shift: bool,
}

impl Modifiers {
    fn split(name: &str) -> (Self, &str) {
        let (mut found, mut rest) = (Self::default(), name);
        if let Some(base) = rest.strip_prefix('^').filter(|base| !base.is_empty()) {
            return (Self { control: true, ..found }, base);
        }
        // A lone `C-` is no key; a modifier needs something after it.
        while rest.len() > 2 && rest.is_char_boundary(2) {
            match rest.split_at(2) {
                ("C-", base) => (found.control, rest) = (true, base),
                ("M-", base) => (found.meta, rest) = (true, base),
                ("S-", base) => (found.shift, rest) = (true, base),
                _ => break,
            }
        }
        (found, rest)
    }

    /// The parameter of xterm's modified keys: 1 plus a bit for each.
    fn parameter(self) -> u8 {
        1 + u8::from(self.shift) + 2 * u8::from(self.meta) + 4 * u8::from(self.control)
    }
}

fn cursor_final(base: &str) -> Option<char> {
    Some(match base {
        "Up" => 'A',
        "Down" => 'B',
        "Right" => 'C',
        "Left" => 'D',
        "Home" => 'H',
        "End" => 'F',
        "F1" => 'P',
        "F2" => 'Q',
        "F3" => 'R',
        "F4" => 'S',
        _ => return None,
    })
}

fn cursor(letter: char, modifiers: Modifiers) -> Vec<u8> {
    match (modifiers.parameter(), letter) {
        (1, 'P'..='S') => format!("\x1bO{letter}"),
        (1, _) => format!("\x1b[{letter}"),
        (parameter, _) => format!("\x1b[1;{parameter}{letter}"),
    }
    .into_bytes()
}

fn tilde_number(base: &str) -> Option<u8> {
    Some(match base {
        "Insert" | "IC" => 2,
        "Delete" | "DC" => 3,
        "PageUp" | "PgUp" | "PPage" => 5,
        "PageDown" | "PgDn" | "NPage" => 6,
        "F5" => 15,
        "F6" => 17,
        "F7" => 18,
        "F8" => 19,
        "F9" => 20,
        "F10" => 21,
        "F11" => 23,
        "F12" => 24,
        _ => return None,
    })
}

fn tilde(number: u8, modifiers: Modifiers) -> Vec<u8> {
    match modifiers.parameter() {
        1 => format!("\x1b[{number}~"),
        parameter => format!("\x1b[{number};{parameter}~"),
    }
    .into_bytes()
}

/// What Ctrl makes of a character, where it makes something.
fn control(plain: &str) -> Option<u8> {
    let &[byte] = plain.as_bytes() else { return None };
    Some(match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'[' | b'\\' | b']' | b'^' | b'_' => byte & 0x1f,
        b'@' | b' ' => 0,
        b'?' => 0x7f,
        b'\r' | b'\t' | 0x1b => byte,
        0x7f => 0x08,
        b'/' => 0x1f,
        _ => return None,
    })
}

fn escaped(bytes: &[u8], meta: bool) -> Vec<u8> {
    if meta { [b"\x1b", bytes].concat() } else { bytes.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_bytes_that_terminals_send() {
        let table: [(&str, Option<&[u8]>); 26] = [
            ("Enter", Some(b"\r")),
            ("C-c", Some(b"\x03")),
            ("^C", Some(b"\x03")),
            ("^", Some(b"^")),
            ("M-x", Some(b"\x1bx")),
            ("C-M-a", Some(b"\x1b\x01")),
            ("M-Enter", Some(b"\x1b\r")),
            ("Up", Some(b"\x1b[A")),
            ("C-Left", Some(b"\x1b[1;5D")),
            ("S-Up", Some(b"\x1b[1;2A")),
            ("F1", Some(b"\x1bOP")),
            ("F5", Some(b"\x1b[15~")),
            ("C-F5", Some(b"\x1b[15;5~")),
            ("Delete", Some(b"\x1b[3~")),
            ("S-Tab", Some(b"\x1b[Z")),
            ("BTab", Some(b"\x1b[Z")),
            ("Esc", Some(b"\x1b")),
            ("C-Space", Some(b"\x00")),
            ("C-[", Some(b"\x1b")),
            ("S-a", Some(b"A")),
            ("é", Some("é".as_bytes())),
            ("-", Some(b"-")),
            ("C-", None),
            ("C-é", None),
            ("Entr", None),
            ("", None),
        ];
        for (name, bytes) in table {
            assert_eq!(bytes_of(name).as_deref(), bytes, "{name:?}");
        }
    }
}
