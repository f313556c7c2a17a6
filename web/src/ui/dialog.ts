// Dialogs on the browser's own <dialog>: focus is kept inside, Escape closes, focus returns to where it was.

import { fill, h, iconButton, type Child } from './dom.ts';

export interface Dialog {
  readonly element: HTMLDialogElement;
  close(): void;
}

export function openDialog(title: string, testid: string, ...children: Child[]): Dialog {
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
    if (event.target === element) close();
  });
  document.body.append(element);
  element.showModal();
  return { element, close };
}

export interface Question {
  title: string;
  text: string;
  confirm: string;
  danger?: boolean;
}

/** Asks before something that cannot be taken back; resolves to whether it was confirmed. */
export function ask(question: Question): Promise<boolean> {
  return new Promise((resolve) => {
    let answer = false;
    const yes = h('button', { type: 'button', class: question.danger ? 'button danger' : 'button primary', testid: 'confirm-yes' }, question.confirm);
    const no = h('button', { type: 'button', class: 'button', testid: 'confirm-no' }, 'Cancel');
    const dialog = openDialog(question.title, 'confirm-dialog', h('p', { class: 'dialog-text' }, question.text), h('footer', { class: 'dialog-foot' }, no, yes));
    yes.addEventListener('click', () => {
      answer = true;
      dialog.close();
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

/** A menu under a button: arrow keys move, Escape and a click elsewhere close. */
export function menuButton(button: HTMLButtonElement, items: () => { label: string; testid: string; danger?: boolean; run: () => void }[]): HTMLElement {
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
    fill(
      menu,
      ...items().map((item) => {
        const run = () => {
          close(true);
          item.run();
        };
        return h('button', { type: 'button', role: 'menuitem', class: item.danger ? 'danger' : '', testid: item.testid, onclick: run }, item.label);
      }),
    );
    set(true);
    (menu.firstElementChild as HTMLElement | null)?.focus();
  });
  wrapper.addEventListener('keydown', (event) => {
    if (menu.hidden) return;
    if (event.key === 'Escape') close(true);
    const step = event.key === 'ArrowDown' ? 1 : event.key === 'ArrowUp' ? -1 : 0;
    if (step === 0) return;
    event.preventDefault();
    const entries = [...menu.children] as HTMLElement[];
    const at = entries.indexOf(document.activeElement as HTMLElement);
    entries[(at + step + entries.length) % entries.length]?.focus();
  });
  wrapper.addEventListener('focusout', (event) => {
    if (!wrapper.contains(event.relatedTarget as Node | null)) set(false);
  });
  set(false);
  return wrapper;
}
