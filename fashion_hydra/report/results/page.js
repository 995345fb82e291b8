function gallery() {
  const $ = (id) => document.getElementById(id);
  const palette = JSON.parse($("palette").textContent);
  const images = JSON.parse($("index").textContent);
  const blocks = [...document.querySelectorAll("script.image")];
  images.forEach((image, i) => { image.block = blocks[i]; image.low = image.id.toLowerCase(); });
  const cards = $("cards"), dialog = $("dialog"), section = $("gallery");
  const hidden = new Set(); // palette indices of the classes whose masks are hidden
  const content = (image) => JSON.parse(image.block.textContent); // not cached: the photos are large
  const make = (tag, text, name) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (name) element.className = name;
    return element;
  };
  const className = (kind) => `k-${kind.replace(" ", "-")}`;

  // ---- pictures -------------------------------------------------------------------------------------------------

  function photoOf(data, side) {
    if (data.photo === null) return make("span", side === "photo" ? data.fault : undefined);
    const photo = new Image();
    photo.alt = "";
    photo.decoding = "async";
    photo.src = `data:image/jpeg;base64,${data.photo}`;
    return photo;
  }

  function drawing(masks, side) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 512 512");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("class", `masks ${side}`);
    svg.setAttribute("aria-hidden", "true");
    // Draw large masks first, so that small masks are on top.
    const order = masks.map((mask, i) => i).filter((i) => masks[i].side === side);
    for (const i of order.sort((a, b) => masks[b].area - masks[a].area)) {
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      path.setAttribute("d", masks[i].path);
      path.dataset.class = masks[i].class;
      path.dataset.mask = i;
      path.style.setProperty("--colour", palette[masks[i].class].colour);
      if (masks[i].kind !== "hit") path.classList.add("error");
      path.toggleAttribute("hidden", hidden.has(masks[i].class));
      svg.append(path);
    }
    return svg;
  }

  function panels(data, wrap) {
    return ["photo", "truth", "prediction"].map((side) => {
      const parts = [photoOf(data, side)];
      if (side !== "photo") parts.push(drawing(data.masks, side));
      return wrap(side, parts);
    });
  }

  // ---- cards ----------------------------------------------------------------------------------------------------

  function describeKinds(image) {
    const parts = Object.entries(image.kinds).map(([kind, n]) => {
      const part = make("span");
      part.append(make("i", undefined, `dot ${className(kind)}`), `${n} ${kind === "hit" && n > 1 ? "hits" : kind}`);
      return part;
    });
    return parts.length ? parts : [make("span", "no masks")];
  }

  function shell(image) {
    const item = make("li", undefined, "card"), heading = make("h3"), line = make("p"), box = make("div");
    const open = make("button", image.id);
    open.type = "button";
    open.title = image.id;
    open.setAttribute("aria-haspopup", "dialog");
    open.addEventListener("click", () => show(image));
    heading.append(open, make("span", image.score.toFixed(3)));
    line.append(...describeKinds(image));
    box.className = "panels";
    box.style.setProperty("--ratio", image.width / image.height);
    box.setAttribute("role", "img");
    box.setAttribute("aria-label", `photo, ${image.true} true masks, ${image.predicted} predicted masks`);
    box.append(...[0, 1, 2].map(() => make("div", undefined, "panel")));
    item.append(heading, line, box);
    image.item = item;
    image.open = open;
    item.image = image;
    return item;
  }

  const near = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      const filled = panels(content(target.image), (side, parts) => {
        const panel = make("div", undefined, "panel");
        panel.append(...parts);
        return panel;
      });
      target.querySelector(".panels").replaceChildren(...filled);
    }
  }, { rootMargin: "800px" });

  // ---- sorting and filtering ------------------------------------------------------------------------------------

  const byName = (a, b) => (a.low < b.low ? -1 : a.low > b.low ? 1 : 0);
  const orders = {
    worst: (a, b) => a.score - b.score || b.errors - a.errors || byName(a, b),
    best: (a, b) => b.score - a.score || a.errors - b.errors || byName(a, b),
    errors: (a, b) => b.errors - a.errors || a.score - b.score || byName(a, b),
    attributes: (a, b) => b.wrongAttributes - a.wrongAttributes || a.score - b.score || byName(a, b),
    name: byName,
  };
  let shown = [];

  function update() {
    const kind = $("kind").value, text = $("text").value.trim().toLowerCase();
    const index = $("class").value === "" ? null : Number($("class").value);
    // With both filters set, a mask of the class must have the error.
    const classes = (image) => (kind ? image.classesByKind[kind] ?? [] : image.classes);
    shown = images.filter((image) => (index === null ? !kind || classes(image).length > 0 : classes(image).includes(index))
      && image.low.includes(text));
    shown.sort(orders[$("sort").value]);
    cards.replaceChildren(...shown.map((image) => {
      if (!image.item) near.observe(shell(image));
      return image.item;
    }));
    $("shown").textContent = `${shown.length} of ${images.length} images`;
  }

  $("tools").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["sort", "class", "kind"]) $(id).addEventListener("change", update);
  $("text").addEventListener("input", update);

  for (const link of document.querySelectorAll("a[data-show-class], a[data-show-kind]")) {
    link.addEventListener("click", () => {
      $("class").value = link.dataset.showClass ?? "";
      $("kind").value = link.dataset.showKind ?? "";
      $("text").value = "";
      update();
    });
  }

  // ---- what is drawn --------------------------------------------------------------------------------------------

  function toggleClass(button, wanted) {
    const index = Number(button.dataset.class);
    button.setAttribute("aria-pressed", wanted);
    if (wanted) hidden.delete(index); else hidden.add(index);
    for (const path of section.querySelectorAll(`path[data-class="${index}"]`)) path.toggleAttribute("hidden", !wanted);
  }

  const pressed = (button) => button.getAttribute("aria-pressed") === "true";
  const classButtons = [...document.querySelectorAll("button[data-class]")];
  for (const button of classButtons) button.addEventListener("click", () => toggleClass(button, !pressed(button)));
  for (const button of document.querySelectorAll("button[data-all]")) {
    button.addEventListener("click", () => classButtons.forEach((b) => toggleClass(b, button.dataset.all === "true")));
  }
  for (const button of document.querySelectorAll("button[data-draw]")) {
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", !pressed(button));
      section.classList.toggle(`no-${button.dataset.draw}`, !pressed(button));
    });
  }

  // ---- one image, large -----------------------------------------------------------------------------------------

  let current = null;

  function show(image) {
    current = image;
    const data = content(image), index = shown.indexOf(image);
    $("dialog-h").textContent = image.id;
    $("dialog-p").textContent = `score ${image.score.toFixed(4)}, image ${index + 1} of ${shown.length}`;
    // Not `disabled`: a disabled button loses the focus, and the arrow keys would stop working.
    $("previous").setAttribute("aria-disabled", index <= 0);
    $("next").setAttribute("aria-disabled", index >= shown.length - 1);
    $("dialog-panels").style.setProperty("--ratio", image.width / image.height);
    $("dialog-panels").replaceChildren(...panels(data, (side, parts) => {
      const figure = make("figure", undefined, "panel"), frame = make("div", undefined, "frame");
      const count = { truth: image.true, prediction: image.predicted }[side];
      const number = count === undefined ? "" : `: ${count} ${count === 1 ? "mask" : "masks"}`;
      frame.append(...parts);
      figure.append(make("figcaption", side + number), frame);
      return figure;
    }));
    $("dialog-masks").replaceChildren(...data.masks.map(row));
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  }

  function row(mask, i) {
    const line = make("tr"), name = make("td"), kind = make("td"), swatch = make("i", undefined, "sw");
    const full = mask.classId.includes("_") ? ` (${mask.classId})` : "";
    swatch.style.background = palette[mask.class].colour;
    name.append(swatch, palette[mask.class].name + full);
    const other = mask.with === null ? "" : ` (${palette[mask.with].name})`;
    kind.append(make("i", undefined, `dot ${className(mask.kind)}`), mask.kind + other);
    line.append(make("td", mask.side), name, kind, make("td", mask.iou.toFixed(2), "n"),
      make("td", mask.score === null ? "–" : mask.score.toFixed(3), "n"), make("td", mask.area, "n"));
    const mark = (on) => {
      line.classList.toggle("on", on);
      for (const path of dialog.querySelectorAll(`path[data-mask="${i}"]`)) path.classList.toggle("on", on);
    };
    line.addEventListener("pointerenter", () => mark(true));
    line.addEventListener("pointerleave", () => mark(false));
    return line;
  }

  function step(by) {
    const image = shown[shown.indexOf(current) + by];
    if (image) show(image);
  }

  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else return;
    event.preventDefault();
  });
  dialog.addEventListener("close", () => { if (current) current.open.focus(); });
  update();
}

if (document.getElementById("gallery")) gallery();
