// A login link in a browser that is logged in. Whoever sent it may have made it for an account of their own, to have what is typed here in
// theirs: so it is used on request, and never by opening it alone.

import { api, sentence } from '../api/client.ts';
import { h, setText, show } from '../ui/dom.ts';
import { card } from './login.ts';

/** `name`: of whoever is logged in, if the server tells it. `done` is called when the link is out of the way. */
export function otherLoginView(name: string | null, code: string, done: () => void): HTMLElement {
  const problem = h('p', { class: 'notice error', role: 'alert', hidden: true, testid: 'other-login-problem' });
  const stay = h('button', { type: 'button', class: 'button primary tall', testid: 'other-login-stay', onclick: done }, 'Stay');
  const use = h('button', { type: 'button', class: 'button tall', testid: 'other-login-use' }, 'Use the link');
  use.addEventListener('click', () => {
    use.disabled = true;
    api.login(code).then(done, (error: unknown) => {
      // A link that was used before is no reason to shut out a browser that is logged in.
      setText(problem, sentence(error));
      show(problem, true);
    });
  });
  return card(
    'other-login',
    'You are logged in already',
    name === null ? h('p', {}, 'You are logged in.') : h('p', {}, 'You are logged in as ', h('strong', {}, name), '.'),
    h('p', {}, 'This link logs in whoever made it. If that was not you, what you do here afterwards is done in the account of somebody else.'),
    problem,
    stay,
    use,
  );
}
