// How large the terminal is on this page. A viewer never lays the session out anew by looking at it: the session has a size, and a
// page that does not own it shows all of that size, with smaller characters where they would not fit.

import { clampSize, type WindowSize } from './codec.ts';

export const FONT_FAMILY = "'AgentAPI Mono', ui-monospace, 'Cascadia Mono', Menlo, Consolas, 'Apple Color Emoji', 'Segoe UI Emoji', 'Noto Color Emoji', monospace";

/** xterm.js lays its scroll bar over the last columns; they are left free for it. */
export const SCROLLBAR_PX = 10;

/** Width of a character of the bundled font, in em. */
const ADVANCE_EM = 0.6;
/** Height of a row of it, in em. */
const ROW_EM = 1.19;

/** Below this nothing can be told apart; the terminal then is larger than its area. */
const FONT_PX_MIN = 2.5;

/** Steps in which the font is made smaller. */
const FONT_PX_STEP = 0.1;

export interface Cell {
  readonly width: number;
  readonly height: number;
}

/** The size of a cell in CSS pixels, measured as xterm.js does it; rows are whole device pixels. */
export function measureCell(fontPx: number): Cell {
  measuring ??= new OffscreenCanvas(1, 1).getContext('2d');
  if (!measuring) return { width: fontPx * ADVANCE_EM, height: fontPx * ROW_EM };
  measuring.font = `${fontPx}px ${FONT_FAMILY}`;
  const box = measuring.measureText('W');
  const height = box.fontBoundingBoxAscent + box.fontBoundingBoxDescent;
  return { width: box.width, height: Math.ceil(height * devicePixelRatio) / devicePixelRatio };
}

let measuring: OffscreenCanvasRenderingContext2D | null = null;

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
  return fontOfCell(Math.max(1, Math.round(fontPx * ADVANCE_EM * devicePixelRatio)));
}

/**
 * The font size at which the whole of a size is visible: the preferred one where it fits, else the largest that does, to a fraction of a
 * pixel, since a whole one is a third of a small character.
 */
export function fittingFont(size: WindowSize, width: number, height: number, preferredPx: number): number {
  const fits = (fontPx: number): boolean => {
    const cell = measureCell(fontPx);
    return cell.width * size.cols <= width && cell.height * size.rows <= height;
  };
  if (fits(preferredPx)) return preferredPx;
  let fontPx = Math.floor((Math.min(width / size.cols / ADVANCE_EM, preferredPx) / FONT_PX_STEP)) * FONT_PX_STEP;
  while (fontPx > FONT_PX_MIN && !fits(fontPx)) fontPx -= FONT_PX_STEP;
  return Math.max(FONT_PX_MIN, fontPx);
}

function fontOfCell(devicePixels: number): number {
  return Math.ceil((devicePixels / devicePixelRatio / ADVANCE_EM) * 100 + 1) / 100;
}
