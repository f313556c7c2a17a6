// The terminal's own colours. They are dark on light pages too: programs ask the host for the background and paint for what it answers,
// and the host answers with these.

import type { ITheme } from '@xterm/xterm';

export const THEME: ITheme = {
  background: '#101318',
  foreground: '#d8dee6',
  cursor: '#5eead4',
  cursorAccent: '#101318',
  selectionBackground: '#35507a',
  selectionInactiveBackground: '#2c3a50',
  black: '#1b2027',
  red: '#f0717a',
  green: '#7fcf8e',
  yellow: '#e6c07b',
  blue: '#6cb2f7',
  magenta: '#c792ea',
  cyan: '#5ccfd6',
  white: '#c5ccd6',
  brightBlack: '#66707d',
  brightRed: '#ff8f96',
  brightGreen: '#9be3a8',
  brightYellow: '#f5d898',
  brightBlue: '#90c8ff',
  brightMagenta: '#dab0f5',
  brightCyan: '#86e3e8',
  brightWhite: '#f4f7fa',
};
