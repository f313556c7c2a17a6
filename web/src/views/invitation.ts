// An invitation, for whoever is logged in: accepted on request, and never by opening a link or logging in alone. Whoever was invited into an
// organisation of somebody else is not to work there without knowing it: it is named before they accept, and before they go there.

import { api, ApiError, sentence, type InvitationToken } from '../api/client.ts';
import { go } from '../api/place.ts';
import type { Me } from '../api/types.ts';
import { whoAmI } from '../api/who.ts';
import { h, setText, show } from '../ui/dom.ts';
import { dropInvitation } from './arrival.ts';
import { card } from './login.ts';

/** `done` is called when the invitation is out of the way. `me`: nobody yet for whoever is in no organisation. */
export function invitationView(me: Me | null, invited: InvitationToken, done: () => void): HTMLElement {
  const known = me && memberView(me, 'You are a member already', invited, done);
  if (known) return known;
  const problem = h('p', { class: 'notice error', role: 'alert', hidden: true, testid: 'invitation-problem' });
  const accept = h('button', { type: 'button', class: 'button primary tall', testid: 'invitation-accept' }, 'Accept the invitation');
  const later = h('button', { type: 'button', class: 'button tall', testid: 'invitation-later' }, 'Not now');
  const accepted = async (): Promise<void> => {
    dropInvitation();
    const joined = await whoAmI();
    const next = memberView(joined, 'You are a member now', invited, done);
    if (next) view.replaceWith(next);
    else done();
  };
  accept.addEventListener('click', () => {
    accept.disabled = true;
    api.acceptInvitation(invited).then(
      () => void accepted().catch(done),
      (error: unknown) => {
        if (error instanceof ApiError && error.code === 'already_member') return void accepted().catch(done);
        accept.disabled = false;
        setText(problem, why(error));
        show(problem, true);
      },
    );
  });
  later.addEventListener('click', () => {
    dropInvitation();
    done();
  });
  const where = h('p', { hidden: true, testid: 'invitation-where' });
  api.lookUpInvitation(invited).then(
    ({ organization, role }) => {
      where.append('The invitation is to ', h('strong', {}, organization), '; your role there will be ', h('strong', {}, role), '.');
      show(where, true);
    },
    (error: unknown) => {
      setText(problem, why(error));
      show(problem, true);
    },
  );
  const view = card(
    'invitation',
    'You are invited to an organisation',
    where,
    me === null
      ? h('p', {}, 'You are logged in. Accept, and you are a member of it.')
      : h('p', {}, 'You are logged in as ', h('strong', {}, me.name), '. Accept, and you are a member of it beside those that you are in.'),
    problem,
    accept,
    later,
  );
  return view;
}

/** Where a member is, and the way to the organisation that invited; null if they are not in it. */
function memberView(me: Me, title: string, invited: InvitationToken, done: () => void): HTMLElement | null {
  const found = me.memberships.find((membership) => membership.organization_id === invited.organization_id);
  if (!found) return null;
  const leave = (organization: string | null): void => {
    dropInvitation();
    if (organization !== null) go(organization);
    done();
  };
  const open = { type: 'button', class: 'button primary tall', testid: 'invitation-open', onclick: () => leave(found.organization_id) };
  const stay = { type: 'button', class: 'button tall', testid: 'invitation-stay', onclick: () => leave(null) };
  const isThere = me.organization_id === found.organization_id;
  return card(
    'invitation',
    title,
    h('p', {}, 'The invitation is to ', h('strong', {}, found.organization), '; your role there is ', h('strong', {}, found.role), '.'),
    isThere ? null : h('p', {}, 'You are still in ', h('strong', {}, me.organization), '.'),
    h('button', open, h('span', { class: 'clip' }, isThere ? `Open ${found.organization}` : `Go to ${found.organization}`)),
    isThere ? null : h('button', stay, h('span', { class: 'clip' }, `Stay in ${me.organization}`)),
  );
}

/** Unknown, over, used and meant for somebody else look the same to the server's caller; here stands what it can be. */
function why(error: unknown): string {
  if (error instanceof ApiError && error.code === 'invitation_not_found') {
    return (
      'This invitation is not good for you: it is for another address than the one you have confirmed, or it was used, taken back, or is over. ' +
      'Ask for a new one, or log in with the address that it was sent to.'
    );
  }
  return sentence(error);
}
