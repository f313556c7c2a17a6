// Who is in the organisation, and as what.

import { api } from '../../api/client.ts';
import type { Member } from '../../api/organization.ts';
import { Choices } from '../../ui/choices.ts';
import { ask } from '../../ui/dialog.ts';
import { h } from '../../ui/dom.ts';
import { Fetched } from '../../ui/fetched.ts';
import { Fields, openForm } from '../../ui/form.ts';
import { day } from '../../ui/format.ts';
import { actionButton, table, twoLines, type Column } from '../../ui/table.ts';
import { toast } from '../../ui/toast.ts';
import { page, type Ground, type Page } from './page.ts';
import { roleChoices, roleWord } from './roles.ts';

export function nameOf(member: Member): string {
  return member.name ?? member.email ?? member.user_id.slice(0, 8);
}

export function membersPage(ground: Ground): Page {
  const fetched: Fetched<Member[]> = new Fetched(api.members, (members) => [
    table(
      'Members',
      'members',
      columns(ground, () => void fetched.load()),
      members,
      (member) => member.user_id,
    ),
  ]);
  void fetched.load();
  const invite = ground.rights.may('member.manage') ? h('a', { class: 'button', href: '#/invitations', testid: 'to-invitations' }, 'Invite…') : null;
  return { element: page('members-page', 'Members', 'Everybody in this organisation, and what their role lets them do.', invite, fetched.element) };
}

function columns(ground: Ground, reload: () => void): Column<Member>[] {
  const { me, rights } = ground;
  const isMe = (member: Member): boolean => member.user_id === me.user_id;
  return [
    {
      title: 'Name',
      kind: 'wide',
      cell: (member) =>
        twoLines(
          [
            h('span', { class: 'clip' }, nameOf(member)),
            isMe(member) ? h('span', { class: 'chip' }, 'you') : null,
            member.disabled ? h('span', { class: 'chip', 'data-state': 'failed' }, 'shut out') : null,
          ],
          member.email === nameOf(member) ? null : member.email,
        ),
    },
    { title: 'Role', cell: (member) => h('span', { testid: 'member-role' }, roleWord(member.role)) },
    { title: 'Since', cell: (member) => day(member.created_at) },
    {
      title: 'Actions',
      kind: 'actions',
      cell: (member) => [
        rights.managesMember(member.role)
          ? actionButton('Role…', 'member-role-change', () => changeRole(ground, member, reload), `of ${nameOf(member)}`)
          : null,
        isMe(member)
          ? actionButton('Leave…', 'member-leave', () => void leave(ground), me.organization)
          : rights.managesMember(member.role)
            ? actionButton('Remove…', 'member-remove', () => void remove(member, reload), nameOf(member))
            : null,
      ],
    },
  ];
}

function changeRole(ground: Ground, member: Member, reload: () => void): void {
  const fields = new Fields();
  const isMe = member.user_id === ground.me.user_id;
  const roles = new Choices('radio', 'role', 'Role', roleChoices(ground.rights, 'member'), [member.role]);
  openForm(
    { title: `Role of ${nameOf(member)}`, testid: 'role-dialog', submit: 'Give role' },
    fields,
    [
      fields.group('role', 'Role', roles.element),
      h('p', { class: 'hint' }, `Terminals that ${isMe ? 'you have' : 'they have'} open close, and are opened again as what the new role allows.`),
    ],
    async () => {
      if (roles.value === member.role) return;
      await api.setRole(member.user_id, roles.value);
      toast(`${nameOf(member)} is ${roleWord(roles.value)} now.`);
      if (isMe) ground.changed();
      else reload();
    },
  );
}

async function remove(member: Member, reload: () => void): Promise<void> {
  const removed = await ask(
    {
      title: `Remove ${nameOf(member)}?`,
      text:
        'They lose their access at once: what they have open closes, and their keys, logins and enrolment tokens in this organisation ' +
        'are good for nothing. Their sessions stay. An invitation brings them back.',
      confirm: 'Remove',
      danger: true,
    },
    () => api.removeMember(member.user_id),
  );
  if (removed) reload();
}

async function leave(ground: Ground): Promise<void> {
  const left = await ask(
    {
      title: `Leave ${ground.me.organization}?`,
      text: 'You lose your access to it at once, and your keys in it are good for nothing. Your sessions stay with the organisation. Only an invitation brings you back.',
      confirm: 'Leave',
      danger: true,
    },
    () => api.removeMember(ground.me.user_id),
  );
  if (left) ground.changed();
}
