// The strip over a terminal that says what happened to its connection, and that nothing else covers: whether output is complete is the
// one thing a terminal must never leave open.

import { fill, h, iconButton, show, type Child } from '../ui/dom.ts';

/** A good verdict is read at a glance; one about missing output stays until someone closes it. */
const GOOD_MS = 5000;

export type BannerKind = 'info' | 'good' | 'warn' | 'bad';

export class Banner {
  readonly element = h('div', { class: 'banner', role: 'status', hidden: true, testid: 'banner' });
  private timer: number | undefined;

  /** `id` says what the banner is about, so that only its own news clears it. */
  set(id: string, kind: BannerKind, text: string, ...actions: Child[]): void {
    clearTimeout(this.timer);
    this.element.dataset['banner'] = id;
    this.element.dataset['kind'] = kind;
    const close = kind === 'warn' || kind === 'bad' ? iconButton('close', 'Dismiss', () => this.clear(id)) : null;
    fill(this.element, h('span', {}, text), ...actions, close);
    show(this.element, true);
    if (kind === 'good') this.timer = window.setTimeout(() => this.clear(id), GOOD_MS);
  }

  clear(id: string): void {
    if (this.element.dataset['banner'] !== id) return;
    clearTimeout(this.timer);
    show(this.element, false);
    delete this.element.dataset['banner'];
  }
}
