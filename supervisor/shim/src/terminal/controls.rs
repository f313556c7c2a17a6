//! State of the terminal that is not on the screen: modes, tab stops, title, cursor style, keyboard flags.
//!
//! Plain data with the rules for changing it. The engine changes it while it runs output; the responder reports it and
//! the keyframe writer writes it down. Every list in here is bounded.

/// Longest title kept, in bytes: a title is a label, not a channel.
pub const TITLE_BYTES_MAX: usize = 256;
/// Titles on the stack of CSI 22/23 t (xterm.js keeps 10). Overflow: the oldest is forgotten.
pub const TITLE_STACK_MAX: usize = 10;
/// Depth of the kitty keyboard stack. Overflow: the oldest entry is forgotten, as the protocol asks.
pub const KITTY_STACK_MAX: usize = 16;
/// Widest terminal there is, for the tab stop set.
const COLS_MAX: usize = agentapi_shared::size::COLS_MAX as usize;
/// Columns between the tab stops of a fresh terminal.
const TAB_EVERY: usize = 8;

/// DEC private modes that are plain switches, with their state after a reset. The mouse modes exclude each other and the
/// screen modes are the engine's: neither is in here.
const PRIVATE: [(u16, bool); 13] = [
    (1, false),    // application cursor keys
    (5, false),    // reverse video
    (6, false),    // origin
    (7, true),     // autowrap
    (12, false),   // blinking cursor
    (25, true),    // cursor visible
    (45, false),   // reverse wraparound: reported and restored, without effect here
    (66, false),   // application keypad
    (1004, false), // focus events
    (1007, false), // wheel as arrow keys on the alternate screen
    (2004, false), // bracketed paste
    (2026, false), // synchronized output
    (2031, false), // colour scheme reports
];

/// ANSI modes, all off after a reset: insert (the lowest bit, see `inserts`), newline.
const ANSI: [u16; 2] = [4, 20];

/// What a DECRQM report says about a mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModeReport {
    /// Not known.
    Unknown = 0,
    /// On.
    Set = 1,
    /// Off.
    Reset = 2,
    /// Known and never off.
    AlwaysSet = 3,
    /// Known and never on.
    AlwaysReset = 4,
}

impl From<bool> for ModeReport {
    fn from(set: bool) -> Self {
        if set { Self::Set } else { Self::Reset }
    }
}

/// The switches of the terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modes {
    private: u16,
    ansi: u8,
    /// 9, 1000, 1002 or 1003; 0: the mouse is not reported. One replaces the other, as in xterm.
    pub mouse: u16,
    /// 1005, 1006, 1015 or 1016; 0: the original encoding.
    pub mouse_encoding: u16,
}

impl Default for Modes {
    fn default() -> Self {
        let private = PRIVATE.iter().enumerate().fold(0, |bits, (i, (_, on))| bits | (u16::from(*on) << i));
        Self { private, ansi: 0, mouse: 0, mouse_encoding: 0 }
    }
}

impl Modes {
    /// Whether a private switch is on; `None`: not a switch of ours.
    #[must_use]
    pub fn private(&self, mode: u16) -> Option<bool> {
        PRIVATE.iter().position(|(number, _)| *number == mode).map(|i| self.private >> i & 1 == 1)
    }

    /// Whether an ANSI switch is on; `None`: not a switch of ours.
    #[must_use]
    pub fn ansi(&self, mode: u16) -> Option<bool> {
        ANSI.iter().position(|number| *number == mode).map(|i| self.ansi >> i & 1 == 1)
    }

    /// Insert mode, asked before every character.
    #[must_use]
    pub fn inserts(&self) -> bool {
        self.ansi & 1 != 0
    }

    /// Turns a private mode on or off; unknown ones are ignored.
    pub fn set_private(&mut self, mode: u16, on: bool) {
        match mode {
            9 | 1000 | 1002 | 1003 => self.mouse = if on { mode } else { 0 },
            1005 | 1006 | 1015 | 1016 => self.mouse_encoding = if on { mode } else { 0 },
            _ => {
                if let Some(i) = PRIVATE.iter().position(|(number, _)| *number == mode) {
                    self.private = self.private & !(1 << i) | u16::from(on) << i;
                }
            }
        }
    }

    /// Turns an ANSI mode on or off; unknown ones are ignored.
    pub fn set_ansi(&mut self, mode: u16, on: bool) {
        if let Some(i) = ANSI.iter().position(|number| *number == mode) {
            self.ansi = self.ansi & !(1 << i) | u8::from(on) << i;
        }
    }

    /// The answer to DECRQM for a private mode; `alternate`: whether the alternate screen is shown.
    #[must_use]
    pub fn report_private(&self, mode: u16, alternate: bool) -> ModeReport {
        match mode {
            9 | 1000 | 1002 | 1003 => (self.mouse == mode).into(),
            1005 | 1006 | 1015 | 1016 => (self.mouse_encoding == mode).into(),
            47 | 1047 | 1049 => alternate.into(),
            1048 => ModeReport::Set,
            8 => ModeReport::AlwaysSet,
            67 => ModeReport::AlwaysReset,
            // Grapheme clusters: width is decided character by character here, and a program may rely on that.
            2027 => ModeReport::AlwaysReset,
            _ => self.private(mode).map_or(ModeReport::Unknown, Into::into),
        }
    }

