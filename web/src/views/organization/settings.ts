// The organisation's name, what it wants of its sessions, and how much it may have.

import { api, ApiError } from '../../api/client.ts';
import type { Organization, OrganizationSettings } from '../../api/organization.ts';
import type { Agent, Host } from '../../api/types.ts';
import { h, type Child } from '../../ui/dom.ts';
import { Fetched } from '../../ui/fetched.ts';
import { Fields, onSubmit, textInput } from '../../ui/form.ts';
import { day } from '../../ui/format.ts';
import { toast } from '../../ui/toast.ts';
import { page, type Ground, type Page } from './page.ts';
import { SETTINGS, type Editor } from './settings-fields.ts';

interface Found {
  organization: Organization;
  agents: Agent[];
  hosts: Host[];
}

export function settingsPage(ground: Ground): Page {
  const fetch = async (): Promise<Found> => {
    const [organization, agents, hosts] = await Promise.all([api.organization(ground.me.organization_id), api.agents(), api.hosts()]);
    return { organization, agents, hosts };
  };
  const fetched: Fetched<Found> = new Fetched(fetch, (found) => [settingsForm(ground, found, () => void fetched.load()), facts(found.organization)]);
  void fetched.load();
  const text = ground.rights.may('organization.manage')
    ? 'They hold for every session of this organisation, also for those that run.'
    : 'Owners and admins change them.';
  return { element: page('settings-page', 'Settings', text, null, fetched.element) };
}

function settingsForm(ground: Ground, { organization, agents, hosts }: Found, reload: () => void): HTMLElement {
  const isLocked = !ground.rights.may('organization.manage');
  const fields = new Fields();
  const name = textInput('settings-name', { value: organization.name, maxlength: 128, disabled: isLocked });
  const editors = new Map<keyof OrganizationSettings, Editor<unknown>>();
  const rows: Child[] = SETTINGS.map((setting) => {
    const editor = setting.edit(organization.settings[setting.name], { agents, profiles: profilesOf(hosts), isLocked });
    editors.set(setting.name, editor);
    const of = `settings.${setting.name}`;
    if (editor.control === null) return fields.group(of, setting.title, h('p', { class: 'hint' }, setting.text), editor.element);
    return fields.field(of, setting.title, editor.control, setting.text, editor.element);
  });
  const save = h('button', { class: 'button primary', testid: 'settings-save' }, 'Save');
  const newer = h('button', { type: 'button', class: 'button', hidden: true, testid: 'settings-reload', onclick: reload }, 'Show what there is now');
  const foot = isLocked ? null : h('footer', { class: 'form-foot' }, save, newer);
  const form = h(
    'form',
    { class: 'form bare settings', novalidate: true, testid: 'settings-form' },
    fields.field('name', 'Name', name),
    ...rows,
    fields.general,
    foot,
  );
  onSubmit(form, save, fields, async () => {
    // All of them are set at once: what this release does not know stays as it is.
    const settings: Record<string, unknown> = { ...organization.settings };
    for (const [key, editor] of editors) {
      const value = editor.read();
      if (value === undefined) delete settings[key];
      else settings[key] = value;
    }
    const wanted = name.value.trim();
    const renamed = wanted !== organization.name;
    try {
      await api.updateOrganization(organization.id, {
        ...(renamed ? { name: wanted } : {}),
        settings: settings as OrganizationSettings,
        revision: organization.revision,
      });
    } catch (error) {
      newer.hidden = !(error instanceof ApiError && error.code === 'conflict');
      throw error;
    }
    toast('The settings are saved.');
    if (renamed) ground.changed();
    else reload();
  });
  return form;
}

function profilesOf(hosts: readonly Host[]): { value: string; title: string }[] {
  const names = hosts.flatMap((host) => host.facts?.profiles ?? []);
  return [...new Set(names)].sort().map((name) => ({ value: name, title: name }));
}

/** What is not the organisation's to change. */
function facts({ id, quotas, created_at }: Organization): HTMLElement {
  const limit = (count: number | null | undefined): string => String(count ?? 'no limit');
  const rows: [string, Child][] = [
    ['Sessions at once', limit(quotas.sessions_max)],
    ['Sessions a day', limit(quotas.sessions_per_day_max)],
    ['Terminals at once', limit(quotas.viewers_max)],
    ['Made', day(created_at)],
    ['Id', h('code', {}, id)],
  ];
  return h(
    'section',
    { class: 'facts-section' },
    h('h2', {}, 'Quotas'),
    h('p', { class: 'hint' }, 'The operator of the platform sets them.'),
    h('dl', { class: 'facts', testid: 'quotas' }, ...rows.flatMap(([what, value]) => [h('dt', {}, what), h('dd', {}, value)])),
  );
}
