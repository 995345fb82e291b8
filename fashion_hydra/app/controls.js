// Messages, sliders, chips and file input, shared by fashion-hydra app and the page without a server (docs/demo).

export const $ = (id) => document.getElementById(id);
export const count = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
const SLIDERS = ["score_thr", "iou_thr", "mask_thr", "min_area"];

export function make(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

export function complain(lines) {
  $("alert").hidden = lines.length === 0;
  $("alert").textContent = lines.join("\n");
}

// ---- sliders ----------------------------------------------------------------------------------------------------

// Two sliders step through lists: the IoU thresholds for which the candidates are exact, and areas that double at each
// step. Both lists include the model's own value.
const lists = {};

/** Set the sliders to the model's own thresholds. */
export function setSliders(own, iouGrid, scoreFloor) {
  const sizes = [...Array(13).keys()].map((power) => 2 ** power);
  lists.iou_thr = iouGrid;
  lists.min_area = [...new Set([...sizes, own.min_area])].sort((a, b) => a - b);
  $("score_thr").min = scoreFloor;
  for (const name of SLIDERS) {
    const list = lists[name];
    if (list) $(name).max = list.length - 1;
    $(name).value = list ? list.indexOf(own[name]) : own[name];
  }
}

/** Return the sliders' thresholds by name, as text, and show them beside the sliders. */
export function sliderValues() {
  return Object.fromEntries(SLIDERS.map((name) => {
    const value = String(lists[name] ? lists[name][$(name).value] : $(name).value);
    $(`${name}-value`).textContent = value;
    $(name).setAttribute("aria-valuetext", value);
    return [name, value];
  }));
}

/** Call update shortly after a slider moves, and immediately after a reset by setOwn. */
export function onSliders(update, setOwn) {
  let waiting = null;
  for (const name of SLIDERS) {
    $(name).addEventListener("input", () => {
      sliderValues();
      clearTimeout(waiting);
      waiting = setTimeout(update, 15);
    });
  }
  $("reset").addEventListener("click", () => {
    setOwn();
    update();
  });
}

// ---- classes ----------------------------------------------------------------------------------------------------

export function swatch(colour) {
  const element = make("i", undefined, "sw");
  element.style.background = colour;
  return element;
}

/** Show a chip for each class in classes; describe returns name and colour of a class. */
export function showChips(classes, hidden, describe) {
  const focused = document.activeElement?.dataset?.class;
  $("chips").replaceChildren(...[...new Set(classes)].sort((a, b) => a - b).map((id) => {
    const chip = make("button"), { name, colour } = describe(id);
    chip.type = "button";
    chip.dataset.class = id;
    chip.append(swatch(colour), name);
    chip.setAttribute("aria-pressed", String(!hidden.has(id)));
    return chip;
  }));
  if (focused !== undefined) $("chips").querySelector(`[data-class="${focused}"]`)?.focus();
}

/** Hide or show classes when their chip, "all" or "none" is pressed; classes returns the objects' classes. */
export function onChips(hidden, classes, draw) {
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
      if (button.dataset.all === "false") classes().forEach((id) => hidden.add(id));
      draw();
    });
  }
}

// ---- files ------------------------------------------------------------------------------------------------------

/** Pass files that are chosen, dropped or pasted to take. */
export function onFiles(take) {
  $("file").addEventListener("change", async () => {
    const files = [...$("file").files];
    $("file").value = "";
    await take(files);
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
    if (event.dataTransfer?.files.length) take(event.dataTransfer.files);
  });
  addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) take(event.clipboardData.files);
  });
  for (const form of ["drop", "controls"]) $(form).addEventListener("submit", (event) => event.preventDefault());
}
