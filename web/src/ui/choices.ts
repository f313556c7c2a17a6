// Choices that need a sentence each: radio buttons or boxes in a list of rows.

import { h } from './dom.ts';

export interface Choice {
  value: string;
  title: string;
  /** What it means. */
  text?: string;
  disabled?: boolean;
}

export class Choices {
  readonly element: HTMLElement;
  private readonly inputs: HTMLInputElement[];

  constructor(kind: 'radio' | 'checkbox', name: string, label: string, choices: readonly Choice[], chosen: readonly string[]) {
    this.inputs = choices.map(({ value, disabled }) =>
      h('input', { type: kind, name, value, checked: chosen.includes(value), disabled, testid: `${name}-${value}` }),
    );
    const rows = choices.map((choice, i) =>
      h(
        'label',
        { class: 'choice' },
        this.inputs[i],
        h('span', { class: 'choice-title' }, choice.title),
        choice.text ? h('span', { class: 'choice-text' }, choice.text) : null,
      ),
    );
    this.element = h('div', { class: 'choices', role: kind === 'radio' ? 'radiogroup' : 'group', 'aria-label': label }, ...rows);
  }

  /** What is chosen, in the order of the list. */
  get values(): string[] {
    return this.inputs.filter((input) => input.checked).map((input) => input.value);
  }

  get value(): string {
    return this.values[0] ?? '';
  }

  disable(disabled: boolean): void {
    for (const input of this.inputs) input.disabled = disabled;
  }
}
