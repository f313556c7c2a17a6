// What someone sees who is not logged in: the ways there are, as the server names them. A link of the command line always is one.

import { api, ISSUER_LOGIN_URL } from '../api/client.ts';
import type { LoginMethods } from '../api/types.ts';
import { Fetched } from '../ui/fetched.ts';
import { Fields, onSubmit, textInput } from '../ui/form.ts';
import { h, type Child } from '../ui/dom.ts';
import { invitation, keepPlace } from './arrival.ts';

/** `again` is called when somebody is logged in. */
export function loginView(problem: string | null, again: () => void): HTMLElement {
  const methods = new Fetched(api.loginMethods, (found) => ways(found, again));
  void methods.load();
  return card(
    'login',
    invitation() ? 'Log in to accept your invitation' : 'Log in',
    problem ? h('p', { class: 'notice error', role: 'alert', testid: 'login-problem' }, problem) : null,
    methods.element,
  );
}

/** A page with one card in its middle. */
export function card(testid: string, title: string, ...children: Child[]): HTMLElement {
  return h(
    'main',
    { class: 'login', testid },
    h(
      'div',
      { class: 'card' },
      h('div', { class: 'brand' }, h('span', { class: 'brand-mark', 'aria-hidden': 'true' }, '❯_'), 'AgentAPI'),
      h('h1', {}, title),
      ...children,
    ),
  );
}

function ways(methods: LoginMethods, again: () => void): Child[] {
  const onlyLink = !methods.password && methods.issuer === null;
  const links = methods.links !== false;
  return [
    methods.password ? passwordForm(again) : null,
    methods.password && methods.issuer !== null ? h('p', { class: 'or' }, 'or') : null,
    methods.issuer === null ? null : issuerLink(methods.issuer, !methods.password),
    onlyLink ? linkHint() : !links ? null : h('details', { class: 'other-way' }, h('summary', {}, 'Log in from the command line'), linkHint()),
  ];
}

function linkHint(): HTMLElement {
  return h(
    'div',
    { class: 'link-hint' },
    h('p', {}, 'On the machine that runs AgentAPI, or wherever the command has your key, run'),
    h('pre', { class: 'command' }, 'agentapi open'),
    h('p', {}, 'and open the link it prints. It logs this browser in once and is good for five minutes.'),
  );
}

function issuerLink(issuer: string, isPrimary: boolean): HTMLElement {
  // A link and no request: the answer leads to the issuer's own page.
  return h(
    'a',
    { class: isPrimary ? 'button primary tall' : 'button tall', href: ISSUER_LOGIN_URL, onclick: keepPlace, testid: 'login-issuer' },
    h('span', { class: 'clip' }, `Continue with ${hostOf(issuer)}`),
  );
}

function hostOf(issuer: string): string {
  return URL.canParse(issuer) ? new URL(issuer).host : issuer;
}

function passwordForm(again: () => void): HTMLElement {
  const fields = new Fields();
  const email = textInput('login-email', { type: 'email', autocomplete: 'username', required: true });
  const password = textInput('login-password', { type: 'password', autocomplete: 'current-password', required: true });
  const button = h('button', { class: 'button primary tall', testid: 'login-submit' }, 'Log in');
  const form = h(
    'form',
    { class: 'form bare', novalidate: true, testid: 'login-form' },
    fields.field('email', 'E-mail', email),
    fields.field('password', 'Password', password),
    fields.general,
    button,
  );
  onSubmit(form, button, fields, async () => {
    try {
      // Without an invitation: whether to accept one is asked afterwards, of whoever that is.
      await api.loginByPassword(email.value.trim(), password.value);
    } catch (error) {
      password.value = '';
      password.focus();
      throw error;
    }
    again();
  });
  return form;
}
