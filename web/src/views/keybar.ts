// The keys that a phone's keyboard lacks. Buttons never take the focus, so that the on-screen keyboard stays where it is.

import type { TerminalView } from '../terminal/view.ts';
import { h } from '../ui/dom.ts';

const KEYS = [
  ['Esc', 'Escape', 'Escape'],
  ['Tab', 'Tab', 'Tab'],
  ['←', 'Left', 'Arrow left'],
  ['↑', 'Up', 'Arrow up'],
  ['↓', 'Down', 'Arrow down'],
  ['→', 'Right', 'Arrow right'],
  ['⏎', 'Enter', 'Enter'],
] as const;

export function keyBar(view: TerminalView): HTMLElement {
  const hold = (event: Event) => event.preventDefault();
  const ctrl = h('button', { type: 'button', 'aria-pressed': 'false', 'aria-label': 'Control, for the next key', testid: 'key-Ctrl', onpointerdown: hold }, 'Ctrl');
  const release = () => {
    ctrl.setAttribute('aria-pressed', 'false');
    view.setStickyCtrl(null);
  };
  ctrl.addEventListener('click', () => {
    if (ctrl.getAttribute('aria-pressed') === 'true') return release();
    ctrl.setAttribute('aria-pressed', 'true');
    view.setStickyCtrl(release);
    view.focus();
  });
  const buttons = KEYS.map(([label, key, name]) =>
    h('button', { type: 'button', 'aria-label': name, testid: `key-${key}`, onpointerdown: hold, onclick: () => view.screen.key(key) }, label),
  );
  buttons.splice(2, 0, ctrl);
  return h('div', { class: 'keybar', role: 'toolbar', 'aria-label': 'Terminal keys', testid: 'keybar' }, ...buttons);
}
