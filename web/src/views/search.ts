// The search bar over a terminal. Searching goes upwards first: what someone looks for in a terminal was printed a while ago.

import type { SearchAddon } from '@xterm/addon-search';
import { h, iconButton, setText, show } from '../ui/dom.ts';

const DECORATIONS = {
  matchBackground: '#6b5a1e',
  matchOverviewRuler: '#e6c07b',
  activeMatchBackground: '#b3861b',
  activeMatchColorOverviewRuler: '#ffffff',
};

export class SearchBar {
  readonly element: HTMLElement;
  private readonly addon: SearchAddon;
  private readonly closed: () => void;
  private readonly count = h('span', { class: 'search-count', role: 'status', testid: 'search-count' });
  private readonly input = h('input', {
    class: 'input',
    type: 'text',
    placeholder: 'Search output',
    'aria-label': 'Search output',
    autocomplete: 'off',
    spellcheck: 'false',
    testid: 'search-input',
    oninput: () => this.find(true, true),
    onkeydown: (event: KeyboardEvent) => this.keydown(event),
  });
  private readonly caseBox = h('input', { type: 'checkbox', testid: 'search-case', onchange: () => this.find(true, true) });

  constructor(addon: SearchAddon, closed: () => void) {
    this.addon = addon;
    this.closed = closed;
    this.element = h(
      'div',
      { class: 'search', role: 'search', hidden: true, testid: 'search' },
      this.input,
      this.count,
      h('label', { class: 'check', title: 'Match case' }, this.caseBox, 'Aa'),
      iconButton('up', 'Previous match', () => this.find(true), 'search-previous'),
      iconButton('down', 'Next match', () => this.find(false), 'search-next'),
      iconButton('close', 'Close search', () => this.close(), 'search-close'),
    );
    addon.onDidChangeResults(({ resultIndex, resultCount }) => {
      const text = resultCount === 0 ? 'none' : resultIndex < 0 ? `${resultCount}+` : `${resultIndex + 1}/${resultCount}`;
      setText(this.count, this.input.value === '' ? '' : text);
    });
  }

  open(): void {
    show(this.element, true);
    this.input.focus();
    this.input.select();
  }

  close(): void {
    show(this.element, false);
    this.addon.clearDecorations();
    this.closed();
  }

  private keydown(event: KeyboardEvent): void {
    if (event.key === 'Enter') this.find(!event.shiftKey);
    else if (event.key === 'Escape') this.close();
    else return;
    event.preventDefault();
  }

  private find(upwards: boolean, incremental = false): void {
    const { value } = this.input;
    if (value === '') {
      this.addon.clearDecorations();
      setText(this.count, '');
      return;
    }
    const options = { caseSensitive: this.caseBox.checked, incremental: incremental && !upwards, decorations: DECORATIONS };
    const found = upwards ? this.addon.findPrevious(value, options) : this.addon.findNext(value, options);
    if (!found) setText(this.count, 'none');
  }
}
