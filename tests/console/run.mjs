// Drives the console of a running AgentAPI in headless Chromium, as a person would, and says what held.
//   node tests/console/run.mjs --url URL --login-url URL [--owners FILE --bin DIR] [--invited FILE] [--out DIR] [--chromium PATH] [--only NAME]
// `--owners` is a file with a list of what `agentapi-controlplane admin create-owner --json` printed, two of them; `--bin` is where the programs
// are. Without these two options nothing of organisations is checked. With `--invited`, a file with people who are invited, only
// logging in is: `--only password` or `--only issuer`.
// Checks run in order: the later ones use the browser that the first ones logged in. Exit code 0 only if all of them held.
import { launch, openPage, parseArgs } from './lib.mjs';
import * as login from './checks/login.mjs';
import * as terminal from './checks/terminal.mjs';
import * as viewers from './checks/viewers.mjs';
import * as lifecycle from './checks/lifecycle.mjs';
import * as keyboard from './checks/keyboard.mjs';
import * as look from './checks/look.mjs';
import * as phone from './checks/phone.mjs';
import * as organization from './checks/organization.mjs';
import * as credentials from './checks/credentials.mjs';
import * as roles from './checks/roles.mjs';
import * as pages from './checks/pages.mjs';
import * as password from './checks/password.mjs';
import * as issuer from './checks/issuer.mjs';

const options = parseArgs(process.argv.slice(2));
const browser = await launch(options);
const complaints = [];
const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, colorScheme: 'dark' });
const page = await openPage(context, complaints);
// Names of this run alone: the data may have sessions of earlier ones.
const run = Date.now().toString(36);
const env = { options, run, browser, context, page, complaints, open: (other) => openPage(other, complaints) };

let passed = 0;
let failed = 0;
let broken = false;
const ofOrganizations = options.owners ? { organization, credentials, roles, pages } : {};
const groups = options.invited ? { [options.only]: { password, issuer }[options.only] } : { login, terminal, viewers, lifecycle, keyboard, look, phone, ...ofOrganizations };
for (const [group, { checks }] of Object.entries(groups)) {
  for (const [name, tried] of Object.entries(checks)) {
    // What comes before the one that is wanted, and cannot be left out.
    const needed = group === 'login' || (group === 'organization' && options.only in ofOrganizations);
    if (options.only && !needed && group !== options.only) continue;
    const label = `${group}: ${name}`;
    if (broken) {
      console.log(`not ok - ${label} (not tried: what it needs failed)`);
      failed += 1;
      continue;
    }
    const started = Date.now();
    try {
      await tried(env);
      if (complaints.length > 0) throw new Error(`the page complained: ${complaints.splice(0).join(' | ')}`);
      passed += 1;
      console.log(`ok - ${label} (${Date.now() - started} ms)`);
    } catch (error) {
      failed += 1;
      complaints.length = 0;
      // Without a login or a session nothing after it means anything.
      broken ||= group === 'login' || (group === 'organization' && env.ada === undefined) || (group === 'terminal' && env.session === undefined);
      console.log(`not ok - ${label}\n  ${String(error.stack ?? error).replaceAll('\n', '\n  ')}`);
      for (const [who, seen] of Object.entries({ page, ada: env.ada, grace: env.grace })) {
        if (options.out && seen) await seen.screenshot({ path: `${options.out}/failed-${group}-${passed + failed}-${who}.png` }).catch(() => undefined);
      }
    }
  }
}
await browser.close();
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
