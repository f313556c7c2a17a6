// Which input a person meant. Terminals report focus and the pointer's way as if they were keys; neither is typing, and who types takes the
// session's size.

/** Focus came or went, or the pointer moved with no button held. */
export function isPassive(data: string): boolean {
  if (data === '\x1b[I' || data === '\x1b[O') return true;
  const mouse = /^\x1b\[<(\d+);\d+;\d+[Mm]$/.exec(data);
  if (!mouse) return false;
  const code = Number(mouse[1]);
  // 32: motion; 3 in the low bits: no button.
  return (code & 32) !== 0 && (code & 3) === 3 && (code & 64) === 0;
}

/** Any report of the mouse, in the encodings that xterm.js uses. */
export function isMouse(data: string): boolean {
  return data.startsWith('\x1b[<') || data.startsWith('\x1b[M');
}
