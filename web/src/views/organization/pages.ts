// The pages of an organisation under one row of tabs, each at an address of its own. A page that one's role has nothing on is not there.

import type { Rights } from '../../api/rights.ts';
import { fill, h, icon } from '../../ui/dom.ts';
import { auditPage } from './audit.ts';
import { hostsPage } from './hosts.ts';
import { invitationsPage } from './invitations.ts';
import { keysPage } from './keys.ts';
import { membersPage } from './members.ts';
import type { Ground, Page } from './page.ts';
import { settingsPage } from './settings.ts';

interface Entry {
  name: string;
  title: string;
  isFor(rights: Rights): boolean;
  open(ground: Ground, query: URLSearchParams): Page;
}

const everybody = () => true;

const PAGES: readonly Entry[] = [
  { name: 'members', title: 'Members', isFor: everybody, open: membersPage },
  { name: 'invitations', title: 'Invitations', isFor: (rights) => rights.may('member.manage'), open: invitationsPage },
  { name: 'keys', title: 'API keys', isFor: (rights) => rights.may('api_key.create') || rights.may('api_key.manage'), open: keysPage },
  { name: 'hosts', title: 'Hosts', isFor: everybody, open: hostsPage },
  { name: 'settings', title: 'Settings', isFor: everybody, open: settingsPage },
  { name: 'audit', title: 'Audit', isFor: (rights) => rights.may('audit.read'), open: auditPage },
];

/** `#/organization` is whichever comes first. */
export function organizationRoute(hash: string, rights: Rights): string | null {
  if (hash === '#/organization') return 'members';
  const name = /^#\/([a-z]+)(\?.*)?$/.exec(hash)?.[1];
  return PAGES.find((page) => page.name === name && page.isFor(rights))?.name ?? null;
}

export class OrganizationPages {
  readonly element: HTMLElement;
  private readonly ground: Ground;
  private readonly body = h('div', { class: 'org-body' });
  private readonly tabs: Map<string, HTMLElement>;
  private current: { name: string; page: Page } | null = null;

  constructor(ground: Ground) {
    this.ground = ground;
    const shown = PAGES.filter((page) => page.isFor(ground.rights));
    this.tabs = new Map(shown.map(({ name, title }) => [name, h('a', { class: 'tab', href: `#/${name}`, testid: `tab-${name}` }, title)]));
    this.element = h(
      'main',
      { class: 'organization', testid: 'organization-pages' },
      h(
        'header',
        { class: 'org-head' },
        h('a', { class: 'icon-button back', href: '#/', 'aria-label': 'All sessions', title: 'All sessions' }, icon('back')),
        h('nav', { class: 'tabs', 'aria-label': ground.me.organization }, ...this.tabs.values()),
      ),
      this.body,
    );
  }

  show(name: string, hash: string): void {
    const query = new URLSearchParams(hash.split('?')[1] ?? '');
    if (this.current?.name === name && this.current.page.moved) return this.current.page.moved(query);
    this.dispose();
    for (const [of, tab] of this.tabs) {
      if (of === name) tab.setAttribute('aria-current', 'page');
      else tab.removeAttribute('aria-current');
    }
    this.tabs.get(name)?.scrollIntoView({ block: 'nearest', inline: 'nearest' });
    const entry = PAGES.find((page) => page.name === name);
    if (!entry) return;
    document.title = `${entry.title} · ${this.ground.me.organization} · AgentAPI`;
    const page = entry.open(this.ground, query);
    this.current = { name, page };
    fill(this.body, page.element);
    this.body.scrollTop = 0;
  }

  dispose(): void {
    this.current?.page.dispose?.();
    this.current = null;
  }
}
