// Roles in words.

import { ROLES, type Role } from '../../api/organization.ts';
import type { Rights } from '../../api/rights.ts';
import type { Choice } from '../../ui/choices.ts';

const WORDS: Record<Role, { word: string; text: string }> = {
  owner: { word: 'owner', text: 'May everything, and makes and unmakes owners.' },
  admin: { word: 'admin', text: 'Manages members, keys, hosts and settings, and every session.' },
  member: { word: 'member', text: 'Starts sessions, and sees and types into those that are shared.' },
  viewer: { word: 'viewer', text: 'Watches sessions that are shared, and changes nothing.' },
  auditor: { word: 'auditor', text: 'Reads the audit trail and the record of every session, but no terminal.' },
  service_account: { word: 'service account', text: 'A program: works as a member does.' },
};

export function roleWord(role: string): string {
  return isRole(role) ? WORDS[role].word : role;
}

/** Those that the caller may give. */
export function roleChoices(rights: Rights, isFor: 'member' | 'invitation'): Choice[] {
  return ROLES.filter((role) => (role !== 'owner' || rights.may('owner.grant')) && (role !== 'service_account' || isFor === 'member')).map((role) => ({
    value: role,
    title: WORDS[role].word.replace(/^./, (letter) => letter.toUpperCase()),
    text: WORDS[role].text,
  }));
}

function isRole(role: string): role is Role {
  return (ROLES as readonly string[]).includes(role);
}
