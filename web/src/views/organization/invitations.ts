// Who was asked in. The link of an invitation is shown once, when it is made.

import { api } from '../../api/client.ts';
import type { Invitation, Member } from '../../api/organization.ts';
import { Choices } from '../../ui/choices.ts';
import { ask } from '../../ui/dialog.ts';
import { h, type Child } from '../../ui/dom.ts';
import { Fetched, nothing } from '../../ui/fetched.ts';
import { Fields, openForm, select, textInput } from '../../ui/form.ts';
import { ahead, clock, day } from '../../ui/format.ts';
import { showSecret } from '../../ui/secret.ts';
import { actionButton, table, twoLines, type Column } from '../../ui/table.ts';
import { nameOf } from './members.ts';
import { folded, page, type Ground, type Page } from './page.ts';
import { roleChoices, roleWord } from './roles.ts';

const DAY_S = 24 * 3600;
const LIFETIMES = [
  [String(DAY_S), 'a day'],
  [String(7 * DAY_S), 'a week'],
  [String(30 * DAY_S), '30 days'],
] as const;

interface Found {
  invitations: Invitation[];
  members: Member[];
}

export function invitationsPage(ground: Ground): Page {
  const fetch = async (): Promise<Found> => {
    const [invitations, members] = await Promise.all([api.invitations(), api.members()]);
    return { invitations, members };
  };
  const fetched: Fetched<Found> = new Fetched(fetch, (found) => lists(found, () => void fetched.load()));
  void fetched.load();
  const add = h('button', { type: 'button', class: 'button primary', testid: 'invite', onclick: () => invite(ground, () => void fetched.load()) }, 'Invite…');
  return {
    element: page(
      'invitations-page',
      'Invitations',
      'An invitation is for one mail address: only whoever has shown that it is theirs can accept.',
      add,
      fetched.element,
    ),
  };
}

function lists({ invitations, members }: Found, reload: () => void): Child[] {
  const names = new Map(members.map((member) => [member.user_id, nameOf(member)]));
  const by = (invitation: Invitation): string => names.get(invitation.created_by) ?? 'somebody who left';
  const open = invitations.filter(({ state }) => state === 'open');
  const past = invitations.filter(({ state }) => state !== 'open');
  const whom: Column<Invitation> = {
    title: 'For',
    kind: 'wide',
    cell: (invitation) => twoLines(h('span', { class: 'clip' }, invitation.email), `invited by ${by(invitation)}`),
  };
  const role: Column<Invitation> = { title: 'Role', cell: (invitation) => roleWord(invitation.role) };
  const openColumns: Column<Invitation>[] = [
    whom,
    role,
    { title: 'Ends', cell: ({ expires_at }) => h('span', { title: clock(expires_at) }, ahead(expires_at, Date.now())) },
    {
      title: 'Actions',
      kind: 'actions',
      cell: (invitation) => actionButton('Revoke…', 'invitation-revoke', () => void revoke(invitation, reload), `the invitation of ${invitation.email}`),
    },
  ];
  const pastColumns: Column<Invitation>[] = [
    whom,
    role,
    { title: 'Became', cell: ({ state }) => h('span', { class: 'chip', testid: 'invitation-state' }, state) },
    { title: 'Made', cell: ({ created_at }) => day(created_at) },
  ];
  return [
    open.length === 0 ? nothing('No invitation is open.') : table('Open invitations', 'invitations', openColumns, open, ({ id }) => id),
    past.length === 0
      ? null
      : folded(
          `${past.length} that ${past.length === 1 ? 'is' : 'are'} over`,
          'invitations-past',
          table('Past invitations', 'past-invitations', pastColumns, past, ({ id }) => id),
        ),
  ];
}

function invite(ground: Ground, reload: () => void): void {
  const fields = new Fields();
  const email = textInput('invite-email', { type: 'email', placeholder: 'ada@example.com', maxlength: 320 });
  const roles = new Choices('radio', 'role', 'Role', roleChoices(ground.rights, 'invitation'), ['member']);
  const lifetime = select('invite-lifetime', LIFETIMES, String(7 * DAY_S));
  const dialog = openForm(
    { title: 'Invite somebody', testid: 'invite-dialog', submit: 'Make the link' },
    fields,
    [fields.field('email', 'Mail address', email), fields.group('role', 'Role', roles.element), fields.field('expires_in_seconds', 'Good for', lifetime)],
    async () => {
      const made = await api.invite({ email: email.value.trim(), role: roles.value, expires_in_seconds: Number(lifetime.value) });
      reload();
      dialog.close();
      showSecret({
        title: 'The invitation’s link',
        testid: 'invitation-link',
        text: `Send it to ${made.invitation.email}. It makes them ${roleWord(made.invitation.role)} of ${ground.me.organization}.`,
        value: made.url,
        hint: `Shown this once. Good until ${clock(made.invitation.expires_at)}, for one acceptance, for this address alone.`,
      });
    },
  );
}

async function revoke(invitation: Invitation, reload: () => void): Promise<void> {
  const revoked = await ask(
    {
      title: `Revoke the invitation of ${invitation.email}?`,
      text: 'Its link is good for nothing from now on. You can make another one.',
      confirm: 'Revoke',
      danger: true,
    },
    () => api.revokeInvitation(invitation.id),
  );
  if (revoked) reload();
}
