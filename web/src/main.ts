// Where the console starts: a login code from the address first, then who one is, then the app or the login page.

import '@xterm/xterm/css/xterm.css';
import './styles/fonts/fonts.css';
import './styles/tokens.css';
import './styles/base.css';
import './styles/layout.css';
import './styles/session.css';
import './styles/keybar.css';
import './styles/dialog.css';

import { api, ApiError, sentence } from './api/client.ts';
import { h } from './ui/dom.ts';
import { applyTheme } from './ui/theme.ts';
import { mountToasts } from './ui/toast.ts';
import { followKeyboard } from './ui/viewport.ts';
import { App } from './views/app.ts';
import { loginView, takeLoginCode } from './views/login.ts';

/** One character of every file that an agent's first screen needs: letters, lines, braille, technical and other symbols. */
const FIRST_GLYPHS = 'W│⠋⎿⏺※';

let app: App | null = null;

async function start(): Promise<void> {
  const root = document.getElementById('app');
  if (!root) throw new Error('the page has no #app');
  const showLogin = (problem: string | null) => {
    app?.dispose();
    app = null;
    root.replaceChildren(loginView(problem));
  };
  const code = takeLoginCode();
  let problem: string | null = null;
  if (code !== null) {
    // A link that was used before is no reason to shut out a browser that is logged in.
    await api.login(code).catch((error: unknown) => (problem = sentence(error)));
  }
  try {
    const me = await api.me();
    // Measured by the terminal, so they have to be there before it.
    await Promise.all([400, 700].map((weight) => document.fonts.load(`${weight} 13px 'AgentAPI Mono'`, FIRST_GLYPHS)));
    app = new App(me, () => showLogin(null));
    root.replaceChildren(app.element);
    app.start();
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) return showLogin(problem);
    const retry = h('button', { type: 'button', class: 'button primary', onclick: () => void start() }, 'Try again');
    root.replaceChildren(h('main', { class: 'login' }, h('div', { class: 'card' }, h('p', { class: 'notice error', role: 'alert' }, sentence(error)), retry)));
  }
}

// A login link opened in a tab that already shows the console only changes the fragment.
addEventListener('hashchange', () => {
  if (location.hash.startsWith('#code=')) {
    app?.dispose();
    app = null;
    void start();
  }
});

applyTheme();
mountToasts();
followKeyboard();
void start();
