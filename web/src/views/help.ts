// The keys of the console. In a terminal every key is the program's, except the few with Ctrl+Shift that no program can see anyway.

import { h } from '../ui/dom.ts';
import { openDialog } from '../ui/dialog.ts';

const KEYS: readonly (readonly [string, readonly (readonly [string, string])[]])[] = [
  [
    'Anywhere outside a terminal',
    [
      ['n', 'New session'],
      ['/', 'Filter the sessions'],
      ['↑ ↓ Home End', 'Move along the list'],
      ['Enter', 'Open the session'],
      ['o', 'The organisation: members, keys, hosts, settings, audit'],
      ['?', 'This help'],
    ],
  ],
  [
    'In a terminal',
    [
      ['Ctrl+Shift+C', 'Copy the selection'],
      ['Ctrl+Shift+V', 'Paste'],
      ['Ctrl+Shift+F', 'Search the output'],
      ['Ctrl+Shift+L', 'Leave the terminal, to the list'],
      ['Shift+PgUp / PgDn', 'Scroll'],
      ['Shift+drag', 'Select although the program takes the mouse'],
    ],
  ],
  [
    'In the search',
    [
      ['Enter / Shift+Enter', 'Previous / next match'],
      ['Esc', 'Close'],
    ],
  ],
];

export function openHelp(): void {
  const sections = KEYS.map(([title, keys]) =>
    h('section', {}, h('h3', {}, title), h('dl', { class: 'keys' }, ...keys.flatMap(([key, what]) => [h('dt', {}, h('kbd', {}, key)), h('dd', {}, what)]))),
  );
  openDialog('Keyboard', 'help-dialog', h('div', { class: 'help' }, ...sections));
}
