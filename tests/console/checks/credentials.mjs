// Keys, hosts, settings and the trail of it all: each is made on its page, and then really used by a program.
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { answer, check, eventually, id, request, shot } from '../lib.mjs';
import { rowOf, takeSecret } from './organization.mjs';

/** Runs a command line as the page shows it, with the programs of this build. */
function shell(options, line, cwd) {
  const child = spawn('bash', ['-c', line], { cwd, env: { ...process.env, PATH: `${options.bin}:${process.env.PATH}`, AGENTAPI_SUPERVISOR_STATE_DIR: join(cwd, 'state') }, stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr.on('data', (chunk) => (said = (said + chunk).slice(-4000)));
  return { child, ended: new Promise((resolve) => child.on('exit', (code) => resolve({ code, said }))) };
}

async function chooseTab(page, name) {
  await page.locator(id('organization')).click();
  await page.locator(id(`tab-${name}`)).click();
  await page.locator(id(`${name}-page`)).waitFor();
}

export const checks = {
  async 'a key is made, used for what it is for, and ends'({ ada: page, options, run }) {
    await chooseTab(page, 'keys');
    await page.locator(id('new-key')).click();
    await page.locator(id('form-submit')).click();
    await eventually('a name is asked for', async () => /1 to 128/.test(await page.locator(id('error-name')).innerText()));
    await page.locator(id('key-name')).fill(`ci ${run}`);
    await page.locator(id('scope-read')).check();
    await shot(page, options, 'new-key');
    await page.locator(id('form-submit')).click();
    const key = await takeSecret(page);
    const row = rowOf(page, 'keys', `ci ${run}`);
    check((await row.innerText()).includes(key.slice(0, 8)), 'the list has how it begins');
    check((await row.locator(id('key-used')).innerText()) === 'never', 'it was not used');
    const sessions = await answer(options, key, '/sessions');
    check(Array.isArray(sessions.data), 'it reads');
    const refused = await request(options, key, '/sessions', { agent: 'custom', command: ['true'] });
    check(refused.status === 403, `it changes nothing: ${refused.status}`);
    await page.reload();
    await eventually('its use is seen', async () => (await row.locator(id('key-used')).innerText()) === 'just now');
    await row.locator(id('key-revoke')).click();
    await page.locator(id('confirm-no')).click();
    check((await request(options, key, '/sessions')).status === 200, 'saying no changes nothing');
    await row.locator(id('key-revoke')).click();
    await page.locator(id('confirm-yes')).click();
    await row.waitFor({ state: 'detached' });
    check((await request(options, key, '/sessions')).status === 401, 'it is good for nothing any more');
    check((await page.locator(id('keys-past')).innerText()).includes('1 that is over'), 'it is kept among those that are over');
  },

  async 'the command that enrols a host really makes one'({ ada: page, options, run }) {
    await chooseTab(page, 'hosts');
    await page.locator(id('hosts-row')).first().waitFor();
    await page.locator(id('enrol')).click();
    await page.locator(id('host-name')).fill(`worker ${run}`);
    await page.locator(id('form-submit')).click();
    await page.locator(id('secret')).waitFor();
    await shot(page, options, 'enrolment');
    const [enrol, start] = (await takeSecret(page)).split(/\n(?=agentapi-supervisor run)/);
    const dir = mkdtempSync(join(tmpdir(), 'console-host-'));
    let supervisor = null;
    try {
      const enrolled = await shell(options, enrol, dir).ended;
      check(enrolled.code === 0, `enrol: ${enrolled.code} ${enrolled.said}`);
      check(JSON.parse(readFileSync(join(dir, 'host-credential.json'), 'utf8')).token.length > 20, 'the machine has a credential');
      const again = await shell(options, enrol.replace('host-credential', 'another'), dir).ended;
      check(again.code !== 0, 'the token is good once');
      supervisor = shell(options, `exec ${start}`, dir);
      const row = rowOf(page, 'hosts', `worker ${run}`);
      await eventually('the host connects, without a reload', async () => (await row.locator(id('host-state')).innerText()) === 'connected');
      await shot(page, options, 'hosts');
      await row.locator(id('host-revoke')).click();
      await page.locator(id('confirm-yes')).click();
      await row.waitFor({ state: 'detached' });
      check((await page.locator(id('hosts-row')).count()) > 0 && (await page.locator(id('host-revoke')).count()) === 0, 'the platform’s host stays, and is not ours to revoke');
      await page.reload();
      await page.locator(id('hosts-row')).first().waitFor();
      check((await row.count()) === 0, 'it is gone for good');
    } finally {
      supervisor?.child.kill('SIGTERM');
      await supervisor?.ended;
      rmSync(dir, { recursive: true, force: true });
    }
  },

  async 'settings are saved, refused at their fields, and kept'({ ada: page, options, organization }) {
    await chooseTab(page, 'settings');
    await page.locator(id('session-idle')).fill('36');
    await page.locator(id('session-idle-unit')).selectOption('3600');
    await page.locator(id('session-age')).fill('1');
    await page.locator(id('session-age-unit')).selectOption('60');
    await page.locator(id('session-retention')).fill('0');
    await page.locator(id('settings-save')).click();
    await eventually('what is refused is said at its field', async () => /1 to 3660/.test(await page.locator(id('error-settings.session_retention_days')).innerText()));
    check((await page.locator(id('error-settings.session_idle_seconds_max')).innerText()) === '', 'and at no other');
    check((await page.locator(id('session-retention')).evaluate((element) => element === document.activeElement)) === true, 'one is led there');
    await shot(page, options, 'settings-refused');
    await page.locator(id('session-retention')).fill('30');
    await page.locator(id('session-age')).fill('14');
    await page.locator(id('session-age-unit')).selectOption('86400');
    await page.locator(id('agents-every-some')).check();
    await page.locator(id('agents-some-custom')).check();
    await page.locator(id('sandbox-network')).selectOption('off');
    await page.locator(id('limit-memory_bytes')).fill('1');
    await page.locator(id('settings-save')).click();
    await eventually('the part that is refused is named', async () => /limits\.memory_bytes/i.test(await page.locator(id('error-settings.sandbox')).innerText()));
    await page.locator(id('limit-memory_bytes')).fill('2048');
    await page.locator(id('profiles-every-some')).check();
    await page.locator(id('profiles-some-dev')).check();
    await page.locator(id('settings-save')).click();
    await eventually('it is saved', async () => (await page.locator(id('toasts')).innerText()).includes('saved'));
    await page.reload();
    await page.locator(id('settings-form')).waitFor();
    const shown = async (name) => [await page.locator(id(name)).inputValue(), await page.locator(id(`${name}-unit`)).inputValue()].join(' ');
    check((await shown('session-idle')) === '36 3600' && (await shown('session-age')) === '14 86400', 'in the units that fit');
    check((await page.locator(id('session-retention')).inputValue()) === '30' && (await page.locator(id('agents-some-custom')).isChecked()), 'all of it');
    // What the page has is what the server has.
    const stored = await page.evaluate(async () => (await (await fetch('/api/v1/organizations')).json()).data.find((one) => one.current));
    check(stored.name === organization, `the page is in ${organization}`);
    const expected = { session_idle_seconds_max: 129_600, session_age_seconds_max: 1_209_600, session_retention_days: 30, agents: ['custom'], sandbox: { profiles: ['dev'], network: 'off', limits: { memory_bytes: 2_147_483_648 } } };
    check(JSON.stringify(stored.settings) === JSON.stringify(expected), JSON.stringify(stored.settings));
    await page.locator(id('session-idle')).fill('');
    await page.locator(id('settings-save')).click();
    await eventually('a limit is taken away again', async () => page.evaluate(async () => !('session_idle_seconds_max' in (await (await fetch('/api/v1/organizations')).json()).data.find((one) => one.current).settings)));
  },

  async 'settings that somebody else changed meanwhile are not written over'({ ada: page, people, open }) {
    const other = await open(page.context());
    await other.goto(page.url());
    await other.locator(id('settings-form')).waitFor();
    await page.reload();
    await page.locator(id('settings-form')).waitFor();
    await other.locator(id('session-retention')).fill('60');
    await other.locator(id('settings-save')).click();
    await eventually('the other tab saved', async () => (await other.locator(id('toasts')).innerText()).includes('saved'));
    await page.locator(id('session-retention')).fill('90');
    await page.locator(id('settings-save')).click();
    await page.locator(id('settings-reload')).click();
    await eventually('the newer ones are shown', async () => (await page.locator(id('session-retention')).inputValue()) === '60');
    await other.close();
    check(people.ada.email !== undefined, 'as herself');
  },

  async 'the audit trail shows what was done, is filtered, and leads to each record'({ ada: page, options, people }) {
    await chooseTab(page, 'audit');
    const actions = async () => page.locator(id('audit-action')).allInnerTexts();
    const wanted = ['organization.create', 'invitation.create', 'invitation.accept', 'api_key.create', 'api_key.revoke', 'request.refused', 'host_enrolment.create', 'host.enrol', 'host.revoke', 'organization.update'];
    // A record is listed within a second.
    await eventually(
      'every act is there',
      async () => {
        await page.locator(id('audit-filter')).click();
        const seen = await actions();
        const missing = wanted.filter((action) => !seen.includes(action));
        if (missing.length > 0) throw new Error(`missing: ${missing.join(', ')} of ${[...new Set(seen)].join(', ')}`);
        return true;
      },
    );
    await shot(page, options, 'audit');
    await page.locator(id('audit-session')).fill('no id');
    await page.locator(id('audit-filter')).click();
    await eventually('a filter that is none is refused at its field', async () => (await page.locator(id('error-query.session')).innerText()).length > 5);
    await page.locator(id('audit-session')).fill('');
    await page.locator(id('audit-action-filter')).fill('invitation.accept');
    await page.locator(id('audit-filter')).click();
    await eventually('one action alone', async () => (await actions()).every((action) => action === 'invitation.accept') && (await actions()).length === 1);
    check(page.url().includes('action=invitation.accept'), 'the filter is in the address');
    await page.reload();
    await eventually('and survives a reload', async () => (await actions()).length === 1);
    check((await page.locator(id('audit-row')).innerText()).includes(people.grace.email), 'who did it has a name');
    await page.locator(id('audit-open')).click();
    const record = await page.locator(id('audit-record')).innerText();
    check(record.includes('invitation.accept') && /[0-9a-f]{64}/.test(record), `the whole record: ${record}`);
    await shot(page, options, 'audit-record');
    await page.keyboard.press('Escape');
    await page.goBack();
    await eventually('Back takes the filter away', async () => (await actions()).length > 1);
  },

  async 'the trail is read page by page, and exported whole'({ ada: page }) {
    // From here, in pages of the API's own making: more records than one page has.
    await page.evaluate(async () => {
      for (let i = 0; i < 60; i += 1) await fetch(`/api/v1/login-codes`, { method: 'POST' });
    });
    await page.goto(page.url().replace(/#.*/, '#/audit?action=login_code.create'));
    await eventually('there is an older page', async () => {
      await page.locator(id('audit-filter')).click();
      return page.locator(id('audit-next')).isVisible();
    });
    const first = await page.locator(id('audit-open')).first().innerText();
    await page.locator(id('audit-next')).click();
    await eventually('other records', async () => (await page.locator(id('audit-open')).first().innerText()) !== first);
    check(page.url().includes('cursor='), 'the place is in the address');
    await page.reload();
    await page.locator(id('audit-first')).click();
    await eventually('back at the newest', async () => Number((await page.locator(id('audit-open')).first().innerText()).slice(1)) >= Number(first.slice(1)));
    const [download] = await Promise.all([page.waitForEvent('download'), page.locator(id('audit-export')).click()]);
    const lines = readFileSync(await download.path(), 'utf8').trim().split('\n').map((line) => JSON.parse(line));
    check(lines.length === lines[0].count + 1 && lines.length > 60, `every record: ${lines.length} lines, ${lines[0].count} told`);
    const own = await page.evaluate(async () => (await (await fetch('/api/v1/me')).json()).organization_id);
    check(lines[0].org_id === own, 'of this organisation, and not of the one that the login was made in');
  },
};
