// Which characters a woff2 file has: its table directory and `cmap`, no more. Small enough to read here, so that the glyph check needs no
// font library and no other language at build time.
import { brotliDecompressSync } from 'node:zlib';

// The order of the format's known table tags; an index in the directory stands for one of them.
const KNOWN =
  'cmap head hhea hmtx maxp name OS/2 post cvt  fpgm glyf loca prep CFF  VORG EBDT EBLC gasp hdmx kern LTSH PCLT VDMX vhea vmtx BASE GDEF GPOS GSUB EBSC JSTF MATH CBDT CBLC COLR CPAL SVG  sbix acnt avar bdat bloc bsln cvar fdsc feat fmtx fvar gvar hsty just lcar mort morx opbd prop trak Zapf Silf Glat Gloc Feat Sill';
const tag = (index) => KNOWN.slice(index * 5, index * 5 + 4);

/** The set of code points in the font's `cmap`. */
export function characters(file) {
  const data = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (data.getUint32(0) !== 0x774f4632) throw new Error('not a woff2 file');
  const tables = data.getUint16(12);
  const compressed = data.getUint32(20);
  let at = 48;
  let offset = 0;
  let cmap = null;
  const base128 = () => {
    let value = 0;
    for (;;) {
      const byte = file[at++];
      value = value * 128 + (byte & 0x7f);
      if ((byte & 0x80) === 0) return value;
    }
  };
  for (let i = 0; i < tables; i += 1) {
    const flags = file[at++];
    let name = tag(flags & 0x3f);
    if ((flags & 0x3f) === 0x3f) {
      name = file.subarray(at, at + 4).toString('latin1');
      at += 4;
    }
    const original = base128();
    const version = flags >> 6;
    // glyf and loca are transformed in version 0, every other table in any version but 0.
    const transformed = name === 'glyf' || name === 'loca' ? version !== 3 : version !== 0;
    const length = transformed ? base128() : original;
    if (name === 'cmap') cmap = [offset, length];
    offset += length;
  }
  if (!cmap) throw new Error('a font without a cmap');
  const stream = brotliDecompressSync(file.subarray(at, at + compressed));
  return readCmap(stream.subarray(cmap[0], cmap[0] + cmap[1]));
}

function readCmap(table) {
  const found = new Set();
  const view = new DataView(table.buffer, table.byteOffset, table.byteLength);
  for (let i = 0; i < view.getUint16(2); i += 1) {
    const start = view.getUint32(4 + i * 8 + 4);
    const format = view.getUint16(start);
    if (format === 4) format4(view, start, found);
    else if (format === 12) format12(view, start, found);
  }
  return found;
}

function format4(view, start, found) {
  const segments = view.getUint16(start + 6) / 2;
  for (let s = 0; s < segments; s += 1) {
    const end = view.getUint16(start + 14 + s * 2);
    const first = view.getUint16(start + 16 + segments * 2 + s * 2);
    const delta = view.getUint16(start + 16 + segments * 4 + s * 2);
    const rangeAt = start + 16 + segments * 6 + s * 2;
    const range = view.getUint16(rangeAt);
    for (let c = first; c <= end && c !== 0xffff; c += 1) {
      const glyph = range === 0 ? (c + delta) & 0xffff : view.getUint16(rangeAt + range + (c - first) * 2);
      if (glyph !== 0) found.add(c);
    }
  }
}

function format12(view, start, found) {
  for (let g = 0; g < view.getUint32(start + 12); g += 1) {
    const at = start + 16 + g * 12;
    for (let c = view.getUint32(at); c <= view.getUint32(at + 4); c += 1) found.add(c);
  }
}
