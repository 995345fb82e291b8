import {
  $, complain, count, make, onChips, onFiles, onSliders, setSliders, showChips, sliderValues, swatch,
} from "./controls.js";
import { cocoResults, maskFiles } from "./files.js";
import { apply } from "./postprocess.js";

const LARGEST_FILE = 100 * 2 ** 20;
const KEPT = 40; // photos
const photos = [], hidden = new Set();
let about = null, current = null, shown = [], marked = -1;

// ---- the model, in a worker -------------------------------------------------------------------------------------

const worker = new Worker(`worker.js${location.search}`, { type: "module" });
const asked = new Map();
let number = 0;

function ask(question) {
  return new Promise((resolve, reject) => {
    asked.set(++number, { resolve, reject });
    worker.postMessage({ id: number, ...question });
  });
}

worker.addEventListener("message", ({ data }) => {
  if (data.loaded !== undefined) {
    if (data.loaded === data.total) show("Starting the model");
    else if (data.total) [$("progress").max, $("progress").value] = [data.total, data.loaded];
    const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
    $("status").textContent = data.loaded === data.total
      ? "starting the model …"
      : `loading the model: ${megabytes(data.loaded)}${data.total ? ` of ${megabytes(data.total)}` : ""} MB`;
    return;
  }
  const { resolve, reject } = asked.get(data.id) ?? {};
  asked.delete(data.id);
  if (data.error) reject?.(new Error(data.error));
  else resolve?.(data);
});
worker.addEventListener("error", (event) => {
  complain([`this browser cannot run the model (${event.message ?? "modules in workers are needed"})`]);
});

/** Show the progress bar, indeterminate until a length is known. */
function show(what) {
  $("progress").removeAttribute("value");
  $("progress").setAttribute("aria-label", what);
  $("progress").hidden = false;
}

const ready = (async () => {
  show("Loading the model");
  try {
    ({ about } = await ask({}));
  } finally {
    $("progress").hidden = true;
    $("status").textContent = "";
  }
  about.ids = about.classes.map((one) => one.id);
  about.names = about.classes.map((one) => one.name);
  about.colours = about.ids.map(colour);
  $("model").textContent = `${count(about.ids.length, "class")}, ${about.device === "webgpu" ? "WebGPU" : "WebAssembly"}`
    .replace("classs", "classes");
  $("note").textContent = about.note;
  const strange = unknownSteps(about.thresholds);
  if (strange.length) complain([`the model's own thresholds have ${strange.join(", ")}, which this page leaves out`]);
  setOwn();
  rule();
})();
ready.catch((error) => complain([error.message]));

// ---- thresholds -------------------------------------------------------------------------------------------------

const setOwn = () => setSliders(about.thresholds, about.iou_grid, about.score_floor);

/** Return the sliders' thresholds, and the model's own for all other options. */
function rule() {
  const { class_score_thr, drop_classes, max_per_image, suppress_overlaps } = about.thresholds;
  const label = (entry) => Math.max(about.ids.indexOf(Number(entry)), about.names.indexOf(String(entry)));
  const made = {
    max_per_image,
    suppress_overlaps,
    labelScoreThr: new Map(Object.entries(class_score_thr ?? {}).map(([entry, threshold]) => [label(entry), threshold])),
    droppedLabels: new Set((drop_classes ?? []).map(label)),
  };
  for (const [name, value] of Object.entries(sliderValues())) made[name] = Number(value);
  return made;
}

/** Name the options of the model's rule that this page does not support. */
function unknownSteps({ nms, steps, select }) {
  return [nms !== "box" && `nms=${nms}`, steps?.length && `steps ${steps}`, select === "expected" && "select=expected"]
    .filter(Boolean);
}

// ---- drawing ----------------------------------------------------------------------------------------------------

/** Return a category's red, green and blue: hues a golden angle apart, cycling through five tones. */
function colour(category) {
  const [saturation, value] = [[0.95, 1], [0.45, 1], [0.95, 0.6], [0.5, 0.65], [0.7, 0.85]][category % 5];
  const hue = 6 * ((category * 0.618034) % 1);
  const part = (shift) => {
    const at = (shift + hue) % 6;
    return Math.trunc(255 * (value - value * saturation * Math.max(0, Math.min(at, 4 - at, 1))));
  };
  return [part(5), part(3), part(1)];
}

const css = (rgb) => `rgb(${rgb.join(" ")})`;

/** Draw masks over the photo: filled, with an outline of two pixels. */
function paint() {
  const canvas = $("masks-drawn"), { width, height } = current.picture;
  [canvas.width, canvas.height] = [width, height];
  const drawing = new ImageData(width, height), pixels = drawing.data;
  shown.forEach((mask, i) => {
    if (hidden.has(mask.label)) return;
    const isMarked = i === marked, edge = isMarked ? [255, 255, 255] : about.colours[mask.label];
    const has = (x, y) => x >= 0 && y >= 0 && x < mask.width && y < mask.height && mask.pixels[y * mask.width + x];
    for (let y = 0; y < mask.height; y++) {
      for (let x = 0; x < mask.width; x++) {
        if (!mask.pixels[y * mask.width + x]) continue;
        const inside = has(x - 2, y) && has(x + 2, y) && has(x, y - 2) && has(x, y + 2);
        const at = 4 * ((mask.y0 + y) * width + mask.x0 + x);
        blend(pixels, at, inside ? about.colours[mask.label] : edge, inside ? (isMarked ? 0.65 : 0.34) : 1);
      }
    }
  });
  canvas.getContext("2d").putImageData(drawing, 0, 0);
}

