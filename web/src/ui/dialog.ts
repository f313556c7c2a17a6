// Dialogs on the browser's own <dialog>: focus is kept inside, Escape closes, focus returns to where it was.

import { sentence } from '../api/http.ts';
import { fill, h, iconButton, setText, type Child } from './dom.ts';

export interface Dialog {
  readonly element: HTMLDialogElement;
  close(): void;
  /** Neither Escape nor a click beside it closes it from now on. */
  sticky(): void;
}

export function openDialog(title: string, testid: string, ...children: Child[]): Dialog {
  let isSticky = false;
  const close = () => element.close();
  const element: HTMLDialogElement = h(
    'dialog',
    { class: 'dialog', 'aria-label': title, testid },
    h('header', { class: 'dialog-head' }, h('h2', {}, title), iconButton('close', 'Close', close)),
    ...children,
  );
  element.addEventListener('close', () => element.remove());
  // A click on the backdrop arrives at the dialog itself.
  element.addEventListener('pointerdown', (event) => {
    if (event.target === element && !isSticky) close();
  });
  element.addEventListener('keydown', (event) => {
    if (event.key === 'Escape' && isSticky) event.preventDefault();
  });
  document.body.append(element);
  element.showModal();
  const sticky = () => {
    isSticky = true;
    // What newer browsers have for it: also a phone's gesture for Back.
    element.setAttribute('closedby', 'none');
  };
  return { element, close, sticky };
}

export interface Question {
  title: string;
  text: string;
  confirm: string;
  danger?: boolean;
}

/**
 * Asks before something that cannot be taken back; resolves to whether it was confirmed. With an `action` the question stays until that is
 * done, and says why it was not.
 */
export function ask(question: Question, action?: () => Promise<void>): Promise<boolean> {
  return new Promise((resolve) => {
    let answer = false;
    const refused = h('p', { class: 'dialog-text field-error', role: 'alert', testid: 'confirm-error' });
    const yes = h('button', { type: 'button', class: question.danger ? 'button danger' : 'button primary', testid: 'confirm-yes' }, question.confirm);
    const no = h('button', { type: 'button', class: 'button', testid: 'confirm-no' }, 'Cancel');
    const dialog = openDialog(
      question.title,
      'confirm-dialog',
      h('p', { class: 'dialog-text' }, question.text),
      refused,
      h('footer', { class: 'dialog-foot' }, no, yes),
    );
    const confirmed = () => {
      answer = true;
      dialog.close();
    };
    yes.addEventListener('click', () => {
      if (!action) return confirmed();
      yes.disabled = true;
      setText(refused, '');
      action().then(confirmed, (problem: unknown) => {
        yes.disabled = false;
        setText(refused, sentence(problem));
      });
    });
    no.addEventListener('click', () => dialog.close());
    dialog.element.addEventListener('close', () => resolve(answer));
    yes.focus();
  });
}

/** A line of text asked of the user; `null` if they closed the dialog. */
export function askText(title: string, label: string, value: string, confirm: string): Promise<string | null> {
  return new Promise((resolve) => {
    let answer: string | null = null;
    const input = h('input', { id: 'ask-text', class: 'input', value, maxlength: 100, autocomplete: 'off', testid: 'ask-text' });
    const form = h(
      'form',
      { class: 'form' },
      h('label', { for: 'ask-text' }, label),
      input,
      h('footer', { class: 'dialog-foot' }, h('button', { class: 'button primary', testid: 'confirm-yes' }, confirm)),
    );
    const dialog = openDialog(title, 'text-dialog', form);
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      answer = input.value;
      dialog.close();
    });
    dialog.element.addEventListener('close', () => resolve(answer));
    input.select();
  });
}

export interface MenuItem {
  label: string;
  /** A line of less weight below it. */
  more?: string;
  testid: string;
  danger?: boolean;
  /** Of several that exclude each other, the one that holds. */
  checked?: boolean;
  run: () => void;
}

/** A menu under a button: arrow keys move, Escape and a click elsewhere close. `head` stands above it and is no choice. */
export function menuButton(button: HTMLButtonElement, items: () => MenuItem[], head: Child = null): HTMLElement {
  const menu = h('div', { class: 'menu', role: 'menu', hidden: true });
  const wrapper = h('div', { class: 'menu-anchor' }, button, menu);
  button.setAttribute('aria-haspopup', 'menu');
  const set = (open: boolean) => {
    menu.hidden = !open;
    button.setAttribute('aria-expanded', String(open));
  };
  const close = (refocus: boolean) => {
    set(false);
    if (refocus) button.focus();
  };
  button.addEventListener('click', () => {
    if (!menu.hidden) return close(false);
    fill(menu, head, ...items().map((item) => menuItem(item, () => close(true))));
    set(true);
    menu.querySelector('button')?.focus();
  });
  wrapper.addEventListener('keydown', (event) => {
    if (menu.hidden) return;
    if (event.key === 'Escape') close(true);
    const step = event.key === 'ArrowDown' ? 1 : event.key === 'ArrowUp' ? -1 : 0;
    if (step === 0) return;
    event.preventDefault();
    const entries = [...menu.querySelectorAll('button')];
    const at = entries.indexOf(document.activeElement as HTMLButtonElement);
    entries[(at + step + entries.length) % entries.length]?.focus();
  });
  wrapper.addEventListener('focusout', (event) => {
    if (!wrapper.contains(event.relatedTarget as Node | null)) set(false);
  });
  set(false);
  return wrapper;
}

function menuItem(item: MenuItem, close: () => void): HTMLElement {
  const run = () => {
    close();
    item.run();
  };
  const role = item.checked === undefined ? 'menuitem' : 'menuitemradio';
  return h(
    'button',
    {
      type: 'button',
      role,
      'aria-checked': item.checked === undefined ? null : String(item.checked),
      class: item.danger ? 'danger' : '',
      testid: item.testid,
      onclick: run,
    },
    h('span', { class: 'menu-label' }, item.label),
    item.more ? h('span', { class: 'menu-more' }, item.more) : null,
  );
}
