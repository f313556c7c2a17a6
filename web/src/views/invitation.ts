// An invitation, for whoever is logged in: accepted on request, and never by opening a link alone.

import { api, ApiError, sentence, type InvitationToken } from '../api/client.ts';
import { go } from '../api/place.ts';
import type { Me } from '../api/types.ts';
import { h, setText, show } from '../ui/dom.ts';
import { dropInvitation } from './arrival.ts';
import { card } from './login.ts';

/** `done` is called when the invitation is out of the way. `me`: nobody yet for whoever is in no organisation. */
export function invitationView(me: Me | null, invited: InvitationToken, done: () => void): HTMLElement {
  const known = me?.memberships.find((membership) => membership.organization_id === invited.organization_id);
  if (known) return memberAlready(known.organization, invited, done);
  const problem = h('p', { class: 'notice error', role: 'alert', hidden: true, testid: 'invitation-problem' });
  const accept = h('button', { type: 'button', class: 'button primary tall', testid: 'invitation-accept' }, 'Accept the invitation');
  const later = h('button', { type: 'button', class: 'button tall', testid: 'invitation-later' }, 'Not now');
  accept.addEventListener('click', () => {
    accept.disabled = true;
    api.acceptInvitation(invited).then(
      () => enter(invited, done),
      (error: unknown) => {
        if (error instanceof ApiError && error.code === 'already_member') return enter(invited, done);
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
  return card(
    'invitation',
    'You are invited to an organisation',
    me === null
      ? h('p', {}, 'You are logged in. Accept, and you are a member of it.')
      : h('p', {}, 'You are logged in as ', h('strong', {}, me.name), '. Accept, and you are a member of it beside those that you are in.'),
    problem,
    accept,
    later,
  );
}

function memberAlready(organization: string, invited: InvitationToken, done: () => void): HTMLElement {
  const open = h('button', { type: 'button', class: 'button primary tall', testid: 'invitation-open', onclick: () => enter(invited, done) }, 'Open it');
  return card('invitation', 'You are a member already', h('p', {}, 'The invitation is to ', h('strong', {}, organization), ', which you are in.'), open);
}

function enter(invited: InvitationToken, done: () => void): void {
  dropInvitation();
  go(invited.organization_id);
  done();
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