/** Blend a colour over a pixel by their opacities. */
function blend(pixels, at, rgb, opacity) {
  const below = (pixels[at + 3] / 255) * (1 - opacity), all = opacity + below;
  for (let c = 0; c < 3; c++) pixels[at + c] = (rgb[c] * opacity + pixels[at + c] * below) / all;
  pixels[at + 3] = 255 * all;
}

function mark(place) {
  marked = place;
  [...$("objects").rows].forEach((row, i) => row.classList.toggle("on", i === place));
  paint();
}

function list() {
  $("objects").replaceChildren(...shown.map((mask, i) => {
    const row = make("tr"), name = make("th");
    name.scope = "row";
    name.append(swatch(css(about.colours[mask.label])), about.names[mask.label]);
    row.append(name, make("td", mask.score.toFixed(2), "n"));
    row.hidden = hidden.has(mask.label);
    row.addEventListener("pointerenter", () => mark(i));
    row.addEventListener("pointerleave", () => mark(-1));
    return row;
  }));
}

const labelsShown = () => shown.map((mask) => mask.label);

function draw() {
  const visible = shown.filter((mask) => !hidden.has(mask.label)).length, what = `${count(visible, "object")} found`;
  paint();
  $("found").setAttribute("aria-label", `${current.name}, ${what}`);
  $("found-caption").textContent = `${current.name}: ${what}`;
  list();
  showChips(labelsShown(), hidden, (label) => ({ name: about.names[label], colour: css(about.colours[label]) }));
}

function update() {
  const { picture, candidates, milliseconds } = current;
  shown = apply(candidates, rule(), [picture.height, picture.width]);
  marked = -1;
  draw();
  const seconds = ((milliseconds.resize + milliseconds.model) / 1e3).toFixed(2);
  $("status").textContent =
    `${count(shown.length, "object")} of ${count(candidates.scores.length, "candidate")}, ${seconds} s for the photo`;
}

// ---- photos -----------------------------------------------------------------------------------------------------

function drawPicture(canvas, picture) {
  [canvas.width, canvas.height] = [picture.width, picture.height];
  canvas.getContext("2d").drawImage(picture, 0, 0);
}

function choose(photo) {
  current = photo;
  $("work").hidden = false;
  drawPicture($("picture"), photo.picture);
  $("found").style.setProperty("--ratio", photo.picture.width / photo.picture.height);
  for (const { button } of photos) button.setAttribute("aria-pressed", String(button === photo.button));
  update();
}

function keep(photo) {
  const item = make("li"), small = make("canvas");
  photo.button = make("button");
  photo.button.type = "button";
  photo.button.setAttribute("aria-label", photo.name);
  drawPicture(small, photo.picture);
  photo.button.append(small);
  photo.button.addEventListener("click", () => choose(photo));
  item.append(photo.button);
  $("strip").append(item);
  photos.push(photo);
  if (photos.length > KEPT) photos.shift().button.parentElement.remove();
  choose(photo);
}

async function add(files) {
  const wrong = [];
  complain([]);
  for (const [i, file] of [...files].entries()) {
    try {
      await ready;
      $("status").textContent = `predicting ${file.name} (${i + 1} of ${files.length}) …`;
      show("Looking at the photo");
      if (file.size > LARGEST_FILE) throw new Error(`larger than ${LARGEST_FILE >> 20} MB: reduce the photo`);
      keep({ name: file.name, ...(await ask({ photo: file })) });
    } catch (error) {
      wrong.push(about ? `${file.name}: ${error.message}` : error.message);
      if (!about) break;
    } finally {
      $("progress").hidden = true;
    }
  }
  if (wrong.length) $("status").textContent = "";
  complain(wrong);
}

// ---- downloads --------------------------------------------------------------------------------------------------

function save(content, name) {
  const link = make("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Return the visible objects of the photo, or of all photos, at each photo's size. */
function answers() {
  return ($("every").checked ? photos : [current]).map(({ name, candidates }) => ({
    name,
    size: candidates.size,
    masks: apply(candidates, rule(), candidates.size).filter((mask) => !hidden.has(mask.label)),
  }));
}

// ---- events ------------------------------------------------------------------------------------------------------

onFiles(add);
onSliders(update, setOwn);
onChips(hidden, labelsShown, draw);
$("coco").addEventListener("click", () => {
  const results = JSON.stringify(cocoResults(answers(), about.ids));
  save(new Blob([results], { type: "application/json" }), "coco_results.json");
});
$("masks").addEventListener("click", async () => save(await maskFiles(answers(), about.names), "masks.zip"));
