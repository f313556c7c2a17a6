// Somebody who is logged in and in no organisation: they accept an invitation, found an organisation where signing up is open, or log out.

import { api, sentence } from '../api/client.ts';
import { go } from '../api/place.ts';
import { h, type Child } from '../ui/dom.ts';
import { Fetched } from '../ui/fetched.ts';
import { Fields, onSubmit, textInput } from '../ui/form.ts';
import { toast } from '../ui/toast.ts';
import { card } from './login.ts';

/** `done` is called when they are in one; `loggedOut` when they left. */
export function newcomerView(done: () => void, loggedOut: () => void): HTMLElement {
  const ways = new Fetched(api.loginMethods, ({ sign_up }) => [sign_up === 'open' ? foundForm(done) : null]);
  void ways.load();
  const leave = h('button', { type: 'button', class: 'button tall', testid: 'newcomer-logout' }, 'Log out');
  leave.addEventListener('click', () => {
    api.logout().then(loggedOut, (error: unknown) => toast(sentence(error), 'error'));
  });
  return card(
    'newcomer',
    'You are in no organisation yet',
    h('p', {}, 'You are logged in. Ask somebody who manages an organisation for an invitation to your mail address, and open its link here.'),
    ways.element,
    leave,
  );
}

function foundForm(done: () => void): Child {
  const fields = new Fields();
  const name = textInput('found-name', { maxlength: 128 });
  const button = h('button', { class: 'button primary tall', testid: 'found-submit' }, 'Found it');
  const form = h('form', { class: 'form bare', novalidate: true }, fields.field('name', 'Or found an organisation of your own', name), fields.general, button);
  onSubmit(form, button, fields, async () => {
    const made = await api.createOrganization(name.value.trim());
    go(made.id);
    done();
  });
  return form;
}
