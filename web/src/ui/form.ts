// Forms. What the server refuses stands at the field that it names, and whatever it names none for stands below; nothing is checked here that
// the server checks better. A form is sent once at a time, and after a refusal for haste it can be sent again when the server said.

import { ApiError, sentence } from '../api/http.ts';
import { openDialog, type Dialog } from './dialog.ts';
import { h, setText, type Child } from './dom.ts';
import { asSentence } from './format.ts';

const SECOND_MS = 1000;

/** The fields of one form, under the names by which the API calls them. */
export class Fields {
  readonly general = h('p', { class: 'field-error', role: 'alert', testid: 'error-general' });
  private readonly errors = new Map<string, { text: HTMLElement; control: HTMLElement | null }>();

  /** A control with its label, its hint, and room for what is wrong with it; `shown` has the control and what belongs to it, such as a unit. */
  field(name: string, label: string, control: HTMLElement, hint: string | null = null, shown: HTMLElement = control): HTMLElement {
    const error = this.error(name, control);
    const told = hint === null ? null : h('p', { class: 'hint', id: `${control.id}-hint` }, hint);
    control.setAttribute('aria-describedby', told ? `${told.id} ${error.id}` : error.id);
    return h('div', { class: 'field' }, h('label', { for: control.id }, label), shown, told, error);
  }

  /** The same for several controls that are one field. */
  group(name: string, legend: string, ...children: Child[]): HTMLElement {
    return h('fieldset', {}, h('legend', {}, legend), ...children, this.error(name, null));
  }

  error(name: string, control: HTMLElement | null = null): HTMLElement {
    const text = h('p', { class: 'field-error', role: 'alert', id: `error-${name}`, testid: `error-${name}` });
    this.errors.set(name, { text, control });
    return text;
  }

  clear(): void {
    setText(this.general, '');
    for (const { text, control } of this.errors.values()) {
      setText(text, '');
      control?.removeAttribute('aria-invalid');
    }
  }

  /** Puts each message at its field, and goes to the first. */
  show(problem: unknown): void {
    let first: HTMLElement | null = null;
    let shown = false;
    for (const [name, { text, control }] of this.errors) {
      const message = problem instanceof ApiError ? problem.field(name) : null;
      setText(text, message === null ? '' : asMessage(message));
      if (message === null) continue;
      shown = true;
      control?.setAttribute('aria-invalid', 'true');
      first ??= control;
    }
    first?.focus();
    if (!shown) setText(this.general, sentence(problem));
  }
}

export function textInput(id: string, attributes: Record<string, string | number | boolean> = {}): HTMLInputElement {
  return h('input', { id, class: 'input', type: 'text', autocomplete: 'off', testid: id, ...attributes });
}

/** One of a few words; `value` is chosen. */
export function select(id: string, options: readonly (readonly [value: string, label: string])[], value: string): HTMLSelectElement {
  return h('select', { id, class: 'input', testid: id }, ...options.map(([key, label]) => h('option', { value: key, selected: key === value }, label)));
}

/** Has a form sent by its button, and its problems shown. */
export function onSubmit(form: HTMLFormElement, button: HTMLButtonElement, fields: Fields, send: () => Promise<void>): void {
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    if (button.disabled) return;
    fields.clear();
    button.disabled = true;
    send().then(
      () => (button.disabled = false),
      (problem: unknown) => {
        fields.show(problem);
        const wait = problem instanceof ApiError && problem.status === 429 ? problem.retryAfterS : null;
        if (wait === null) button.disabled = false;
        else countDown(wait, fields.general, () => (button.disabled = false));
      },
    );
  });
}

export interface FormDialog {
  title: string;
  testid: string;
  /** What the button says. */
  submit: string;
  danger?: boolean;
}

/** A form in a dialog, which closes once it was sent. */
export function openForm(what: FormDialog, fields: Fields, body: Child[], send: () => Promise<void>): Dialog {
  const cancel = h('button', { type: 'button', class: 'button', testid: 'form-cancel' }, 'Cancel');
  const button = h('button', { class: what.danger ? 'button danger' : 'button primary', testid: 'form-submit' }, what.submit);
  const form = h('form', { class: 'form', novalidate: true }, ...body, fields.general, h('footer', { class: 'dialog-foot' }, cancel, button));
  const dialog = openDialog(what.title, what.testid, form);
  cancel.addEventListener('click', () => dialog.close());
  onSubmit(form, button, fields, async () => {
    await send();
    dialog.close();
  });
  form.querySelector<HTMLElement>('input:checked, input, select, textarea')?.focus();
  return dialog;
}

function countDown(seconds: number, text: HTMLElement, done: () => void): void {
  if (seconds <= 0) {
    setText(text, '');
    return done();
  }
  setText(text, `Too many tries. You can try again in ${seconds} ${seconds === 1 ? 'second' : 'seconds'}.`);
  setTimeout(() => countDown(seconds - 1, text, done), SECOND_MS);
}

/** Ranges come as `60 to 3600`, the rest as sentences without a capital. */
function asMessage(message: string): string {
  return asSentence(/^\d/.test(message) ? `expected ${message}` : message);
}
