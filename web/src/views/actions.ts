// What can be done to a session. Each asks first where something is lost, and says in the server's words why it was refused.

import { api, sentence } from '../api/client.ts';
import type { Store } from '../api/store.ts';
import { isEnded } from '../api/types.ts';
import { ask, askText } from '../ui/dialog.ts';
import { titleOf } from '../ui/format.ts';
import { toast } from '../ui/toast.ts';

export class SessionActions {
  private readonly id: string;
  private readonly store: Store;

  constructor(id: string, store: Store) {
    this.id = id;
    this.store = store;
  }

  async stop(): Promise<void> {
    const yes = await ask({
      title: 'Stop this session?',
      text: 'Its program is asked to end; after five seconds everything it started is ended by force. The screen and the record stay.',
      confirm: 'Stop',
      danger: true,
    });
    if (yes) await this.try(() => api.stop(this.id, false));
  }

  async forceStop(): Promise<void> {
    await this.try(() => api.stop(this.id, true));
  }

  async restart(living: boolean): Promise<void> {
    if (living) {
      const yes = await ask({
        title: 'Stop and restart?',
        text: 'The program that runs now is stopped first. The new one starts in the same workspace.',
        confirm: 'Restart',
        danger: true,
      });
      if (!yes) return;
    }
    await this.try(async () => this.store.put(await api.restart(this.id, living)));
  }

  async rename(): Promise<void> {
    const session = this.store.sessions.get(this.id);
    const name = await askText('Rename session', 'Name', session?.name ?? '', 'Rename');
    if (name !== null) await this.try(async () => this.store.put(await api.rename(this.id, name.trim() === '' ? null : name.trim())));
  }

  async share(withAll: boolean): Promise<void> {
    const yes = await ask({
      title: withAll ? 'Share this session?' : 'Make this session private?',
      text: withAll
        ? 'Everybody in the organisation sees its screen, and members type into it.'
        : 'Only you, owners, admins and auditors see it from now on; the terminals of everybody else close.',
      confirm: withAll ? 'Share' : 'Make private',
    });
    if (yes) await this.try(async () => this.store.put(await api.show(this.id, withAll ? 'organization' : 'private')));
  }

  /** Whether it was purged. */
  async purge(): Promise<boolean> {
    const session = this.store.sessions.get(this.id);
    const living = session !== undefined && !isEnded(session.state);
    const workspace =
      session?.workspace.source === 'path' ? `Files in ${session.workspace.path ?? 'its directory'} stay.` : 'Its workspace and every file in it are removed.';
    const yes = await ask({
      title: `Purge ${session ? titleOf(session) : 'this session'}?`,
      text: `${living ? 'It is stopped first. ' : ''}Its record, output and scrollback are removed for good. ${workspace}`,
      confirm: 'Purge',
      danger: true,
    });
    return yes && (await this.try(() => api.purge(this.id)));
  }

  private async try(action: () => Promise<void>): Promise<boolean> {
    try {
      await action();
      return true;
    } catch (error) {
      toast(sentence(error), 'error');
      return false;
    }
  }
}
