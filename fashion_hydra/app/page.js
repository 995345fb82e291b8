"use strict";
{
  const $ = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  const SLIDERS = ["score_thr", "iou_thr", "mask_thr", "min_area"];
  const photos = new Map(), hidden = new Set();
  let session, current = null, shown = { found: [], truth: [] }, asked = 0, waiting = null;

  function make(tag, text, className) {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  }

  // ---- talking to the server ------------------------------------------------------------------------------------

  async function ask(path, options) {
    let response;
    try {
      response = await fetch(path, options);
    } catch {
      throw new Error("fashion-hydra app does not answer: was it stopped?");
    }
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    return answer;
  }

  function complain(lines) {
    $("alert").hidden = lines.length === 0;
    $("alert").textContent = lines.join("\n");
  }

  // ---- thresholds -----------------------------------------------------------------------------------------------

  // Two sliders go through lists: the overlaps that the candidates are exact for, and sizes that grow twofold. Those of
  // the model are among them.
  const lists = {};

  function setOwn() {
    const own = session.thresholds, sizes = [...Array(13).keys()].map((power) => 2 ** power);
    lists.iou_thr = session.iouGrid;
    lists.min_area = [...new Set([...sizes, own.min_area])].sort((a, b) => a - b);
    $("score_thr").min = session.scoreFloor;
    for (const name of SLIDERS) {
      const list = lists[name];
      if (list) $(name).max = list.length - 1;
      $(name).value = list ? list.indexOf(own[name]) : own[name];
    }
  }

  function thresholds() {
    const query = new URLSearchParams();
    for (const name of SLIDERS) {
      const value = String(lists[name] ? lists[name][$(name).value] : $(name).value);
      query.set(name, value);
      $(`${name}-value`).textContent = value;
      $(name).setAttribute("aria-valuetext", value);
    }
    return query;
  }

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
      const row = make("tr"), name = make("th"), swatch = make("i", undefined, "sw");
      name.scope = "row";
      swatch.style.background = session.classes[object.class].colour;
      name.append(swatch, session.classes[object.class].name);
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

  function chips() {
    const classes = [...new Set([...shown.found, ...shown.truth].map((object) => object.class))]
      .sort((a, b) => a - b);
    const focused = document.activeElement?.dataset?.class;
    $("chips").replaceChildren(...classes.map((id) => {
      const chip = make("button"), swatch = make("i", undefined, "sw");
      chip.type = "button";
      chip.dataset.class = id;
      swatch.style.background = session.classes[id].colour;
      chip.append(swatch, session.classes[id].name);
      chip.setAttribute("aria-pressed", String(!hidden.has(id)));
      return chip;
    }));
    if (focused !== undefined) $("chips").querySelector(`[data-class="${focused}"]`)?.focus();
  }

  const visible = (objects) => objects.filter((object) => !hidden.has(object.class)).length;
  const count = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

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
    chips();
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
      if (number !== asked) return; // the sliders have moved on
      shown = objects;
      draw();
      $("status").textContent = `${count(shown.found.length, "object")} of ${photo.candidates} candidates`;
    } catch (error) {
      complain([error.message]);
    }
  }

  function choose(photo) {
    current = photo;
    $("work").hidden = false;
    for (const button of $("strip").querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.photo) === photo.number));
    }
    return update();
  }

  function keep(photo) {
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
      $("status").textContent = `looking at ${file.name} (${i + 1} of ${files.length}) …`;
      try {
        await ready;
        await keep(await ask(`api/photos?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file }));
      } catch (error) {
        wrong.push(error.message);
      }
    }
    if (wrong.length === files.length) $("status").textContent = "";
    complain(wrong);
  }

  // ---- what people do -------------------------------------------------------------------------------------------

  $("file").addEventListener("change", async () => {
    const files = [...$("file").files];
    $("file").value = "";
    await send(files);
  });
  for (const name of ["dragenter", "dragover"]) {
    addEventListener(name, (event) => {
      event.preventDefault();
      $("drop").classList.add("over");
    });
  }
  for (const name of ["dragleave", "drop"]) addEventListener(name, () => $("drop").classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer?.files.length) send(event.dataTransfer.files);
  });
  addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) send(event.clipboardData.files);
  });
  $("data-name").addEventListener("change", async () => {
    const index = session.data.indexOf($("data-name").value);
    complain(index < 0 ? ["the data set has no photo of that name"] : []);
    if (index < 0) return;
    $("status").textContent = `looking at ${$("data-name").value} …`;
    try {
      await keep(await ask(`api/data/${index}`, { method: "POST" }));
    } catch (error) {
      $("status").textContent = "";
      complain([error.message]);
    }
  });
  for (const form of ["drop", "controls"]) $(form).addEventListener("submit", (event) => event.preventDefault());
  for (const name of SLIDERS) {
    $(name).addEventListener("input", () => {
      thresholds();
      clearTimeout(waiting);
      waiting = setTimeout(update, 15);
    });
  }
  $("reset").addEventListener("click", () => {
    setOwn();
    update();
  });
  $("every").addEventListener("change", links);
  $("chips").addEventListener("click", (event) => {
    const chip = event.target.closest("button");
    if (!chip) return;
    const id = Number(chip.dataset.class);
    if (!hidden.delete(id)) hidden.add(id);
    draw();
  });
  for (const button of document.querySelectorAll("[data-all]")) {
    button.addEventListener("click", () => {
      hidden.clear();
      if (button.dataset.all === "false") [...shown.found, ...shown.truth].forEach((object) => hidden.add(object.class));
      draw();
    });
  }

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
}
