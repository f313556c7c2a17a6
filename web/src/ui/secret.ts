// Something that the server shows once. The dialog closes by its button alone, so that a slip of the hand loses nothing.

import { copyText } from './copy.ts';
import { openDialog } from './dialog.ts';
import { h, icon, setText } from './dom.ts';

export interface Secret {
  title: string;
  testid: string;
  /** What to do with it. */
  text: string;
  value: string;
  /** Until when it is good, and for whom. */
  hint: string;
}

export function showSecret(secret: Secret): void {
  const value = h('pre', { class: 'command secret', tabindex: '0', 'aria-label': secret.title, testid: 'secret' }, secret.value);
  const said = h('span', { class: 'hint', role: 'status' });
  const copy = h('button', { type: 'button', class: 'button primary', testid: 'secret-copy' }, icon('copy'), 'Copy');
  const done = h('button', { type: 'button', class: 'button', testid: 'secret-done' }, 'Done');
  copy.addEventListener('click', () => {
    void copyText(secret.value).then((copied) => {
      setText(said, copied ? 'Copied.' : 'The browser does not let this page copy: it is selected.');
      if (!copied) getSelection()?.selectAllChildren(value);
    });
  });
  const dialog = openDialog(
    secret.title,
    secret.testid,
    h(
      'div',
      { class: 'form' },
      h('p', {}, secret.text),
      value,
      h('p', { class: 'hint' }, secret.hint),
      h('footer', { class: 'dialog-foot' }, said, h('span', { class: 'spacer' }), copy, done),
    ),
  );
  dialog.sticky();
  done.addEventListener('click', () => dialog.close());
  copy.focus();
}
