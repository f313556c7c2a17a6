// Where the console starts: what the address carries first, then who one is, then an invitation, the app, or the login page.

import '@xterm/xterm/css/xterm.css';
import './styles/fonts/fonts.css';
import './styles/tokens.css';
import './styles/base.css';
import './styles/pieces.css';
import './styles/layout.css';
import './styles/session.css';
import './styles/keybar.css';
import './styles/dialog.css';
import './styles/login.css';
import './styles/organization.css';
import './styles/table.css';

import { api, ApiError, onLost, sentence } from './api/client.ts';
import { forget, go, onMoved, settle } from './api/place.ts';
import type { Me } from './api/types.ts';
import { whoAmI } from './api/who.ts';
import { failure } from './ui/fetched.ts';
import { applyTheme } from './ui/theme.ts';
import { mountToasts } from './ui/toast.ts';
import { followKeyboard } from './ui/viewport.ts';
import { App } from './views/app.ts';
import { forgetPlace, invitation, isArrival, keepPlace, returnToPlace, takeInvitation, takeLoginCode } from './views/arrival.ts';
import { invitationView } from './views/invitation.ts';
import { card, loginView } from './views/login.ts';
import { newcomerView } from './views/newcomer.ts';
import { otherLoginView } from './views/other-login.ts';

/** One character of every file that an agent's first screen needs: letters, lines, braille, technical and other symbols. */
const FIRST_GLYPHS = 'W│⠋⎿⏺※';

let app: App | null = null;
/** Counts the starts: of two that run at once the later one has the page. */
let starts = 0;
/** Of a login link, until it is used or put aside; a start that did not get there leaves it to the next one. */
let loginCode: string | null = null;

function put(element: HTMLElement): void {
  app?.dispose();
  app = null;
  document.querySelector('#app')?.replaceChildren(element);
}

function showLogin(problem: string | null): void {
  document.title = 'Log in · AgentAPI';
  for (const dialog of document.querySelectorAll('dialog')) dialog.close();
  put(loginView(problem, () => void start()));
}

function expired(): void {
  // Several requests may find it out at once.
  if (!app) return;
  keepPlace();
  showLogin(null);
}

async function start(): Promise<void> {
  starts += 1;
  const own = starts;
  takeInvitation();
  loginCode = takeLoginCode() ?? loginCode;
  try {
    const me = await whoAmI();
    settle(me.organization_id);
    // Measured by the terminal, so they have to be there before it.
    await Promise.all([400, 700].map((weight) => document.fonts.load(`${weight} 13px 'AgentAPI Mono'`, FIRST_GLYPHS)));
    if (own === starts) enter(me);
  } catch (error) {
    if (own !== starts) return;
    if (error instanceof ApiError && error.status === 401) return logIn();
    if (error instanceof ApiError && error.code === 'no_organization') return showNewcomer();
    put(
      card(
        'unreachable',
        'This did not work',
        failure(error, () => void start()),
      ),
    );
  }
}

/** Nobody is logged in: a link's code does it, or the person. */
function logIn(): void {
  if (loginCode === null) {
    keepPlace();
    return showLogin(null);
  }
  const code = loginCode;
  loginCode = null;
  api.login(code).then(
    () => void start(),
    (error: unknown) => showLogin(sentence(error)),
  );
}

/** Somebody is: whether they want the link's login instead is theirs to say. `name`: of whoever is in an organisation. */
function showOtherLogin(name: string | null, code: string): void {
  const done = (): void => {
    loginCode = null;
    void start();
  };
  put(otherLoginView(name, code, done));
}

/** Somebody who is in no organisation: an invitation is all that can be for them, beside one of their own. */
function showNewcomer(): void {
  if (loginCode !== null) return showOtherLogin(null, loginCode);
  const invited = invitation();
  put(invited ? invitationView(null, invited, () => void start()) : newcomerView(() => void start(), loggedOut));
}

function loggedOut(): void {
  forget();
  forgetPlace();
  showLogin(null);
}

function enter(me: Me): void {
  if (loginCode !== null) return showOtherLogin(me.name, loginCode);
  const invited = invitation();
  if (invited) return put(invitationView(me, invited, () => void start()));
  returnToPlace();
  const next = new App(me, {
    loggedOut,
    expired,
    changed: () => void start(),
    moved: (organization) => {
      go(organization);
      location.hash = '#/';
      void start();
    },
  });
  put(next.element);
  app = next;
  next.start();
}

// A link opened in a tab that already shows the console only changes the fragment.
addEventListener('hashchange', () => {
  if (isArrival(location.hash)) void start();
});

onLost((why) => {
  if (!app) return;
  if (why === 'organization') void start();
  else expired();
});
onMoved(() => {
  location.hash = '#/';
  void start();
});

applyTheme();
mountToasts();
followKeyboard();
void start();