    /// The answer to DECRQM for an ANSI mode.
    #[must_use]
    pub fn report_ansi(&self, mode: u16) -> ModeReport {
        match mode {
            2 => ModeReport::AlwaysReset,
            12 => ModeReport::AlwaysSet,
            _ => self.ansi(mode).map_or(ModeReport::Unknown, Into::into),
        }
    }

    /// The private modes that differ from those of a fresh terminal, with their state.
    pub fn changed(&self) -> impl Iterator<Item = (u16, bool)> + '_ {
        let switches = PRIVATE.iter().filter_map(|(mode, default)| {
            let on = self.private(*mode)?;
            (on != *default).then_some((*mode, on))
        });
        let mouse = [self.mouse, self.mouse_encoding].into_iter().filter(|mode| *mode != 0).map(|mode| (mode, true));
        switches.chain(mouse)
    }
}

/// Tab stops, one bit a column. Beyond the terminal's last column they are always those of a fresh terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TabStops([u64; COLS_MAX.div_ceil(64)]);

impl Default for TabStops {
    fn default() -> Self {
        let mut stops = Self([0; COLS_MAX.div_ceil(64)]);
        (0..COLS_MAX).step_by(TAB_EVERY).for_each(|col| stops.set(col, true));
        stops
    }
}

impl TabStops {
    /// Sets or clears a stop.
    pub fn set(&mut self, col: usize, on: bool) {
        if let Some(word) = self.0.get_mut(col / 64) {
            *word = *word & !(1 << (col % 64)) | u64::from(on) << (col % 64);
        }
    }

    /// Clears all stops of a terminal with so many columns.
    pub fn clear(&mut self, cols: usize) {
        (0..cols).for_each(|col| self.set(col, false));
    }

    /// Forgets what was set from a column on: the columns beyond the narrower of two sizes start afresh.
    pub fn reset_from(&mut self, col: usize) {
        (col..COLS_MAX).for_each(|col| self.set(col, col % TAB_EVERY == 0));
    }

    /// Whether there is a stop.
    #[must_use]
    pub fn is_set(&self, col: usize) -> bool {
        self.0.get(col / 64).is_some_and(|word| word >> (col % 64) & 1 == 1)
    }

    /// The next stop to the right, the last column if there is none.
    #[must_use]
    pub fn next(&self, col: usize, cols: usize) -> usize {
        (col + 1..cols).find(|col| self.is_set(*col)).unwrap_or(cols - 1)
    }

    /// The next stop to the left, the first column if there is none.
    #[must_use]
    pub fn previous(&self, col: usize) -> usize {
        (0..col).rev().find(|col| self.is_set(*col)).unwrap_or(0)
    }
}

/// Kitty keyboard flags of one screen: the current ones and those to come back to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KittyFlags {
    /// In force.
    pub current: u8,
    /// Pushed away, oldest first.
    pub stack: Vec<u8>,
}

impl KittyFlags {
    /// CSI > flags u
    pub fn push(&mut self, flags: u8) {
        if self.stack.len() == KITTY_STACK_MAX {
            self.stack.remove(0);
        }
        self.stack.push(self.current);
        self.current = flags;
    }

    /// CSI < count u
    pub fn pop(&mut self, count: u16) {
        for _ in 0..usize::from(count).min(KITTY_STACK_MAX + 1) {
            self.current = self.stack.pop().unwrap_or(0);
        }
    }

    /// CSI = flags ; how u
    pub fn change(&mut self, flags: u8, how: u16) {
        self.current = match how {
            2 => self.current | flags,
            3 => self.current & !flags,
            _ => flags,
        };
    }
}

/// Everything above in one place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Controls {
    /// Switches.
    pub modes: Modes,
    /// Tab stops.
    pub tabs: TabStops,
    /// Which of G0 to G3 is in use.
    pub charset: u8,
    /// Title of the window; empty if none.
    pub title: String,
    /// Titles put aside, oldest first.
    pub title_stack: Vec<String>,
    /// DECSCUSR, 0 to 6.
    pub cursor_style: u8,
    /// Keyboard flags of the primary and of the alternate screen.
    pub kitty: [KittyFlags; 2],
    /// XTMODKEYS: CSI > 4 ; n m.
    pub modify_other_keys: u8,
    /// The character printed last, if nothing came since: what REP repeats.
    pub last_char: Option<char>,
}

impl Controls {
    /// RIS: everything but the title, which xterm keeps too.
    pub fn reset(&mut self) {
        *self = Self { title: std::mem::take(&mut self.title), ..Self::default() };
    }

    /// DECSTR. The modes of xterm.js's soft reset: mouse reporting survives it.
    pub fn soft_reset(&mut self) {
        let Modes { mouse, mouse_encoding, .. } = self.modes;
        self.modes = Modes { mouse, mouse_encoding, ..Modes::default() };
        self.charset = 0;
    }

    /// Sets the title, without control characters and cut at a character.
    pub fn set_title(&mut self, title: &str) {
        self.title.clear();
        for c in title.chars().filter(|c| !c.is_control()) {
            if self.title.len() + c.len_utf8() > TITLE_BYTES_MAX {
                break;
            }
            self.title.push(c);
        }
    }

    /// CSI 22 t
    pub fn push_title(&mut self) {
        if self.title_stack.len() == TITLE_STACK_MAX {
            self.title_stack.remove(0);
        }
        self.title_stack.push(self.title.clone());
    }

    /// CSI 23 t; whether there was one.
    pub fn pop_title(&mut self) -> bool {
        let popped = self.title_stack.pop();
        let found = popped.is_some();
        if let Some(title) = popped {
            self.title = title;
        }
        found
    }
}
