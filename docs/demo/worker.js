// Run the model in its own thread: it receives photos and returns candidates and a picture. Nothing is sent to a server.

import { resize, rowsOf, scaledSize } from "./pixels.js";

const MODEL = new URL(new URLSearchParams(location.search).get("model") || "street.onnx", location.href);
const DEVICE = new URLSearchParams(location.search).get("device");
const MOST_PIXELS = 64e6;
const SHOWN = 1000; // longest edge of the picture that is shown
let model;

self.addEventListener("message", async ({ data }) => {
  try {
    model ??= load();
    const { about } = await model;
    if (data.photo) {
      const { transfer, ...answer } = await look(data.photo);
      postMessage({ id: data.id, ...answer }, transfer);
    } else postMessage({ id: data.id, about });
  } catch (error) {
    postMessage({ id: data.id, error: String(error?.message ?? error) });
  }
});

// ---- the model --------------------------------------------------------------------------------------------------

async function load() {
  const content = await download(MODEL);
  const about = readMetadata(content);
  const wanted = DEVICE ? [DEVICE] : (await hasGpu()) ? ["webgpu", "wasm"] : ["wasm"];
  let failure;
  for (const device of wanted) {
    try {
      const ort = await import(`./ort/ort.${device}.min.mjs`);
      ort.env.logLevel = "error";
      ort.env.wasm.wasmPaths = new URL("./ort/", location.href).href;
      const session = await ort.InferenceSession.create(content, { executionProviders: [device], logSeverityLevel: 3 });
      const type = session.inputMetadata?.[0]?.type === "float32" ? "float32" : "uint8";
      await run(ort, session, type, new Uint8Array(3 * 64 * 64), [64, 64], about); // what fails, fails now
      return { ort, session, type, about: { ...about, device } };
    } catch (error) {
      failure = error;
    }
  }
  throw new Error(`the model could not be started (${failure?.message ?? failure})`);
}

/** Return whether WebGPU runs on a real GPU; emulated on a CPU, it is slower than WebAssembly. */
async function hasGpu() {
  try {
    const adapter = await navigator.gpu?.requestAdapter();
    return Boolean(adapter) && !adapter.isFallbackAdapter && !adapter.info?.isFallbackAdapter;
  } catch {
    return false;
  }
}

async function download(address) {
  if (address.origin !== location.origin) throw new Error(`${address}: the model must be beside this page`);
  let response;
  try {
    response = await fetch(address);
  } catch {
    throw new Error(`${address.pathname} cannot be fetched: pages opened as files may not. Serve the folder: python -m http.server`);
  }
  if (!response.ok) throw new Error(`${address.pathname} is not there (${response.status}): run make page`);
  const total = Number(response.headers.get("content-length")) || 0, parts = [];
  let loaded = 0;
  for (const reader = response.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    loaded += value.length;
    postMessage({ loaded, total });
  }
  const content = new Uint8Array(loaded);
  let at = 0;
  for (const part of parts) {
    content.set(part, at);
    at += part.length;
  }
  return content;
}

/** Return the metadata_props of an ONNX file: field 14 of its protocol buffer, pairs of key (1) and value (2). */
function readMetadata(content) {
  const text = new TextDecoder(), entries = {};
  for (const [field, value] of fields(content)) {
    if (field !== 14) continue;
    const pair = Object.fromEntries(fields(value));
    entries[text.decode(pair[1])] = text.decode(pair[2] ?? new Uint8Array());
  }
  if (!entries.classes || !entries.thresholds) throw new Error(`${MODEL.pathname}: not written by fashion-hydra export`);
  return Object.fromEntries(Object.entries(entries).map(([key, value]) => [key, key === "note" ? value : JSON.parse(value)]));
}

/** Return number and content of each length-delimited field of a message. */
function* fields(bytes) {
  let at = 0;
  const number = () => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = number(), kind = tag & 7;
    if (kind === 2) {
      const length = number();
      yield [Math.floor(tag / 8), bytes.subarray(at, at + length)];
      at += length;
    } else if (kind === 0) number();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else throw new Error(`${MODEL.pathname}: not an ONNX file`);
  }
}

// ---- a photo ----------------------------------------------------------------------------------------------------

async function look(file) {
  const { ort, session, type, about } = await model;
  const bitmap = await decode(file);
  const size = [bitmap.height, bitmap.width];
  const begin = performance.now();
  const scaled = about.size ?? scaledSize(size, about.scale);
  const planes = resize(rowsOf(bitmap), size, scaled);
  const resized = performance.now();
  const outputs = await run(ort, session, type, planes, scaled, about);
  const end = performance.now();
  const shown = Math.min(1, SHOWN / Math.max(...size));
  const picture = await createImageBitmap(bitmap, {
    resizeWidth: Math.max(1, Math.round(bitmap.width * shown)),
    resizeHeight: Math.max(1, Math.round(bitmap.height * shown)),
    resizeQuality: "high",
  });
  bitmap.close();
  const stretch = [size[1] / scaled[1], size[0] / scaled[0]].map(Math.fround);
  const boxes = outputs.boxes.data.map((value, i) => value * stretch[i % 2]);
  const scores = outputs.scores.data.slice(), masks = outputs.masks.data.slice();
  const labels = Int32Array.from(outputs.labels.data, Number);
  const candidates = { size, boxes, scores, labels, masks, cells: outputs.masks.dims[2] };
  for (const tensor of Object.values(outputs)) tensor.dispose();
  return {
    picture,
    candidates,
    milliseconds: { resize: resized - begin, model: end - resized },
    transfer: [picture, boxes.buffer, scores.buffer, labels.buffer, masks.buffer],
  };
}

function run(ort, session, type, planes, [height, width], about) {
  const [h, w] = about.size ?? [height, width];
  const data = planes.length === 3 * h * w ? planes : new Uint8Array(3 * h * w);
  const image = new ort.Tensor(type, type === "uint8" ? data : Float32Array.from(data), [1, 3, h, w]);
  return session.run({ image });
}

/** Decode the file's pixels, rotated by EXIF, without colour conversion. */
async function decode(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, {
      imageOrientation: "from-image",
      colorSpaceConversion: "none",
      premultiplyAlpha: "none",
    });
  } catch {
    throw new Error("not a picture that this browser can read: broken, too large, or of a format that it does not know");
  }
  if (bitmap.width * bitmap.height > MOST_PIXELS) {
    const size = `${bitmap.width}x${bitmap.height}`;
    bitmap.close();
    throw new Error(`${size} pixels: must be at most ${MOST_PIXELS / 1e6} million. Reduce the photo`);
  }
  return bitmap;
}
