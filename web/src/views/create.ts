// The form for a new session. What the server refuses is shown at the field it names; nothing is checked here that it checks better.

import { api, newKey } from '../api/client.ts';
import type { Store } from '../api/store.ts';
import { CUSTOM_AGENT, type Agent, type CreateSession, type Session } from '../api/types.ts';
import type { WindowSize } from '../terminal/codec.ts';
import { fill, h } from '../ui/dom.ts';
import { openDialog } from '../ui/dialog.ts';
import { Fields, onSubmit, textInput } from '../ui/form.ts';
import { words } from '../ui/format.ts';

export function openCreate(store: Store, size: () => WindowSize | null, created: (session: Session) => void, closed: () => void): void {
  // One key for this form: sending it again after an unclear failure makes no second session.
  const key = newKey();
  const fields = new Fields();
  const agents = h('div', { class: 'agents', role: 'radiogroup', 'aria-label': 'Agent' });
  const command = textInput('create-command', { placeholder: 'bash -l', spellcheck: 'false' });
  const args = textInput('create-args', { placeholder: 'none', spellcheck: 'false' });
  const name = textInput('create-name', { maxlength: 100, placeholder: 'optional' });
  const path = textInput('create-path', { list: 'workspace-roots', placeholder: '/home/me/project', spellcheck: 'false' });
  const env = h('textarea', { id: 'create-env', class: 'input', rows: 3, spellcheck: 'false', placeholder: 'KEY=value, one a line', testid: 'create-env' });
  const roots = h('datalist', { id: 'workspace-roots' });
  const submit = h('button', { class: 'button primary', testid: 'create-submit' }, 'Create session');

  const commandField = fields.field('command', 'Command', command, 'Program and arguments; quotes work as in a shell, nothing is expanded.');
  const argsField = fields.field('args', 'Arguments', args, 'Added after the agent’s own command.');
  const pathField = fields.field('workspace', 'Directory', path);
  const hint = h('p', { class: 'hint' });
  pathField.append(hint);

  const form = h(
    'form',
    { class: 'form', testid: 'create-form', novalidate: true },
    fields.group('agent', 'Agent', agents),
    commandField,
    argsField,
    fields.field('name', 'Name', name),
    h(
      'fieldset',
      {},
      h('legend', {}, 'Workspace'),
      h('div', { class: 'segmented' }, radio('workspace', 'empty', 'New empty directory', true), radio('workspace', 'path', 'Existing directory', false)),
    ),
    pathField,
    h('details', {}, h('summary', {}, 'Environment variables'), fields.field('env', 'Variables', env, 'Write-only: their values are never shown again.')),
    fields.general,
    h('footer', { class: 'dialog-foot' }, submit),
  );
  const dialog = openDialog('New session', 'create-dialog', form, roots);

  const value = (group: string) => form.querySelector<HTMLInputElement>(`input[name="${group}"]:checked`)?.value ?? '';
  const sync = () => {
    commandField.hidden = value('agent') !== CUSTOM_AGENT;
    argsField.hidden = value('agent') === CUSTOM_AGENT;
    pathField.hidden = value('workspace') !== 'path';
  };
  const renderAgents = () => {
    const chosen = value('agent') || firstInstalled(store.agents);
    fill(agents, ...store.agents.map((agent) => agentChoice(agent, chosen, store.hosts.size > 0)), customChoice(chosen));
    const all = [...new Set([...store.hosts.values()].flatMap((host) => host.facts?.workspace_roots ?? []))];
    fill(roots, ...all.map((root) => h('option', { value: root })));
    hint.textContent = all.length > 0 ? `Below ${all.join(' or ')}.` : '';
    if (path.value === '' && all[0]) path.value = all[0];
    sync();
  };
  renderAgents();
  const unsubscribe = store.subscribe(renderAgents);
  dialog.element.addEventListener('close', () => {
    unsubscribe();
    closed();
  });
  form.addEventListener('change', sync);
  (form.querySelector('input:checked') as HTMLElement | null)?.focus();

  onSubmit(form, submit, fields, async () => {
    const body = read(value('agent'), command.value, args.value, name.value, value('workspace') === 'path' ? path.value : null, env.value, size());
    const session = await api.create(body, key);
    dialog.close();
    created(session);
  });
}

function read(agent: string, command: string, args: string, name: string, path: string | null, env: string, size: WindowSize | null): CreateSession {
  const body: CreateSession = { agent };
  if (agent === CUSTOM_AGENT) body.command = words(command.trim() === '' ? 'bash -l' : command);
  else if (args.trim() !== '') body.args = words(args);
  if (name.trim() !== '') body.name = name.trim();
  if (path !== null) body.workspace = { source: 'path', path: path.trim() };
  if (env.trim() !== '') body.env = readEnv(env);
  if (size) body.size = size;
  return body;
}

/** `KEY=value` lines; the value is taken as it is, so that no secret has to be quoted. */
function readEnv(text: string): Record<string, string> {
  const env: Record<string, string> = {};
  for (const line of text.split('\n')) {
    if (line.trim() === '') continue;
    const at = line.indexOf('=');
    // Not the line itself: it may hold half a secret.
    if (at < 1) throw new Error('Every line of the environment is KEY=value.');
    env[line.slice(0, at).trim()] = line.slice(at + 1);
  }
  return env;
}

function firstInstalled(agents: readonly Agent[]): string {
  return agents.find((agent) => agent.installed_on.length > 0)?.name ?? CUSTOM_AGENT;
}

function agentChoice(agent: Agent, chosen: string, hostsKnown: boolean): HTMLElement {
  const version = agent.installed_on[0]?.version;
  const installed = agent.installed_on.length > 0;
  const status = installed ? (version ?? 'installed') : 'not installed';
  return h(
    'label',
    { class: installed ? 'agent' : 'agent missing', testid: `agent-${agent.name}` },
    h('input', { type: 'radio', name: 'agent', value: agent.name, checked: agent.name === chosen, disabled: !installed && hostsKnown }),
    h('span', { class: 'agent-title' }, agent.title),
    h('span', { class: 'agent-status' }, status),
    !installed && agent.install ? h('code', { class: 'agent-install' }, agent.install) : null,
  );
}

function customChoice(chosen: string): HTMLElement {
  return h(
    'label',
    { class: 'agent', testid: 'agent-custom' },
    h('input', { type: 'radio', name: 'agent', value: CUSTOM_AGENT, checked: chosen === CUSTOM_AGENT }),
    h('span', { class: 'agent-title' }, 'Custom command'),
    h('span', { class: 'agent-status' }, 'any program'),
  );
}

function radio(name: string, value: string, label: string, checked: boolean): HTMLElement {
  return h('label', {}, h('input', { type: 'radio', name, value, checked, testid: `${name}-${value}` }), label);
}
