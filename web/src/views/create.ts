// The form for a new session. What the server refuses is shown at the field it names; nothing is checked here that it checks better.

import { api, ApiError, newKey, sentence } from '../api/client.ts';
import type { Store } from '../api/store.ts';
import type { Agent, CreateSession, Session } from '../api/types.ts';
import type { WindowSize } from '../terminal/codec.ts';
import { fill, h } from '../ui/dom.ts';
import { openDialog } from '../ui/dialog.ts';
import { words } from '../ui/format.ts';

const CUSTOM = 'custom';

export function openCreate(store: Store, size: () => WindowSize | null, created: (session: Session) => void, closed: () => void): void {
  // One key for this form: sending it again after an unclear failure makes no second session.
  const key = newKey();
  const errors = new Map<string, HTMLElement>();
  const error = (field: string) => {
    const element = h('p', { class: 'field-error', role: 'alert', testid: `error-${field}` });
    errors.set(field, element);
    return element;
  };
  const agents = h('div', { class: 'agents', role: 'radiogroup', 'aria-label': 'Agent' });
  const command = field('create-command', { placeholder: 'bash -l', spellcheck: 'false' });
  const args = field('create-args', { placeholder: 'none', spellcheck: 'false' });
  const name = field('create-name', { maxlength: 100, placeholder: 'optional' });
  const path = field('create-path', { list: 'workspace-roots', placeholder: '/home/me/project', spellcheck: 'false' });
  const env = h('textarea', { id: 'create-env', class: 'input', rows: 3, spellcheck: 'false', placeholder: 'KEY=value, one a line', testid: 'create-env' });
  const roots = h('datalist', { id: 'workspace-roots' });
  const submit = h('button', { class: 'button primary', testid: 'create-submit' }, 'Create session');
  const general = error('general');

  const commandField = labelled('Command', command, 'Program and arguments; quotes work as in a shell, nothing is expanded.', error('command'));
  const argsField = labelled('Arguments', args, 'Added after the agent’s own command.', error('args'));
  const pathField = labelled('Directory', path, null, error('workspace'));
  const hint = h('p', { class: 'hint' });
  pathField.append(hint);

  const form = h(
    'form',
    { class: 'form', testid: 'create-form', novalidate: true },
    h('fieldset', {}, h('legend', {}, 'Agent'), agents, error('agent')),
    commandField,
    argsField,
    labelled('Name', name, null, error('name')),
    h(
      'fieldset',
      {},
      h('legend', {}, 'Workspace'),
      h('div', { class: 'segmented' }, radio('workspace', 'empty', 'New empty directory', true), radio('workspace', 'path', 'Existing directory', false)),
    ),
    pathField,
    h('details', {}, h('summary', {}, 'Environment variables'), labelled('Variables', env, 'Write-only: their values are never shown again.', error('env'))),
    general,
    h('footer', { class: 'dialog-foot' }, submit),
  );
  const dialog = openDialog('New session', 'create-dialog', form, roots);

  const value = (group: string) => form.querySelector<HTMLInputElement>(`input[name="${group}"]:checked`)?.value ?? '';
  const sync = () => {
    commandField.hidden = value('agent') !== CUSTOM;
    argsField.hidden = value('agent') === CUSTOM;
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

  form.addEventListener('submit', (event) => {
    event.preventDefault();
    for (const element of errors.values()) element.textContent = '';
    let body: CreateSession;
    try {
      body = read(value('agent'), command.value, args.value, name.value, value('workspace') === 'path' ? path.value : null, env.value, size());
    } catch (problem) {
      general.textContent = sentence(problem);
      return;
    }
    submit.disabled = true;
    api.create(body, key).then(
      (session) => {
        dialog.close();
        created(session);
      },
      (problem: unknown) => {
        submit.disabled = false;
        if (!showErrors(problem, errors)) general.textContent = sentence(problem);
      },
    );
  });
}

function read(agent: string, command: string, args: string, name: string, path: string | null, env: string, size: WindowSize | null): CreateSession {
  const body: CreateSession = { agent };
  if (agent === CUSTOM) body.command = words(command.trim() === '' ? 'bash -l' : command);
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

/** Puts each message at its field; false if none of them is on the form. */
function showErrors(problem: unknown, errors: Map<string, HTMLElement>): boolean {
  if (!(problem instanceof ApiError)) return false;
  let shown = false;
  for (const [name, element] of errors) {
    const message = problem.field(name);
    element.textContent = message ?? '';
    shown ||= message !== null;
  }
  return shown;
}

function firstInstalled(agents: readonly Agent[]): string {
  return agents.find((agent) => agent.installed_on.length > 0)?.name ?? CUSTOM;
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
    h('input', { type: 'radio', name: 'agent', value: CUSTOM, checked: chosen === CUSTOM }),
    h('span', { class: 'agent-title' }, 'Custom command'),
    h('span', { class: 'agent-status' }, 'any program'),
  );
}

function field(id: string, attributes: Record<string, string | number>): HTMLInputElement {
  return h('input', { id, class: 'input', type: 'text', autocomplete: 'off', testid: id, ...attributes });
}

function labelled(label: string, input: HTMLElement, hint: string | null, error: HTMLElement): HTMLElement {
  return h('div', { class: 'field' }, h('label', { for: input.id }, label), input, hint ? h('p', { class: 'hint' }, hint) : null, error);
}

function radio(name: string, value: string, label: string, checked: boolean): HTMLElement {
  return h('label', {}, h('input', { type: 'radio', name, value, checked, testid: `${name}-${value}` }), label);
}
