// Resize photos for the model exactly as OpenCV does (INTER_LINEAR on 8 bits, in fixed point), because scaling by a canvas
// differs between browsers.

const ONE = 2048; // of a share in fixed point
const STRIP = 256; // rows that are read at a time

/** Return height and width of an image resized to a short edge, or to a maximum long edge if that is smaller. */
export function scaledSize([height, width], [shortEdge, longEdge]) {
  const scale = Math.min(shortEdge / Math.min(height, width), longEdge / Math.max(height, width));
  return [height, width].map((edge) => Math.max(1, Math.floor(edge * scale + 0.5)));
}

/** Read the rows of a bitmap as RGBA in strips, so that a large photo needs no canvas of its size. */
export function rowsOf(bitmap) {
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, Math.min(STRIP, height));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  let first = 0, strip = null;
  return (y) => {
    if (!strip || y < first || y >= first + canvas.height) {
      first = Math.min(Math.max(0, y - 1), height - canvas.height); // with the row before, as rows come in pairs
      context.clearRect(0, 0, width, canvas.height);
      context.drawImage(bitmap, 0, -first);
      strip = context.getImageData(0, 0, width, canvas.height).data;
    }
    return strip.subarray(4 * width * (y - first), 4 * width * (y - first + 1));
  };
}

/**
 * Resize to planes: Uint8Array (3, newHeight, newWidth), RGB.
 *
 * row(y) gives the y-th row as RGBA bytes; it is asked for rows in nearly ascending order.
 */
export function resize(row, [height, width], [newHeight, newWidth]) {
  const planes = new Uint8Array(3 * newHeight * newWidth), area = newHeight * newWidth;
  if (height === newHeight && width === newWidth) return copied(row, height, width, planes);
  if (height === 2 * newHeight && width === 2 * newWidth) return halved(row, newHeight, newWidth, planes);
  const columns = taps(width, newWidth, true), lines = taps(height, newHeight, false);
  const kept = new Map(); // rows resized along x, of which two are needed at a time
  const alongX = (y) => {
    if (!kept.has(y)) {
      if (kept.size > 2) kept.delete(Math.min(...kept.keys()));
      const source = row(y), made = new Int32Array(3 * newWidth);
      for (let x = 0; x < newWidth; x++) {
        const before = 4 * columns.before[x], after = 4 * Math.min(columns.before[x] + 1, width - 1);
        const a = columns.shareBefore[x], b = columns.shareAfter[x];
        for (let c = 0; c < 3; c++) made[c * newWidth + x] = source[before + c] * a + source[after + c] * b;
      }
      kept.set(y, made);
    }
    return kept.get(y);
  };
  const clip = (y) => Math.min(Math.max(y, 0), height - 1);
  for (let y = 0; y < newHeight; y++) {
    const before = alongX(clip(lines.before[y])), after = alongX(clip(lines.before[y] + 1));
    const a = lines.shareBefore[y], b = lines.shareAfter[y];
    for (let c = 0; c < 3; c++) {
      for (let x = 0, from = c * newWidth, to = c * area + y * newWidth; x < newWidth; x++, from++, to++) {
        planes[to] = (((a * (before[from] >> 4)) >> 16) + ((b * (after[from] >> 4)) >> 16) + 2) >> 2;
      }
    }
  }
  return planes;
}

/** Return for each new pixel the old pixel before its centre, and the fixed-point weights of that pixel and the next. */
function taps(edge, newEdge, isClipped) {
  const before = new Int32Array(newEdge), shareBefore = new Int32Array(newEdge), shareAfter = new Int32Array(newEdge);
  const step = 1 / (newEdge / edge);
  for (let i = 0; i < newEdge; i++) {
    let place = Math.fround((i + 0.5) * step - 0.5), first = Math.floor(place), share = Math.fround(place - first);
    if (isClipped && first < 0) [first, share] = [0, 0];
    if (isClipped && first >= edge - 1) [first, share] = [edge - 1, 0];
    before[i] = first;
    shareBefore[i] = roundHalfEven(Math.fround(1 - share) * ONE);
    shareAfter[i] = roundHalfEven(share * ONE);
  }
  return { before, shareBefore, shareAfter };
}

function roundHalfEven(value) {
  const low = Math.floor(value), rest = value - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low;
}

function copied(row, height, width, planes) {
  for (let y = 0; y < height; y++) {
    const source = row(y);
    for (let c = 0; c < 3; c++) {
      for (let x = 0; x < width; x++) planes[(c * height + y) * width + x] = source[4 * x + c];
    }
  }
  return planes;
}

/** Halve the size: average blocks of four pixels. */
function halved(row, height, width, planes) {
  for (let y = 0; y < height; y++) {
    const upper = row(2 * y).slice(), lower = row(2 * y + 1);
    for (let c = 0; c < 3; c++) {
      for (let x = 0, at = c; x < width; x++, at += 8) {
        planes[(c * height + y) * width + x] = (upper[at] + upper[at + 4] + lower[at] + lower[at + 4] + 2) >> 2;
      }
    }
  }
  return planes;
}
