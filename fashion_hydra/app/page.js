import {
  $, complain, count, make, onChips, onFiles, onSliders, setSliders, showChips, sliderValues, swatch,
} from "./controls.js";

const SVG = "http://www.w3.org/2000/svg";
const photos = new Map(), hidden = new Set();
let session, current = null, shown = { found: [], truth: [] }, asked = 0;

// ---- requests to the server -----------------------------------------------------------------------------------

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("fashion-hydra app does not respond: was it stopped?");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

// ---- thresholds -----------------------------------------------------------------------------------------------

const setOwn = () => setSliders(session.thresholds, session.iouGrid, session.scoreFloor);
const thresholds = () => new URLSearchParams(sliderValues());

// ---- drawing --------------------------------------------------------------------------------------------------

function canvas(place, objects, photo) {
  const picture = make("img"), drawing = document.createElementNS(SVG, "svg");
  picture.src = `api/photos/${photo.number}/picture`;
  picture.alt = `${photo.name}, ${objects.length} objects`;
  [picture.width, picture.height] = photo.shown;
  drawing.setAttribute("viewBox", `0 0 ${photo.shown[0]} ${photo.shown[1]}`);
  drawing.setAttribute("aria-hidden", "true");
  objects.forEach((object, i) => {
    if (hidden.has(object.class)) return;
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", object.path);
    path.style.setProperty("--colour", session.classes[object.class].colour);
    path.dataset.object = i;
    drawing.append(path);
  });
  place.style.setProperty("--ratio", photo.shown[0] / photo.shown[1]);
  const old = place.querySelector("img");
  if (old && old.getAttribute("src") === picture.getAttribute("src")) place.querySelector("svg").replaceWith(drawing);
  else place.replaceChildren(picture, drawing);
  place.querySelector("img").alt = picture.alt;
}

function listed(objects) {
  const attributes = objects.some((object) => object.attributes.length);
  $("attributes-head").hidden = !attributes;
  $("objects").replaceChildren(...objects.map((object, i) => {
    const row = make("tr"), name = make("th");
    name.scope = "row";
    name.append(swatch(session.classes[object.class].colour), session.classes[object.class].name);
    row.append(name, make("td", object.score.toFixed(2), "n"));
    if (attributes) row.append(make("td", object.attributes.join(", ")));
    row.hidden = hidden.has(object.class);
    const mark = (on) => {
      row.classList.toggle("on", on);
      $("found").querySelector(`[data-object="${i}"]`)?.classList.toggle("on", on);
    };
    row.addEventListener("pointerenter", () => mark(true));
    row.addEventListener("pointerleave", () => mark(false));
    return row;
  }));
}

const classesShown = () => [...shown.found, ...shown.truth].map((object) => object.class);
const visible = (objects) => objects.filter((object) => !hidden.has(object.class)).length;

function draw() {
  const photo = current;
  canvas($("found"), shown.found, photo);
  $("found-caption").textContent = `${photo.name}: ${count(visible(shown.found), "object")} found`;
  $("truth-panel").hidden = !photo.hasTruth;
  if (photo.hasTruth) {
    canvas($("truth"), shown.truth, photo);
    $("truth-caption").textContent = `truth: ${count(visible(shown.truth), "object")}`;
  }
  listed(shown.found);
  showChips(classesShown(), hidden, (id) => session.classes[id]);
  links();
}

function links() {
  const query = thresholds();
  query.set("photos", $("every").checked ? [...photos.keys()].join(",") : String(current.number));
  if (hidden.size) query.set("drop", [...hidden].filter((id) => session.classes[id].known).join(","));
  for (const kind of ["masks", "coco", "csv"]) $(kind).href = `api/download/${kind}?${query}`;
}

// ---- photos ---------------------------------------------------------------------------------------------------

async function update() {
  const number = ++asked, photo = current, query = thresholds();
  try {
    const objects = await ask(`api/photos/${photo.number}/objects?${query}`);
    if (number !== asked) return; // the sliders have moved since
    shown = objects;
    draw();
    const hint = photo.candidates && !shown.found.length ? "; lower the score to see them" : "";
    $("status").textContent = `${count(shown.found.length, "object")} of ${photo.candidates} candidates${hint}`;
  } catch (error) {
    complain([error.message]);
  }
}

function choose(photo) {
  current = photo;
  $("work").hidden = false;
  for (const button of $("strip").querySelectorAll("button")) {
    const chosen = Number(button.dataset.photo) === photo.number;
    button.setAttribute("aria-pressed", String(chosen));
    if (chosen) button.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
  return update();
}

function keep(photo) {
  if (photos.has(photo.number)) return choose(photo);
  photos.set(photo.number, photo);
  const item = make("li"), button = make("button"), picture = make("img");
  button.type = "button";
  button.dataset.photo = photo.number;
  picture.src = `api/photos/${photo.number}/picture`;
  picture.alt = photo.name;
  button.append(picture);
  button.addEventListener("click", () => choose(photo));
  item.append(button);
  $("strip").append(item);
  return choose(photo);
}

async function send(files) {
  const wrong = [];
  complain([]);
  for (const [i, file] of [...files].entries()) {
    $("status").textContent = `predicting ${file.name} (${i + 1} of ${files.length}) …`;
    try {
      await ready;
      await keep(await ask(`api/photos?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file }));
    } catch (error) {
      wrong.push(error.message);
    }
  }
  if (wrong.length) $("status").textContent = "";
  if (wrong.length && current) await update();
  complain(wrong);
}

async function open(index) {
  const name = session.data[index];
  complain(name === undefined ? ["the data set has no photo with this name"] : []);
  if (name === undefined) return;
  $("data-name").value = name;
  $("status").textContent = `predicting ${name} …`;
  try {
    await keep(await ask(`api/data/${index}`, { method: "POST" }));
  } catch (error) {
    $("status").textContent = "";
    complain([error.message]);
  }
}

async function step(by) {
  const count = session.data.length, at = session.data.indexOf($("data-name").value);
  for (const id of ["previous", "next"]) $(id).disabled = true;
  await open(at < 0 ? (by < 0 ? count - 1 : 0) : (at + by + count) % count);
  for (const id of ["previous", "next"]) $(id).disabled = false;
}

// ---- events ---------------------------------------------------------------------------------------------------

onFiles(send);
$("data-name").addEventListener("change", () => open(session.data.indexOf($("data-name").value)));
$("previous").addEventListener("click", () => step(-1));
$("next").addEventListener("click", () => step(1));
onSliders(update, setOwn);
$("every").addEventListener("change", links);
onChips(hidden, classesShown, draw);

const ready = (async () => {
  session = await ask("api/session");
  $("model").textContent = `${session.model}: ${Object.values(session.classes).filter((one) => one.known).length} classes`;
  if (session.data.length) {
    $("data").hidden = false;
    $("data-names").append(...session.data.slice(0, 2000).map((name) => {
      const option = make("option");
      option.value = name;
      return option;
    }));
  }
  setOwn();
  thresholds();
})();
ready.catch((error) => complain([error.message]));
