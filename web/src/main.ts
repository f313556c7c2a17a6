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
import { forget, go, isNamed, onMoved, settle } from './api/place.ts';
import type { Me } from './api/types.ts';
import { failure } from './ui/fetched.ts';
import { applyTheme } from './ui/theme.ts';
import { mountToasts } from './ui/toast.ts';
import { followKeyboard } from './ui/viewport.ts';
import { App } from './views/app.ts';
import { dropInvitation, forgetPlace, invitation, isArrival, keepPlace, returnToPlace, takeInvitation, takeLoginCode } from './views/arrival.ts';
import { invitationView } from './views/invitation.ts';
import { card, loginView } from './views/login.ts';
import { newcomerView } from './views/newcomer.ts';

/** One character of every file that an agent's first screen needs: letters, lines, braille, technical and other symbols. */
const FIRST_GLYPHS = 'W│⠋⎿⏺※';

let app: App | null = null;
/** Counts the starts: of two that run at once the later one has the page. */
let starts = 0;

function put(element: HTMLElement): void {
  app?.dispose();
  app = null;
  document.querySelector('#app')?.replaceChildren(element);
}

function showLogin(problem: string | null): void {
  document.title = 'Log in · AgentAPI';
  for (const dialog of document.querySelectorAll('dialog')) dialog.close();
  put(loginView(problem, () => void arrive()));
}

function expired(): void {
  // Several requests may find it out at once.
  if (!app) return;
  keepPlace();
  showLogin(null);
}

/** After a login by password: an invitation went along with it. */
async function arrive(): Promise<void> {
  const invited = invitation();
  dropInvitation();
  if (invited) go(invited.organization_id);
  await start();
}

async function start(): Promise<void> {
  starts += 1;
  const own = starts;
  takeInvitation();
  const code = takeLoginCode();
  let problem: string | null = null;
  if (code !== null) {
    // A link that was used before is no reason to shut out a browser that is logged in.
    await api.login(code).catch((error: unknown) => (problem = sentence(error)));
  }
  try {
    const me = await whoAmI();
    settle(me.organization_id);
    // Measured by the terminal, so they have to be there before it.
    await Promise.all([400, 700].map((weight) => document.fonts.load(`${weight} 13px 'AgentAPI Mono'`, FIRST_GLYPHS)));
    if (own === starts) enter(me);
  } catch (error) {
    if (own !== starts) return;
    if (error instanceof ApiError && error.status === 401) {
      keepPlace();
      return showLogin(problem);
    }
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

/** Somebody who is in no organisation: an invitation is all that can be for them, beside one of their own. */
function showNewcomer(): void {
  const invited = invitation();
  put(invited ? invitationView(null, invited, () => void start()) : newcomerView(() => void start(), loggedOut));
}

function loggedOut(): void {
  forget();
  forgetPlace();
  showLogin(null);
}

function enter(me: Me): void {
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

/** The organisation that this browser was in may be none of the caller's any more: then it is the one of the login. */
async function whoAmI(): Promise<Me> {
  try {
    return await api.me();
  } catch (error) {
    if (!(error instanceof ApiError && error.code === 'organization_not_found' && isNamed())) throw error;
    forget();
    return api.me();
  }
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
