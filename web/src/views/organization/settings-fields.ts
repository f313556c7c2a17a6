// The settings of an organisation, one entry each: what it is called, what it means, and how it is edited. To add one, add an entry; the page
// shows it, sends it, and puts what the server says of `settings.NAME` beside it.

import { CUSTOM_AGENT, type Agent } from '../../api/types.ts';
import type { OrganizationSettings } from '../../api/organization.ts';
import { h } from '../../ui/dom.ts';
import { select, textInput } from '../../ui/form.ts';
import { sandbox, someOf } from './settings-sandbox.ts';

export interface Editor<T> {
  element: HTMLElement;
  /** What gets the focus; its id is the label's. `null`: several controls, with a legend. */
  control: HTMLElement | null;
  /** `undefined`: without a limit. */
  read(): T | undefined;
}

/** What editors stand on. */
export interface Known {
  agents: readonly Agent[];
  /** Profiles of the hosts that there are. */
  profiles: readonly { value: string; title: string }[];
  /** Whoever may not change anything sees the same, and cannot. */
  isLocked: boolean;
}

type Name = keyof OrganizationSettings;

export interface Setting<N extends Name = Name> {
  name: N;
  title: string;
  text: string;
  edit(value: OrganizationSettings[N], known: Known): Editor<NonNullable<OrganizationSettings[N]>>;
}

const setting = <N extends Name>(made: Setting<N>): Setting => made as unknown as Setting;

export const SETTINGS: readonly Setting[] = [
  setting({
    name: 'session_idle_seconds_max',
    title: 'Stop sessions that nobody uses',
    text: 'After so long without being watched, typed into or changed, whatever its agent does meanwhile.',
    edit: (value, known) => duration('session-idle', value, known),
  }),
  setting({
    name: 'session_age_seconds_max',
    title: 'Stop sessions after',
    text: 'So long after it was started, whatever it does.',
    edit: (value, known) => duration('session-age', value, known),
  }),
  setting({
    name: 'session_retention_days',
    title: 'Purge ended sessions after',
    text: 'With their output and their files.',
    edit: (value, known) => days('session-retention', value, known),
  }),
  setting({
    name: 'agents',
    title: 'Agents',
    text: 'Only these may be started. “Custom command” is any program.',
    edit: agents,
  }),
  setting({
    name: 'sandbox',
    title: 'Sandboxes',
    text: 'The most that a session may ask for, of what its host gives. It holds for what is started from then on.',
    edit: sandbox,
  }),
];

const UNITS = [
  ['60', 'minutes'],
  ['3600', 'hours'],
  ['86400', 'days'],
] as const;

/** The largest unit of which it is a whole number. */
function unitOf(seconds: number): string {
  return [...UNITS].reverse().find(([unit]) => seconds % Number(unit) === 0)?.[0] ?? '1';
}

function duration(id: string, value: number | undefined, known: Known): Editor<number> {
  const unit = value === undefined ? '3600' : unitOf(value);
  const units = unit === '1' ? ([['1', 'seconds'], ...UNITS] as const) : UNITS;
  const number = numberInput(id, value === undefined ? undefined : value / Number(unit), known);
  const choice = select(`${id}-unit`, units, unit);
  choice.disabled = known.isLocked;
  choice.setAttribute('aria-label', 'Unit');
  return {
    element: h('div', { class: 'amount' }, number, choice),
    control: number,
    read: () => (number.value.trim() === '' ? undefined : Math.round(Number(number.value) * Number(choice.value))),
  };
}

function days(id: string, value: number | undefined, known: Known): Editor<number> {
  const number = numberInput(id, value, known);
  return {
    element: h('div', { class: 'amount' }, number, h('span', {}, 'days')),
    control: number,
    read: () => (number.value.trim() === '' ? undefined : Math.round(Number(number.value))),
  };
}

function numberInput(id: string, value: number | undefined, known: Known): HTMLInputElement {
  return textInput(id, {
    type: 'number',
    min: 0,
    step: 'any',
    inputmode: 'decimal',
    placeholder: 'no limit',
    value: value === undefined ? '' : String(value),
    disabled: known.isLocked,
  });
}

function agents(value: string[] | undefined, known: Known): Editor<string[]> {
  const names = [...known.agents.map(({ name, title }) => ({ value: name, title })), { value: CUSTOM_AGENT, title: 'Custom command' }];
  return someOf('agents', 'Agents', names, value, known);
}
