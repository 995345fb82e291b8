// Turn candidates into masks: the steps of fashion_hydra.postprocess with `nms: box`, in the same precision.
//
// candidates: { size: [height, width] of the photo, boxes: Float32Array (N, 4) in its pixels, scores: Float32Array (N) in
// descending order, labels: Int32Array (N), masks: Float32Array (N, cells, cells), cells }.
// mask: { label, score, x0, y0, width, height, pixels, area }, where pixels holds 0 or 1 for the window, row by row.

const f = Math.fround;

/** Return the indices of the candidates that greedy NMS within each class keeps, best first. */
export function select({ boxes, scores, labels }, rule) {
  const kept = [], ofClass = new Map();
  for (let i = 0; i < scores.length && kept.length < rule.max_per_image; i++) {
    const label = labels[i];
    const threshold = rule.labelScoreThr.get(label) ?? rule.score_thr;
    if (rule.droppedLabels.has(label) || !(scores[i] > f(threshold))) continue;
    if (!ofClass.has(label)) ofClass.set(label, []);
    const better = ofClass.get(label);
    if (better.some((other) => overlap(boxes, other, i) > rule.iou_thr)) continue;
    better.push(i);
    kept.push(i);
  }
  return kept;
}

/** Return the indices of the candidates to draw, best first, with their scores. */
function rank(candidates, rule) {
  const { scores, labels } = candidates, power = rule.mask_certainty_power;
  if (!power) return select(candidates, rule).map((i) => [i, scores[i]]);
  return select(candidates, { ...rule, max_per_image: Infinity })
    .map((i) => [i, f(scores[i] * f(certainty(candidates, i) ** power))])
    .filter(([i, score]) => score > f(rule.labelScoreThr.get(labels[i]) ?? rule.score_thr))
    .sort((a, b) => b[1] - a[1])
    .slice(0, rule.max_per_image);
}

/** Return the mean probability of a mask's cells above one half, or 0 if there are none. */
function certainty({ masks, cells }, index) {
  let total = 0, count = 0;
  for (const value of masks.subarray(index * cells * cells, (index + 1) * cells * cells)) {
    if (value > 0.5) [total, count] = [total + value, count + 1];
  }
  return count ? f(total / count) : 0;
}

/** Return the IoU of two boxes, in float32. */
function overlap(boxes, i, j) {
  const a = boxes.subarray(4 * i, 4 * i + 4), b = boxes.subarray(4 * j, 4 * j + 4);
  const area = (box) => f(f(box[2] - box[0]) * f(box[3] - box[1]));
  const width = Math.max(0, f(Math.min(a[2], b[2]) - Math.max(a[0], b[0])));
  const height = Math.max(0, f(Math.min(a[3], b[3]) - Math.max(a[1], b[1])));
  const shared = f(width * height);
  return f(shared / f(f(area(a) + area(b)) - shared));
}

/** Return the masks of a photo, best first, on a grid of [height, width] to which the photo is stretched. */
export function apply(candidates, rule, size) {
  const found = [], taken = new Map();
  for (const [i, score] of rank(candidates, rule)) {
    const mask = paste(candidates, i, size, rule.mask_thr), label = candidates.labels[i];
    if (rule.suppress_overlaps) {
      if (!taken.has(label)) taken.set(label, []);
      for (const other of taken.get(label)) subtract(mask, other);
      taken.get(label).push(mask);
    }
    let area = 0;
    for (const pixel of mask.pixels) area += pixel;
    if (area >= rule.min_area) found.push({ ...mask, label, score, area });
  }
  return found;
}

function subtract(mask, other) {
  const left = Math.max(mask.x0, other.x0), right = Math.min(mask.x0 + mask.width, other.x0 + other.width);
  const top = Math.max(mask.y0, other.y0), bottom = Math.min(mask.y0 + mask.height, other.y0 + other.height);
  for (let y = top; y < bottom; y++) {
    const mine = (y - mask.y0) * mask.width - mask.x0, its = (y - other.y0) * other.width - other.x0;
    for (let x = left; x < right; x++) if (other.pixels[its + x]) mask.pixels[mine + x] = 0;
  }
}

