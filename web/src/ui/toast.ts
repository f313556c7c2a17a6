// Short messages that nobody has to answer. One with the same key replaces the last, so that a held key does not fill the page.

import { h, iconButton } from './dom.ts';

/** Long enough to read two lines. */
const TOAST_MS = { info: 6000, error: 20_000 } as const;

/** More than this many at once are not read; the oldest goes. */
const TOASTS_MAX = 4;

const region = h('div', { class: 'toasts', role: 'status', 'aria-live': 'polite', testid: 'toasts' });
const shown = new Map<string, HTMLElement>();

export function mountToasts(): void {
  document.body.append(region);
}

export function toast(text: string, kind: 'info' | 'error' = 'info', key = text): void {
  shown.get(key)?.remove();
  const close = () => {
    element.remove();
    if (shown.get(key) === element) shown.delete(key);
  };
  const element: HTMLElement = h('div', { class: `toast ${kind}` }, h('span', {}, text), iconButton('close', 'Dismiss', close));
  shown.set(key, element);
  region.append(element);
  while (region.children.length > TOASTS_MAX) region.firstElementChild?.remove();
  setTimeout(close, TOAST_MS[kind]);
}
