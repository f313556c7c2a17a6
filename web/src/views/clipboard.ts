// Copy and paste. A program may write the clipboard (OSC 52) only after the user allowed it on this page; reading it is never offered.

import type { Terminal } from '@xterm/xterm';
import { copyText } from '../ui/copy.ts';
import { ask } from '../ui/dialog.ts';
import { toast } from '../ui/toast.ts';

export class Clipboard {
  private allowed: 'unasked' | 'yes' | 'no' | 'asking' = 'unasked';

  async copy(terminal: Terminal): Promise<void> {
    const text = terminal.getSelection();
    if (text !== '') await this.write(text, null);
  }

  async paste(terminal: Terminal): Promise<void> {
    try {
      terminal.paste(await navigator.clipboard.readText());
      terminal.focus();
    } catch {
      toast('The browser does not let this page read the clipboard. Ctrl+Shift+V works without.', 'error', 'clipboard');
    }
  }

  async write(text: string, done: string | null): Promise<void> {
    if (!(await copyText(text))) toast('The browser does not let this page write the clipboard.', 'error', 'clipboard');
    else if (done !== null) toast(done, 'info', 'clipboard');
  }

  programWrites(text: string): void {
    if (this.allowed === 'yes') return void this.write(text, 'The program copied text to your clipboard.');
    if (this.allowed !== 'unasked') return;
    this.allowed = 'asking';
    const shown = text.length > 200 ? `${text.slice(0, 200)}…` : text;
    void ask({
      title: 'Let programs in this session copy to your clipboard?',
      text: `It wants to copy: ${shown}`,
      confirm: 'Allow',
    }).then((yes) => {
      this.allowed = yes ? 'yes' : 'no';
      if (yes) void this.write(text, null);
    });
  }
}
