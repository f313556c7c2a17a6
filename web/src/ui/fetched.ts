// A part of a page that is fetched: it says that it loads, why it could not be loaded, or shows what came. While it is fetched again, what is
// there stays.

import { sentence } from '../api/http.ts';
import { fill, h, type Child } from './dom.ts';

export class Fetched<T> {
  readonly element = h('div', { class: 'fetched' });
  private readonly fetch: () => Promise<T>;
  private readonly render: (value: T) => Child[];
  /** Counts the attempts, so that a late answer does not replace a newer one. */
  private attempt = 0;

  constructor(fetch: () => Promise<T>, render: (value: T) => Child[]) {
    this.fetch = fetch;
    this.render = render;
  }

  async load(): Promise<void> {
    this.attempt += 1;
    const { attempt } = this;
    this.element.setAttribute('aria-busy', 'true');
    if (!this.element.hasChildNodes()) fill(this.element, h('p', { class: 'loading', role: 'status' }, 'Loading…'));
    try {
      const value = await this.fetch();
      if (attempt === this.attempt) fill(this.element, ...this.render(value));
    } catch (error) {
      if (attempt === this.attempt)
        fill(
          this.element,
          failure(error, () => void this.load()),
        );
    }
    if (attempt === this.attempt) this.element.removeAttribute('aria-busy');
  }
}

/** What stands where something could not be loaded. */
export function failure(error: unknown, again: () => void): HTMLElement {
  return h(
    'div',
    { class: 'failure', testid: 'failure' },
    h('p', { class: 'notice error', role: 'alert' }, sentence(error)),
    h('button', { type: 'button', class: 'button', onclick: again, testid: 'try-again' }, 'Try again'),
  );
}

/** What stands where there is nothing yet. */
export function nothing(text: string): HTMLElement {
  return h('p', { class: 'nothing', testid: 'nothing' }, text);
}
