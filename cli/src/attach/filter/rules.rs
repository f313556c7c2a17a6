//! Which sequences pass. Pure tables: what draws is named where the rest is unsafe, what is unsafe is named where the rest draws.

use super::FilterPolicy;

/// What becomes of a CSI sequence.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It passes as it is.
    Pass,
    /// It sets or resets these DEC private modes.
    Modes(Vec<u16>),
    /// It does not pass.
    Drop,
}

/// DEC private modes that stay away from the local terminal: VT52 mode (another language), reports of colour scheme, size and clipboard that
/// the host does not offer (it answers "unknown" when asked for them), and Windows key events.
const MODES_NOT_LOCAL: [u16; 5] = [2, 2031, 2048, 5522, 9001];

/// Window manipulations that pass: pushing and popping the title. The rest moves windows or asks for sizes and titles.
const WINDOW_PASS: [&[u8]; 8] = [b"22", b"22;0", b"22;1", b"22;2", b"23", b"23;0", b"23;1", b"23;2"];

/// Whether an ESC sequence passes.
pub(super) fn escape(intermediates: &[u8], last: u8) -> bool {
    match (intermediates, last) {
        // DECID asks who is there. A lone ST ends nothing.
        ([], b'Z' | b'\\') => false,
        // Eight-bit answers; leaving UTF-8.
        ([b' ', ..] | [b'%', ..], _) => false,
        _ => true,
    }
}

/// What becomes of a CSI sequence, given without its introducer.
pub(super) fn csi(body: &[u8], last: u8) -> Verdict {
    let (private, rest) = match body.split_first() {
        Some((&first @ b'<'..=b'?', rest)) => (Some(first), rest),
        _ => (None, body),
    };
    let parameters_end = rest.iter().position(|byte| !matches!(byte, b'0'..=b';')).unwrap_or(rest.len());
    let (parameters, intermediates) = rest.split_at(parameters_end);
    if intermediates.iter().any(|byte| !(0x20..0x30).contains(byte)) {
        return Verdict::Drop;
    }
    if private == Some(b'?') && intermediates.is_empty() && matches!(last, b'h' | b'l') {
        return modes(parameters);
    }
    let passes = match intermediates {
        [] => plain_csi(private, parameters, last),
        [b' '] => matches!(last, b'q' | b'@' | b'A'),
        [b'!'] => last == b'p',
        [b'"'] => last == b'q',
        [b'$'] => matches!(last, b'r' | b't' | b'v' | b'x' | b'z' | b'{'),
        [b'*'] => last == b'x',
        [b'\''] => matches!(last, b'}' | b'~'),
        [b'#'] => matches!(last, b'{' | b'}' | b'p' | b'q'),
        _ => false,
    };
    if passes { Verdict::Pass } else { Verdict::Drop }
}

fn plain_csi(private: Option<u8>, parameters: &[u8], last: u8) -> bool {
    match (private, last) {
        // DA1, DA2, DA3; terminal parameters; printer.
        (_, b'c' | b'x' | b'i') => false,
        // DSR and CPR. With > it sets a key format, which asks nothing.
        (None | Some(b'?'), b'n') => false,
        // XTVERSION; kitty keyboard, which the host does not offer; modifyOtherKeys and graphics asked for.
        (Some(b'>'), b'q') | (Some(_), b'u') | (Some(b'?'), b'm' | b'S') => false,
        (None, b't') => WINDOW_PASS.contains(&parameters),
        (Some(_), b't') => false,
        // Locking the keyboard.
        (None, b'h' | b'l') => parameters.split(|byte| *byte == b';').all(|mode| mode != b"2"),
        _ => true,
    }
}

fn modes(parameters: &[u8]) -> Verdict {
    let words = parameters.split(|byte| *byte == b';');
    let numbers: Option<Vec<u16>> = words.map(|word| std::str::from_utf8(word).ok()?.parse().ok()).collect();
    match numbers {
        Some(mut numbers) => {
            numbers.retain(|mode| !MODES_NOT_LOCAL.contains(mode));
            Verdict::Modes(numbers)
        }
        None => Verdict::Drop,
    }
}

/// Whether an OSC passes, given without introducer and terminator.
pub(super) fn osc(body: &[u8], policy: FilterPolicy) -> bool {
    let mut fields = body.split(|byte| *byte == b';');
    let number = fields.next().and_then(|word| std::str::from_utf8(word).ok()?.parse::<u16>().ok());
    let asks = || fields.clone().any(|field| field == b"?");
    match number {
        // Titles, directory, link, notification and progress, shell marks, notification.
        Some(0 | 1 | 2 | 7 | 8 | 9 | 133 | 777) => true,
        // Colours and pointer shape: set, not asked.
        Some(4 | 5 | 10..=19 | 22) => !asks(),
        Some(104 | 105 | 110..=119) => true,
        Some(52) => policy.clipboard && !asks(),
        _ => false,
    }
}
