// How large the terminal is on this page. A viewer never lays the session out anew by looking at it: the session has a size, and a
// page that does not own it shows all of that size, with smaller characters where they would not fit.

import { clampSize, type WindowSize } from './codec.ts';

export const FONT_FAMILY = "'AgentAPI Mono', ui-monospace, 'Cascadia Mono', Menlo, Consolas, 'Apple Color Emoji', 'Segoe UI Emoji', 'Noto Color Emoji', monospace";

/** Below this nothing can be told apart; the terminal then scrolls sideways. */
const FONT_PX_MIN = 3;

/** Steps of the font size: finer ones cost a glyph atlas each and gain nothing. */
const FONT_PX_STEP = 0.25;

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
  return { width: box.width / count, height: Math.ceil(box.height * devicePixelRatio) / devicePixelRatio };
}

/** What fits into an area at this font size: what this page would like the session to have. */
export function naturalSize(width: number, height: number, fontPx: number): WindowSize {
  const cell = measureCell(fontPx);
  return clampSize(width / cell.width, height / cell.height);
}

/** The font size at which the whole of a size is visible: the preferred one, or smaller. */
export function fittingFont(size: WindowSize, width: number, height: number, preferredPx: number): number {
  const cell = measureCell(preferredPx);
  const scale = Math.min(width / (size.cols * cell.width), height / (size.rows * cell.height), 1);
  let fontPx = scale === 1 ? preferredPx : Math.floor((preferredPx * scale) / FONT_PX_STEP) * FONT_PX_STEP;
  // Rounding to device pixels is not linear: go down until it holds.
  while (fontPx > FONT_PX_MIN) {
    const { width: w, height: h } = measureCell(fontPx);
    if (w * size.cols <= width && h * size.rows <= height) break;
    fontPx -= FONT_PX_STEP;
  }
  return Math.max(FONT_PX_MIN, fontPx);
}
