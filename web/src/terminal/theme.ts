// The terminal's own colours: the ones that the host answers when a program asks for them, so that what a program chose to be readable is.
// They are dark on light pages too, because the answer is the same for every viewer of a session.

import type { ITheme } from '@xterm/xterm';

const FOREGROUND = '#d4d4d4';
const BACKGROUND = '#1e1e1e';

export const THEME: ITheme = {
  background: BACKGROUND,
  foreground: FOREGROUND,
  cursor: FOREGROUND,
  cursorAccent: BACKGROUND,
  // These have no query: they are the console's.
  selectionBackground: '#3b5a85',
  selectionInactiveBackground: '#3a4250',
  overviewRulerBorder: '#00000000',
  scrollbarSliderBackground: '#ffffff26',
  scrollbarSliderHoverBackground: '#ffffff40',
  scrollbarSliderActiveBackground: '#ffffff59',
  black: '#2e3436',
  red: '#cc0000',
  green: '#4e9a06',
  yellow: '#c4a000',
  blue: '#3465a4',
  magenta: '#75507b',
  cyan: '#06989a',
  white: '#d3d7cf',
  brightBlack: '#555753',
  brightRed: '#ef2929',
  brightGreen: '#8ae234',
  brightYellow: '#fce94f',
  brightBlue: '#729fcf',
  brightMagenta: '#ad7fa8',
  brightCyan: '#34e2e2',
  brightWhite: '#eeeeec',
};
