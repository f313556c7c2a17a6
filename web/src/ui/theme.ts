// Light or dark: the system's choice until the user makes one, which this browser then remembers. Nothing else is ever stored.

const KEY = 'agentapi.theme';
const CHOICES = ['system', 'light', 'dark'] as const;
export type ThemeChoice = (typeof CHOICES)[number];

export function themeChoice(): ThemeChoice {
  const stored = read();
  return CHOICES.find((choice) => choice === stored) ?? 'system';
}

export function applyTheme(choice = themeChoice()): void {
  if (choice === 'system') delete document.documentElement.dataset['theme'];
  else document.documentElement.dataset['theme'] = choice;
}

/** system -> light -> dark -> system; gives the new one. */
export function nextTheme(): ThemeChoice {
  const next = CHOICES[(CHOICES.indexOf(themeChoice()) + 1) % CHOICES.length] ?? 'system';
  try {
    localStorage.setItem(KEY, next);
  } catch {
    // Storage is off: the choice holds for this page.
  }
  applyTheme(next);
  return next;
}

function read(): string | null {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}
