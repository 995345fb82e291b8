// Downloads: masks as PNGs in a ZIP file, and COCO results.

import { encode } from "./postprocess.js";

/** Return COCO results of photos [{ size, masks }] with image ids from 1; masks have the photo's size. */
export function cocoResults(photos, ids) {
  return photos.flatMap(({ size, masks }, i) => masks.map((mask) => ({
    image_id: i + 1,
    category_id: ids[mask.label],
    score: mask.score,
    segmentation: encode(mask, size),
  })));
}

/** Return one folder per photo of [{ name, size, masks }], with one white-on-black PNG per mask; names: class names by label. */
export async function maskFiles(photos, names) {
  const files = [], taken = new Set();
  for (const { name, size, masks } of photos) {
    const stem = plain(name.replace(/\.[^.]*$/, ""));
    let folder = stem;
    for (let i = 2; taken.has(folder.toLowerCase()); i++) folder = `${stem}-${i}`;
    taken.add(folder.toLowerCase());
    for (const [i, mask] of masks.entries()) {
      const file = `${String(i + 1).padStart(3, "0")}_${plain(names[mask.label].split(",")[0])}_${mask.score.toFixed(3)}.png`;
      files.push([`${folder}/${file}`, await png(mask, size)]);
    }
  }
  return zip(files);
}

const plain = (text) => text.replace(/[^\p{L}\p{N}_.-]+/gu, "_").replace(/^[._]+|_+$/g, "").slice(0, 100) || "_";

/** Encode a one-bit greyscale PNG. */
async function png(mask, [height, width]) {
  const stride = 1 + Math.ceil(width / 8), lines = new Uint8Array(stride * height);
  for (let y = 0; y < mask.height; y++) {
    for (let x = 0; x < mask.width; x++) {
      const at = mask.x0 + x;
      if (mask.pixels[y * mask.width + x]) lines[stride * (mask.y0 + y) + 1 + (at >> 3)] |= 128 >> (at & 7);
    }
  }
  const packed = await new Response(new Blob([lines]).stream().pipeThrough(new CompressionStream("deflate"))).arrayBuffer();
  const header = new Uint8Array(13), view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header[8] = 1; // bits a pixel
  const chunks = [["IHDR", header], ["IDAT", new Uint8Array(packed)], ["IEND", new Uint8Array()]];
  return joined([Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10), ...chunks.map(([kind, content]) => {
    const body = joined([new TextEncoder().encode(kind), content]), chunk = new DataView(new ArrayBuffer(body.length + 8));
    chunk.setUint32(0, content.length);
    chunk.setUint32(body.length + 4, crc32(body));
    const bytes = new Uint8Array(chunk.buffer);
    bytes.set(body, 4);
    return bytes;
  })]);
}

/** Return a ZIP file that stores [[name, Uint8Array]] without compression. */
function zip(files) {
  const parts = [], index = [];
  let at = 0;
  for (const [name, content] of files) {
    const label = new TextEncoder().encode(name);
    // version, UTF-8 names, stored, time and date (1 January 1980), checksums and sizes
    const fields = (view, first) => {
      [20, 0x0800, 0, 0, 0x21].forEach((value, i) => view.setUint16(first + 2 * i, value, true));
      [crc32(content), content.length, content.length].forEach((value, i) => view.setUint32(first + 10 + 4 * i, value, true));
      view.setUint16(first + 22, label.length, true);
    };
    const local = new DataView(new ArrayBuffer(30)), central = new DataView(new ArrayBuffer(46));
    local.setUint32(0, 0x04034b50, true);
    fields(local, 4);
    central.setUint32(0, 0x02014b50, true);
    central.setUint16(4, 20, true);
    fields(central, 6);
    central.setUint32(42, at, true);
    parts.push(new Uint8Array(local.buffer), label, content);
    index.push(new Uint8Array(central.buffer), label);
    at += 30 + label.length + content.length;
  }
  const end = new DataView(new ArrayBuffer(22)), length = index.reduce((sum, part) => sum + part.length, 0);
  end.setUint32(0, 0x06054b50, true);
  for (const place of [8, 10]) end.setUint16(place, files.length, true);
  end.setUint32(12, length, true);
  end.setUint32(16, at, true);
  return new Blob([...parts, ...index, new Uint8Array(end.buffer)], { type: "application/zip" });
}

function joined(parts) {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? 0xedb88320 ^ (byte >>> 1) : byte >>> 1;
  return byte;
});

function crc32(bytes) {
  let sum = -1;
  for (const byte of bytes) sum = TABLE[(sum ^ byte) & 255] ^ (sum >>> 8);
  return (sum ^ -1) >>> 0;
}
