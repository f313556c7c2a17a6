// What someone sees who is not logged in. There is no password: the command line of the machine makes a link, good for one login.

import { h } from '../ui/dom.ts';

export function loginView(problem: string | null): HTMLElement {
  return h(
    'main',
    { class: 'login', testid: 'login' },
    h(
      'div',
      { class: 'card' },
      h('div', { class: 'brand large' }, h('span', { class: 'brand-mark', 'aria-hidden': 'true' }, '❯_'), 'AgentAPI'),
      h('h1', {}, 'You are not logged in'),
      problem ? h('p', { class: 'notice error', role: 'alert', testid: 'login-problem' }, problem) : null,
      h('p', {}, 'On the machine that runs AgentAPI, run'),
      h('pre', { class: 'command' }, 'agentapi open'),
      h('p', {}, 'and open the link it prints. It logs this browser in once and is good for five minutes.'),
    ),
  );
}

/** Takes the code out of the address at once: it must not stay in the history. */
export function takeLoginCode(): string | null {
  const match = /^#code=(.+)$/.exec(location.hash);
  if (!match?.[1]) return null;
  history.replaceState(null, '', location.pathname + location.search);
  return decodeURIComponent(match[1]);
}