/** Draw a candidate's mask over its box: bilinear between the centres of grid cells, zero outside. */
function paste({ boxes, masks, cells, size }, index, [height, width], threshold) {
  const stretch = [width / size[1], height / size[0]];
  const [x0, y0, x1, y1] = [0, 1, 2, 3].map((k) => boxes[4 * index + k] * stretch[k % 2]);
  const [left, right] = pixelsBetween(x0, x1, width), [top, bottom] = pixelsBetween(y0, y1, height);
  const columns = cellsOf(left, right, x0, x1, cells), rows = cellsOf(top, bottom, y0, y1, cells);
  const framed = new Float32Array((cells + 2) * (cells + 2));
  for (let y = 0; y < cells; y++) {
    const from = (index * cells + y) * cells;
    framed.set(masks.subarray(from, from + cells), (y + 1) * (cells + 2) + 1);
  }
  const pixels = new Uint8Array((right - left) * (bottom - top)), limit = f(threshold);
  const line = new Float32Array(cells + 2);
  for (let y = 0, to = 0; y < bottom - top; y++) {
    const share = rows.share[y], rest = f(1 - share), from = rows.before[y] * (cells + 2);
    for (let k = 0; k < cells + 2; k++) line[k] = f(framed[from + k] * rest) + f(framed[from + cells + 2 + k] * share);
    for (let x = 0; x < right - left; x++, to++) {
      const after = columns.share[x], before = columns.before[x];
      pixels[to] = f(f(line[before] * f(1 - after)) + f(line[before + 1] * after)) >= limit ? 1 : 0;
    }
  }
  return { x0: left, y0: top, width: right - left, height: bottom - top, pixels };
}

function pixelsBetween(low, high, edge) {
  const first = Math.min(Math.max(Math.floor(low), 0), edge);
  return [first, Math.max(first, Math.min(Math.ceil(high), edge))];
}

/** Return for each pixel the cell before its centre on the grid padded by one, and the weight of the next cell. */
function cellsOf(first, end, low, high, cells) {
  const before = new Int32Array(end - first), share = new Float32Array(end - first);
  for (let i = 0; i < end - first; i++) {
    const place = ((first + i + 0.5 - low) / Math.max(high - low, 1e-6)) * cells + 0.5;
    const inside = Math.min(Math.max(place, 0), cells + 1 - 1e-6);
    before[i] = Math.floor(inside);
    share[i] = inside - before[i];
  }
  return { before, share };
}

/** Return COCO's compressed run-length encoding of a mask in a frame of [height, width]. */
export function encode(mask, [height, width]) {
  const runs = [];
  let value = 0, begin = 0;
  const bound = mask.x0 + mask.width, bottom = mask.y0 + mask.height;
  const mark = (at, next) => {
    if (next !== value) {
      runs.push(at - begin);
      [value, begin] = [next, at];
    }
  };
  for (let x = mask.x0; x < bound; x++) { // column by column
    if (mask.y0 > 0) mark(x * height, 0);
    for (let y = mask.y0; y < bottom; y++) mark(x * height + y, mask.pixels[(y - mask.y0) * mask.width + x - mask.x0]);
    if (bottom < height) mark(x * height + bottom, 0);
  }
  mark(bound * height, 0);
  runs.push(height * width - begin);
  if (runs.at(-1) === 0) runs.pop();
  let text = "";
  runs.forEach((run, i) => {
    let rest = i > 2 ? run - runs[i - 2] : run, more = true;
    while (more) {
      let bits = rest & 31;
      rest >>= 5;
      more = bits & 16 ? rest !== -1 : rest !== 0;
      if (more) bits |= 32;
      text += String.fromCharCode(bits + 48);
    }
  });
  return { size: [height, width], counts: text };
}
