// The machines that sessions run on: the organisation's own, and those that serve everybody. The event stream keeps the list current.

import { api } from '../../api/client.ts';
import type { Host } from '../../api/types.ts';
import { ask } from '../../ui/dialog.ts';
import { fill, h, type Child } from '../../ui/dom.ts';
import { failure, nothing } from '../../ui/fetched.ts';
import { Fields, openForm, textInput } from '../../ui/form.ts';
import { ago, bytes, clock } from '../../ui/format.ts';
import { showSecret } from '../../ui/secret.ts';
import { actionButton, table, twoLines, type Column } from '../../ui/table.ts';
import { page, type Ground, type Page } from './page.ts';

export function hostsPage(ground: Ground): Page {
  const { rights, store } = ground;
  const list = h('div', { class: 'fetched' });
  const render = () => fill(list, ...rows(ground));
  const add = rights.may('host.manage')
    ? h('button', { type: 'button', class: 'button primary', testid: 'enrol', onclick: () => enrol(ground) }, 'Enrol a host…')
    : null;
  render();
  return {
    element: page(
      'hosts-page',
      'Hosts',
      'The machines that sessions run on. One that you enrol runs the sessions of this organisation and of no other.',
      add,
      list,
    ),
    dispose: store.subscribe(render),
  };
}

function rows(ground: Ground): Child[] {
  const { store } = ground;
  if (!store.loaded)
    return [
      store.loadError === null ? h('p', { class: 'loading', role: 'status' }, 'Loading…') : failure(new Error(store.loadError), () => void store.refresh()),
    ];
  const hosts = [...store.hosts.values()].sort((a, b) => titleOf(a).localeCompare(titleOf(b)));
  if (hosts.length === 0) return [nothing('There are no hosts: nothing can run yet.')];
  return [table('Hosts', 'hosts', columns(ground), hosts, (host) => host.id)];
}

function titleOf(host: Host): string {
  return host.name ?? host.facts?.hostname ?? host.id.slice(0, 8);
}

function columns(ground: Ground): Column<Host>[] {
  const all: Column<Host>[] = [
    {
      title: 'Name',
      kind: 'wide',
      cell: (host) =>
        twoLines(
          [
            h('span', { class: 'clip' }, titleOf(host)),
            host.shared ? h('span', { class: 'chip', title: 'It is the platform’s, and serves every organisation.' }, 'shared') : null,
          ],
          machine(host),
        ),
    },
    { title: 'State', cell: state },
    { title: 'Sessions', kind: 'number', cell: (host) => String(host.sessions_running) },
    { title: 'Isolation', cell: posture },
    { title: 'Version', cell: (host) => version(host, ground.me.version) },
  ];
  if (!ground.rights.may('host.manage')) return all;
  const revokable = (host: Host): Child => (host.shared ? null : actionButton('Revoke…', 'host-revoke', () => void revoke(ground, host), titleOf(host)));
  return [...all, { title: 'Actions', kind: 'actions', cell: revokable }];
}

function machine({ facts }: Host): string | null {
  if (facts === null) return null;
  return `${facts.hostname} · Linux ${facts.kernel} · ${facts.arch} · ${facts.cpus} CPUs · ${bytes(facts.memory_bytes)}`;
}

function state(host: Host): Child {
  if (host.connected) return h('span', { class: 'chip', 'data-state': 'running', testid: 'host-state' }, 'connected');
  if (host.last_seen_at === null) return h('span', { class: 'chip', testid: 'host-state' }, 'never seen');
  return h(
    'span',
    { class: 'chip', 'data-state': 'unreachable', title: `Last heard of ${clock(host.last_seen_at)}`, testid: 'host-state' },
    `gone, seen ${ago(host.last_seen_at, Date.now())}`,
  );
}

/** What is missing of the isolation stands there in words. */
function posture({ facts }: Host): Child[] {
  if (facts === null) return ['unknown'];
  const bad = facts.isolation === 'none' || facts.degraded.length > 0;
  return [
    h(
      'span',
      {
        class: 'chip',
        'data-degraded': String(bad),
        title: facts.isolation === 'none' ? 'Sessions are not isolated here.' : `Sessions are isolated with what ${facts.isolation} may.`,
      },
      facts.isolation,
    ),
    facts.degraded.length === 0 ? null : h('span', { class: 'hint' }, `lacks ${facts.degraded.join(', ')}`),
  ];
}

function version(host: Host, own: string): Child {
  if (host.version === null || host.version === own) return host.version ?? 'unknown';
  return h('span', { class: 'chip', 'data-degraded': 'true', title: `The control plane is ${own}.` }, host.version);
}

function enrol(ground: Ground): void {
  const fields = new Fields();
  const name = textInput('host-name', { maxlength: 128, placeholder: 'worker-7' });
  const dialog = openForm(
    { title: 'Enrol a host', testid: 'enrol-dialog', submit: 'Make the command' },
    fields,
    [fields.field('name', 'Name', name, `What it is called in ${ground.me.organization}.`)],
    async () => {
      const wanted = name.value.trim();
      const made = await api.enrolHost(wanted);
      dialog.close();
      showSecret({
        title: `Make ${wanted} a host`,
        testid: 'enrolment',
        text: 'Run this on the machine, as whoever is to run its supervisor. The first command gets it a credential, the second is the supervisor.',
        value: commandLine(made.token),
        hint: `Shown this once. Good once, until ${clock(made.expires_at)}. The token stands in no process list.`,
      });
    },
  );
}

/** The token is in base64url: nothing in it means anything to a shell. */
function commandLine(token: string): string {
  return [
    `printf %s '${token}' |`,
    '  agentapi-supervisor enrol \\',
    `    --url ${location.origin} \\`,
    '    --token-file /dev/stdin \\',
    '    --credential-file host-credential.json',
    'agentapi-supervisor run --credential-file host-credential.json',
  ].join('\n');
}

async function revoke({ store }: Ground, host: Host): Promise<void> {
  const running =
    host.sessions_running === 0
      ? ''
      : ` ${host.sessions_running} of its sessions run: they cannot be reached any more, and go on there until the machine’s supervisor is stopped.`;
  const revoked = await ask(
    {
      title: `Revoke ${titleOf(host)}?`,
      text: `Its link closes, and its credential is good for nothing.${running} To come back it has to be enrolled again.`,
      confirm: 'Revoke',
      danger: true,
    },
    () => api.revokeHost(host.id),
  );
  if (revoked) store.forgetHost(host.id);
}
