// The two menus beside the list: which organisation one is in, and who one is.

import { api, sentence } from '../api/client.ts';
import type { Rights } from '../api/rights.ts';
import type { Me } from '../api/types.ts';
import { menuButton, type MenuItem } from '../ui/dialog.ts';
import { h, icon } from '../ui/dom.ts';
import { Fields, openForm, textInput } from '../ui/form.ts';
import { toast } from '../ui/toast.ts';
import { roleWord } from './organization/roles.ts';

/** The organisation with a link to its pages, and the way to another one where there is one. */
export function organizationRow(me: Me, rights: Rights, moved: (organization: string) => void): HTMLElement {
  const link = h(
    'a',
    { class: 'place-link', href: '#/organization', testid: 'organization', title: `Members, keys, hosts and settings of ${me.organization}` },
    h('span', { class: 'place-mark', 'aria-hidden': 'true' }, me.organization.slice(0, 1).toUpperCase()),
    h(
      'span',
      { class: 'two-lines' },
      h('span', { class: 'line-head' }, me.organization),
      h('span', { class: 'line-more', testid: 'own-role' }, roleWord(me.role)),
    ),
  );
  const items = (): MenuItem[] => [
    ...me.memberships.map((membership) => ({
      label: membership.organization,
      more: roleWord(membership.role),
      testid: `organization-${membership.organization_id}`,
      checked: membership.organization_id === me.organization_id,
      run: () => membership.organization_id !== me.organization_id && moved(membership.organization_id),
    })),
    ...(rights.may('owner.grant') ? [{ label: 'New organisation…', testid: 'new-organization', run: () => newOrganization(moved) }] : []),
  ];
  const button = h(
    'button',
    { type: 'button', class: 'icon-button', 'aria-label': 'Switch organisation', title: 'Switch organisation', testid: 'organization-menu' },
    icon('swap'),
  );
  const more = me.memberships.length > 1 || rights.may('owner.grant');
  return h('div', { class: 'place' }, link, more ? menuButton(button, items) : null);
}

function newOrganization(moved: (organization: string) => void): void {
  const fields = new Fields();
  const name = textInput('organization-name', { maxlength: 128 });
  openForm(
    { title: 'New organisation', testid: 'organization-dialog', submit: 'Create organisation' },
    fields,
    [fields.field('name', 'Name', name, 'You are its owner. Its sessions, members, keys and hosts are its own; nobody of another organisation sees them.')],
    async () => {
      const made = await api.createOrganization(name.value.trim());
      toast(`${made.name} is there, and you are in it.`);
      moved(made.id);
    },
  );
}

/** Who one is, and the way out. */
export function personMenu(me: Me, loggedOut: () => void): HTMLElement {
  const button = h('button', { type: 'button', class: 'person', testid: 'person', title: `You are ${me.name}` }, h('span', { class: 'who' }, me.name));
  const head = h(
    'div',
    { class: 'menu-head', testid: 'person-head' },
    h('strong', {}, me.name),
    h('span', {}, `${roleWord(me.role)} of ${me.organization}`),
    h('span', {}, `AgentAPI ${me.version}`),
  );
  return menuButton(button, () => [{ label: 'Log out', testid: 'logout', run: () => void leave(loggedOut) }], head);
}

async function leave(loggedOut: () => void): Promise<void> {
  try {
    await api.logout();
  } catch (error) {
    return toast(sentence(error), 'error');
  }
  loggedOut();
}
