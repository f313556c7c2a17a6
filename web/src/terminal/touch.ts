// Scrolling with a finger, which xterm.js leaves out: a drag becomes lines, and the terminal decides what a line means.

/** Calls back with the lines a finger moved over: negative towards older output. `at` is where the finger is, from 0 to 1. */
export function scrollByTouch(element: HTMLElement, lineHeight: () => number, scroll: (lines: number, at: { x: number; y: number }) => void): void {
  let lastY: number | null = null;
  element.addEventListener(
    'touchstart',
    (event) => {
      lastY = event.touches.length === 1 ? (event.touches[0]?.clientY ?? null) : null;
    },
    { passive: true },
  );
  element.addEventListener(
    'touchmove',
    (event) => {
      const touch = event.touches[0];
      if (lastY === null || !touch || event.touches.length !== 1) return;
      event.preventDefault();
      const lines = Math.trunc((lastY - touch.clientY) / lineHeight());
      if (lines === 0) return;
      // What is less than a line stays for the next move.
      lastY -= lines * lineHeight();
      const box = element.getBoundingClientRect();
      scroll(lines, { x: (touch.clientX - box.left) / box.width, y: (touch.clientY - box.top) / box.height });
    },
    { passive: false },
  );
  element.addEventListener('touchend', () => (lastY = null), { passive: true });
}
