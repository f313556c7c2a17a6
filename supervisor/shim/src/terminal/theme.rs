//! The colours that queries are answered with as long as the program has set none of its own.
//!
//! The console draws with the same ones: what a program hears about its background is what the person sees.

use vte::ansi::{NamedColor, Rgb};

/// Foreground.
pub const FOREGROUND: Rgb = hex(0xd4_d4_d4);
/// Background.
pub const BACKGROUND: Rgb = hex(0x1e_1e_1e);
/// Cursor.
pub const CURSOR: Rgb = FOREGROUND;
/// Whether programs should choose colours for a dark background: what CSI ? 996 n asks.
pub const IS_DARK: bool = true;

/// The sixteen named colours: those of xterm.js.
pub const ANSI: [Rgb; 16] = [
    hex(0x2e_34_36),
    hex(0xcc_00_00),
    hex(0x4e_9a_06),
    hex(0xc4_a0_00),
    hex(0x34_65_a4),
    hex(0x75_50_7b),
    hex(0x06_98_9a),
    hex(0xd3_d7_cf),
    hex(0x55_57_53),
    hex(0xef_29_29),
    hex(0x8a_e2_34),
    hex(0xfc_e9_4f),
    hex(0x72_9f_cf),
    hex(0xad_7f_a8),
    hex(0x34_e2_e2),
    hex(0xee_ee_ec),
];

/// A colour by the engine's index: 0-255 of the palette, then foreground, background, cursor.
#[must_use]
pub fn color(index: usize) -> Rgb {
    const BACKGROUND_INDEX: usize = NamedColor::Background as usize;
    const CURSOR_INDEX: usize = NamedColor::Cursor as usize;
    match index {
        0..=15 => ANSI[index],
        16..=231 => {
            let level = |step: usize| [0, 0x5f, 0x87, 0xaf, 0xd7, 0xff][step % 6];
            let cube = index - 16;
            Rgb { r: level(cube / 36), g: level(cube / 6), b: level(cube) }
        }
        232..=255 => {
            let grey = u8::try_from(8 + 10 * (index - 232)).unwrap_or(u8::MAX);
            Rgb { r: grey, g: grey, b: grey }
        }
        BACKGROUND_INDEX => BACKGROUND,
        CURSOR_INDEX => CURSOR,
        _ => FOREGROUND,
    }
}

const fn hex(rgb: u32) -> Rgb {
    let [_, r, g, b] = rgb.to_be_bytes();
    Rgb { r, g, b }
}
