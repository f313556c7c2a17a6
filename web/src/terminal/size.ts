// How large the terminal is on this page. A viewer never lays the session out anew by looking at it: the session has a size, and a
// page that does not own it shows all of that size, with smaller characters where they would not fit.

import { clampSize, type WindowSize } from './codec.ts';

export const FONT_FAMILY = "'AgentAPI Mono', ui-monospace, 'Cascadia Mono', Menlo, Consolas, 'Apple Color Emoji', 'Segoe UI Emoji', 'Noto Color Emoji', monospace";

/** xterm.js lays its scroll bar over the last columns; they are left free for it. */
export const SCROLLBAR_PX = 10;

/** Width of a character of the bundled font, in em. */
const ADVANCE_EM = 0.6;

/** A cell narrower than this, in device pixels, shows nothing; the terminal then is wider than its area. */
const CELL_DEVICE_PX_MIN = 2;

export interface Cell {
  readonly width: number;
  readonly height: number;
}

/** The size of a cell in CSS pixels, measured as xterm.js does: one wide row of the same letter, in whole device pixels. */
export function measureCell(fontPx: number): Cell {
  const probe = document.createElement('span');
  const count = 64;
  probe.textContent = 'W'.repeat(count);
  Object.assign(probe.style, {
    position: 'absolute',
    visibility: 'hidden',
    whiteSpace: 'pre',
    lineHeight: 'normal',
    fontKerning: 'none',
    fontFamily: FONT_FAMILY,
    fontSize: `${fontPx}px`,
  });
  document.body.append(probe);
  const box = probe.getBoundingClientRect();
  probe.remove();
  return { width: Math.floor((box.width / count) * devicePixelRatio) / devicePixelRatio, height: Math.ceil(box.height * devicePixelRatio) / devicePixelRatio };
}

/** What fits into an area at this font size: what this page would like the session to have. */
export function naturalSize(width: number, height: number, fontPx: number): WindowSize {
  const cell = measureCell(fontPx);
  return clampSize(width / cell.width, height / cell.height);
}

/**
 * The font size nearest to a wanted one at which a cell is a whole number of device pixels wide: renderers cut the width down to that, and
 * letters made for a wider cell would touch. A little is added, so that rounding never falls to the pixel below.
 */
export function wholePixelFont(fontPx: number): number {
  return fontOfCell(Math.max(CELL_DEVICE_PX_MIN, Math.round(fontPx * ADVANCE_EM * devicePixelRatio)));
}

/** The font size at which the whole of a size is visible: the preferred one, or smaller. */
export function fittingFont(size: WindowSize, width: number, height: number, preferredPx: number): number {
  let pixels = Math.round(wholePixelFont(preferredPx) * ADVANCE_EM * devicePixelRatio);
  for (; pixels > CELL_DEVICE_PX_MIN; pixels -= 1) {
    const cell = measureCell(fontOfCell(pixels));
    if (cell.width * size.cols <= width && cell.height * size.rows <= height) break;
  }
  return fontOfCell(pixels);
}

function fontOfCell(devicePixels: number): number {
  return Math.ceil((devicePixels / devicePixelRatio / ADVANCE_EM) * 100 + 1) / 100;
}
