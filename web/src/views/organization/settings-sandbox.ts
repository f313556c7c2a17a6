// What an organisation allows of its sessions' sandboxes, as one setting of several controls. It only ever narrows what hosts give.

import type { SandboxPolicy } from '../../api/organization.ts';
import type { Limits } from '../../api/types.ts';
import { Choices } from '../../ui/choices.ts';
import { h, show } from '../../ui/dom.ts';
import { select, textInput } from '../../ui/form.ts';
import type { Editor, Known } from './settings-fields.ts';

const ANY = '';
const NETWORKS = [
  [ANY, 'what the host gives'],
  ['filtered', 'filtered, or none'],
  ['off', 'none'],
] as const;
const MOUNTS = [
  [ANY, 'what the host gives'],
  ['read_only', 'to read only'],
  ['none', 'none'],
] as const;

const MIB = 1_048_576;
/** `factor`: so much of the API's unit is one of the page's. */
const LIMITS: readonly { name: keyof Limits; label: string; unit: string; factor: number }[] = [
  { name: 'memory_bytes', label: 'Memory', unit: 'MiB', factor: MIB },
  { name: 'cpu_percent', label: 'Processors', unit: 'CPUs', factor: 100 },
  { name: 'pids', label: 'Processes', unit: '', factor: 1 },
  { name: 'disk_bytes', label: 'Disk', unit: 'MiB', factor: MIB },
  { name: 'io_bytes_per_second', label: 'Disk traffic', unit: 'MiB/s', factor: MIB },
];

export function sandbox(value: SandboxPolicy | undefined, known: Known): Editor<SandboxPolicy> {
  const profiles = someOf('profiles', 'Profiles', known.profiles, value?.profiles, known);
  const network = choice('sandbox-network', NETWORKS, value?.network, known);
  const mounts = choice('sandbox-mounts', MOUNTS, value?.mounts, known);
  const limits = LIMITS.map((limit) => {
    const before = value?.limits?.[limit.name];
    const shown = before === undefined ? '' : String(before / limit.factor);
    const input = textInput(`limit-${limit.name}`, { type: 'number', min: 0, step: 'any', inputmode: 'decimal', placeholder: 'no limit', value: shown });
    input.disabled = known.isLocked;
    return { limit, input };
  });
  const row = (label: string, control: HTMLElement, unit: string | null): HTMLElement =>
    h(
      'div',
      { class: 'setting-row' },
      h('label', { for: control.id }, label),
      h('div', { class: 'amount' }, control, unit === null ? null : h('span', {}, unit)),
    );
  const element = h(
    'div',
    { class: 'stack' },
    profiles.element,
    row('Network', network, null),
    row('Directories of the host', mounts, null),
    ...limits.map(({ limit, input }) => row(limit.label, input, limit.unit)),
  );
  return {
    element,
    control: null,
    read() {
      const policy: SandboxPolicy = {};
      const chosen = profiles.read();
      if (chosen !== undefined) policy.profiles = chosen;
      if (network.value !== ANY) policy.network = network.value;
      if (mounts.value !== ANY) policy.mounts = mounts.value;
      const wanted = limits.filter(({ input }) => input.value.trim() !== '');
      if (wanted.length > 0) policy.limits = Object.fromEntries(wanted.map(({ limit, input }) => [limit.name, Math.round(Number(input.value) * limit.factor)]));
      return Object.keys(policy).length === 0 ? undefined : policy;
    },
  };
}

/** All, or some of a list. What is allowed and not in the list stays. */
export function someOf(
  name: string,
  label: string,
  list: readonly { value: string; title: string }[],
  value: string[] | undefined,
  known: Known,
): Editor<string[]> {
  const unknown = (value ?? []).filter((one) => !list.some((choice) => choice.value === one)).map((one) => ({ value: one, title: one }));
  const ways = [
    { value: 'all', title: `All ${label.toLowerCase()}` },
    { value: 'some', title: 'Only some' },
  ];
  const every = new Choices('radio', `${name}-every`, `Which ${label.toLowerCase()}`, ways, [value === undefined ? 'all' : 'some']);
  const some = new Choices('checkbox', `${name}-some`, label, [...list, ...unknown], value ?? []);
  every.disable(known.isLocked);
  some.disable(known.isLocked);
  const sync = () => show(some.element, every.value === 'some');
  every.element.addEventListener('change', sync);
  sync();
  return { element: h('div', { class: 'stack' }, every.element, some.element), control: null, read: () => (every.value === 'all' ? undefined : some.values) };
}

/** One that this page does not know, such as the most open one, stays what it is. */
function choice(id: string, options: readonly (readonly [string, string])[], value: string | undefined, known: Known): HTMLSelectElement {
  const all = value === undefined || options.some(([name]) => name === value) ? options : [...options, [value, value] as const];
  const made = select(id, all, value ?? ANY);
  made.disabled = known.isLocked;
  return made;
}
