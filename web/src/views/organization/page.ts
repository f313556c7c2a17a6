// What the pages of an organisation have in common.

import type { Rights } from '../../api/rights.ts';
import type { Store } from '../../api/store.ts';
import type { Me } from '../../api/types.ts';
import { h, type Child } from '../../ui/dom.ts';

/** What a page stands on. */
export interface Ground {
  me: Me;
  rights: Rights;
  store: Store;
  /** What one is here is not what it was: everything begins anew. */
  changed(): void;
}

export interface Page {
  element: HTMLElement;
  /** The address is still this page's, and says something else. */
  moved?(query: URLSearchParams): void;
  dispose?(): void;
}

/** A page with its title, a sentence on what it is, and what can be done. */
export function page(testid: string, title: string, text: string, action: Child, ...children: Child[]): HTMLElement {
  return h(
    'section',
    { class: 'page', 'aria-label': title, testid },
    h('header', { class: 'page-head' }, h('div', { class: 'page-title' }, h('h1', {}, title), h('p', { class: 'hint' }, text)), action),
    ...children,
  );
}

/** Rows of which most people need none. */
export function folded(label: string, testid: string, content: HTMLElement): HTMLElement {
  return h('details', { class: 'folded', testid }, h('summary', {}, label), content);
}
