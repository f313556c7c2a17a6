// API keys: one's own, or everybody's for owners and admins. A key is shown once, when it is made.

import { api } from '../../api/client.ts';
import type { ApiKey, CreateApiKey, KeyScope, Member } from '../../api/organization.ts';
import { Choices, type Choice } from '../../ui/choices.ts';
import { ask } from '../../ui/dialog.ts';
import { h, type Child } from '../../ui/dom.ts';
import { Fetched, nothing } from '../../ui/fetched.ts';
import { Fields, openForm, select, textInput } from '../../ui/form.ts';
import { ago, ahead, clock, day } from '../../ui/format.ts';
import { showSecret } from '../../ui/secret.ts';
import { actionButton, table, twoLines, type Column } from '../../ui/table.ts';
import { nameOf } from './members.ts';
import { folded, page, type Ground, type Page } from './page.ts';

const DAY_S = 24 * 3600;
const FOR_EVER = '';
const LIFETIMES = [
  [String(30 * DAY_S), '30 days'],
  [String(90 * DAY_S), '90 days'],
  [String(365 * DAY_S), 'a year'],
  [FOR_EVER, 'until it is revoked'],
] as const;

const ALL = 'all';
const SCOPES: readonly Choice[] = [
  { value: ALL, title: 'Everything', text: 'All that you may yourself.' },
  { value: 'read', title: 'Look only', text: 'Reads what you see, and changes nothing.' },
  { value: 'sessions', title: 'Sessions', text: 'Reads, and makes, changes and types into sessions.' },
  { value: 'organization', title: 'Organisation', text: 'Reads, and changes settings, members, keys and hosts.' },
  { value: 'both', title: 'Sessions and organisation', text: 'Both of these, but makes no logins and no keys for more.' },
];

interface Found {
  keys: ApiKey[];
  members: Member[];
}

export function keysPage(ground: Ground): Page {
  const fetch = async (): Promise<Found> => {
    const [keys, members] = await Promise.all([api.apiKeys(), api.members()]);
    return { keys, members };
  };
  const fetched: Fetched<Found> = new Fetched(fetch, (found) => lists(ground, found, () => void fetched.load()));
  void fetched.load();
  const add = h('button', { type: 'button', class: 'button primary', testid: 'new-key', onclick: () => create(() => void fetched.load()) }, 'New key…');
  return {
    element: page('keys-page', 'API keys', 'A key lets a program act in your name in this organisation, as what you are at the time.', add, fetched.element),
  };
}

function lists(ground: Ground, { keys, members }: Found, reload: () => void): Child[] {
  const names = new Map(members.map((member) => [member.user_id, nameOf(member)]));
  const now = Date.now();
  const isLive = (key: ApiKey): boolean => key.revoked_at === null && (key.expires_at === null || Date.parse(key.expires_at) > now);
  const whose = (key: ApiKey): string => (key.user_id === ground.me.user_id ? 'yours' : `of ${names.get(key.user_id) ?? 'somebody who left'}`);
  const name: Column<ApiKey> = {
    title: 'Name',
    kind: 'wide',
    cell: (key) => twoLines(h('span', { class: 'clip' }, key.name), ground.rights.may('api_key.manage') ? whose(key) : null),
  };
  const prefix: Column<ApiKey> = { title: 'Key', cell: (key) => (key.prefix === '' ? '–' : h('code', {}, `${key.prefix}…`)) };
  const scopes: Column<ApiKey> = { title: 'For', cell: (key) => (key.scopes.length === 0 ? 'everything' : key.scopes.join(', ')) };
  const used: Column<ApiKey> = {
    title: 'Last used',
    cell: (key) => h('span', { title: key.last_used_at ? clock(key.last_used_at) : '', testid: 'key-used' }, ago(key.last_used_at, now)),
  };
  const liveColumns: Column<ApiKey>[] = [
    name,
    prefix,
    scopes,
    { title: 'Ends', cell: ({ expires_at }) => (expires_at === null ? 'never' : h('span', { title: clock(expires_at) }, ahead(expires_at, now))) },
    used,
    { title: 'Actions', kind: 'actions', cell: (key) => actionButton('Revoke…', 'key-revoke', () => void revoke(key, reload), key.name) },
  ];
  const pastColumns: Column<ApiKey>[] = [
    name,
    prefix,
    scopes,
    { title: 'Ended', cell: (key) => (key.revoked_at ? `revoked ${day(key.revoked_at)}` : `over ${day(key.expires_at ?? key.created_at)}`) },
    used,
  ];
  const live = keys.filter(isLive);
  const past = keys.filter((key) => !isLive(key));
  return [
    live.length === 0 ? nothing('There are no keys.') : table('API keys', 'keys', liveColumns, live, ({ id }) => id),
    past.length === 0
      ? null
      : folded(
          `${past.length} that ${past.length === 1 ? 'is' : 'are'} over`,
          'keys-past',
          table('Past API keys', 'past-keys', pastColumns, past, ({ id }) => id),
        ),
  ];
}

function create(reload: () => void): void {
  const fields = new Fields();
  const name = textInput('key-name', { maxlength: 128, placeholder: 'ci' });
  const scopes = new Choices('radio', 'scope', 'What it is for', SCOPES, [ALL]);
  const lifetime = select('key-lifetime', LIFETIMES, String(90 * DAY_S));
  const dialog = openForm(
    { title: 'New API key', testid: 'key-dialog', submit: 'Make the key' },
    fields,
    [
      fields.field('name', 'Name', name, 'Two keys may have one name, so that one can take the other’s place.'),
      fields.group('scopes', 'What it is for', scopes.element),
      fields.field('expires_in_seconds', 'Good for', lifetime),
    ],
    async () => {
      const body: CreateApiKey = { name: name.value.trim() };
      if (scopes.value !== ALL) body.scopes = scopesOf(scopes.value);
      if (lifetime.value !== FOR_EVER) body.expires_in_seconds = Number(lifetime.value);
      const made = await api.createApiKey(body);
      reload();
      dialog.close();
      showSecret({
        title: `The key ${made.api_key.name}`,
        testid: 'key-secret',
        text: 'Programs send it as “Authorization: Bearer …”; the agentapi command takes it from AGENTAPI_TOKEN.',
        value: made.key,
        hint:
          made.api_key.expires_at === null ? 'Shown this once. Good until it is revoked.' : `Shown this once. Good until ${clock(made.api_key.expires_at)}.`,
      });
    },
  );
}

function scopesOf(choice: string): KeyScope[] {
  return choice === 'both' ? ['sessions', 'organization'] : [choice as KeyScope];
}

async function revoke(key: ApiKey, reload: () => void): Promise<void> {
  const revoked = await ask(
    {
      title: `Revoke the key ${key.name}?`,
      text: 'Whatever uses it is refused from now on, and what was opened with it closes. Keys, logins and enrolment tokens that were made with it end too.',
      confirm: 'Revoke',
      danger: true,
    },
    () => api.revokeApiKey(key.id),
  );
  if (revoked) reload();
}
