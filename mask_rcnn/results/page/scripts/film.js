// A film enlarged: at full size, masks and outlines to switch on and off, reasons, measurements, a decision.

const details = new Map(); // by number of the file
const waiting = new Map();
const SVG = "http://www.w3.org/2000/svg";
let enlarged = -1; // of chosen
const layers = { masks: true, outlines: true, members: false };
let fullSize = false;

lungs.details = (chunk, list) => {
  details.set(chunk, list);
  waiting.get(chunk)?.();
};

async function detailsOf(place) {
  const chunk = Math.floor(place / films.chunk);
  if (!details.has(chunk)) {
    await new Promise((done) => {
      waiting.set(chunk, done);
      const script = element("script");
      script.src = `${films.files}/details/${chunk}.js`;
      script.onerror = done;
      document.head.append(script);
    });
  }
  return details.get(chunk)?.[place % films.chunk];
}

async function enlarge(at) {
  if (at < 0 || at >= chosen.length) return;
  enlarged = at;
  const place = chosen[at];
  const dialog = byId("film");
  if (!dialog.open) dialog.showModal();
  byId("film-name").textContent = films.file[place];
  byId("film-place").textContent = `${number(at + 1)} of ${number(chosen.length)}`;
  const agreement = films.agreement[place] === null ? "" : `, agreement ${films.agreement[place].toFixed(3)}`;
  const risk = films.risk[place] === null ? "" : `, risk ${films.risk[place].toFixed(3)}`;
  byId("film-status").textContent = films.titles[films.status[place]].toLowerCase() + risk + agreement;
  byId("film-reasons").replaceChildren();
  byId("previous").disabled = at === 0;
  byId("next").disabled = at === chosen.length - 1;
  showChoices();
  const film = await detailsOf(place);
  if (enlarged !== at) return;
  const notes = [];
  if (!film) notes.push("The files beside this page are missing: copy report_files with it.");
  byId("film-reasons").replaceChildren(...(film?.reasons ?? []).map((reason) => element("li", reason)));
  showPicture(place, film, notes);
  if (film) {
    showFacts(film);
    drawOutlines(film);
  }
  showLayers(film);
  byId("film-note").textContent = notes.join(" ");
  byId("film-note").hidden = notes.length === 0;
}

function showPicture(place, film, notes) {
  const picture = byId("picture");
  picture.alt = `${films.file[place]}, its lungs outlined`;
  picture.className = film?.invert ? "inverted" : "";
  picture.onerror = () => {
    picture.onerror = null;
    picture.className = "";
    byId("film-note").textContent = "The film is not where it was; this is its thumbnail. The same command finds it again.";
    byId("film-note").hidden = false;
    if (films.picture[place]) picture.src = `${films.files}/thumbnails/${films.picture[place]}`;
  };
  if (!film) return;
  const own = film.film.startsWith(`${films.files}/`);
  const chunk = Math.floor(place / films.chunk);
  picture.src = isServed && !own ? `film/${chunk}/${place % films.chunk}` : film.film;
  fit(film);
}

function fit(film) {
  const stage = byId("stage");
  const frame = byId("frame");
  const scale = Math.min(stage.clientWidth / film.width, stage.clientHeight / film.height);
  const shown = fullSize ? 1 : scale;
  frame.style.width = `${Math.max(1, Math.floor(film.width * shown))}px`;
  frame.style.height = `${Math.max(1, Math.floor(film.height * shown))}px`;
}

function path(polygons) {
  return polygons
    .map((points) => {
      const pairs = [];
      for (let k = 0; k < points.length; k += 2) pairs.push(`${points[k] + 0.5} ${points[k + 1] + 0.5}`);
      return `M${pairs.join("L")}Z`;
    })
    .join("");
}

function drawOutlines(film) {
  const drawing = byId("outlines");
  drawing.setAttribute("viewBox", `0 0 ${film.width} ${film.height}`);
  drawing.replaceChildren();
  const add = (polygons, name, colour) => {
    const shape = document.createElementNS(SVG, "path");
    shape.setAttribute("d", path(polygons));
    shape.setAttribute("class", name);
    shape.style.setProperty("--lung", colour);
    drawing.append(shape);
  };
  for (const [category, polygons] of Object.entries(film.lungs)) add(polygons, "mask", films.colours[category]);
  film.members.forEach((member, k) => {
    for (const [category, polygons] of Object.entries(member)) add(polygons, `member member-${k}`, films.colours[category]);
  });
  for (const [category, polygons] of Object.entries(film.lungs)) add(polygons, "outline", films.colours[category]);
}

function showLayers(film) {
  const members = film?.members.length ?? 0;
  const list = [["masks", "masks (M)"], ["outlines", "outlines (O)"]];
  if (members) list.push(["members", `outlines of the ${members} members (B)`]);
  const boxes = list.map(([name, text]) => {
    const label = element("label");
    const box = element("input");
    box.type = "checkbox";
    box.id = `layer-${name}`;
    box.checked = layers[name];
    box.onchange = () => toggle(name);
    label.append(box, ` ${text}`);
    return label;
  });
  byId("layers").replaceChildren(...boxes);
  for (const [name, isOn] of Object.entries(layers)) byId("outlines").classList.toggle(`no-${name}`, !isOn);
}

function toggle(name) {
  layers[name] = !layers[name];
  byId("outlines").classList.toggle(`no-${name}`, !layers[name]);
  const box = byId(`layer-${name}`);
  if (box) box.checked = layers[name];
}

async function toggleFullSize() {
  fullSize = !fullSize;
  const film = await detailsOf(chosen[enlarged]);
  if (film) fit(film);
}

function showFacts(film) {
  const cells = (tag, values) => {
    const row = element("tr");
    values.forEach((value, k) => row.append(element(k ? tag : "th", value === null ? "" : String(value), k ? "number" : "")));
    return row;
  };
  const head = film.lungFacts.length ? [cells("th", ["", ...Object.values(films.categories)])] : [];
  byId("lung-facts").replaceChildren(...head, ...film.lungFacts.map((row) => cells("td", row)));
  byId("film-facts").replaceChildren(...film.facts.map((row) => cells("td", row)));
}

function showChoices() {
  const place = chosen[enlarged];
  const own = decisionOn(place);
  const choice = (text, isOn, act) => {
    const made = element("button", text);
    made.type = "button";
    made.setAttribute("aria-pressed", String(isOn));
    made.onclick = () => { act(); showChoices(); };
    return made;
  };
  byId("choices").replaceChildren(
    choice("Accept (A)", own?.decision === "accept", () => decide(place, "accept", [])),
    choice("Reject (R)", own?.decision === "reject", () => decide(place, "reject", own?.wrong ?? [])),
    ...films.marks.map(([name, text], k) => choice(`${text} (${k + 1})`, own?.wrong.includes(name) ?? false, () => mark(place, name))),
    choice("Undo (U)", false, () => decide(place, "", [])),
  );
  byId("decided").textContent = words(place);
}

function decideByKey(key, place) {
  const marked = films.marks[Number(key) - 1];
  if (key === "a") decide(place, "accept", []);
  else if (key === "r") decide(place, "reject", decisionOn(place)?.wrong ?? []);
  else if (key === "u") decide(place, "", []);
  else if (marked) mark(place, marked[0]);
  else return false;
  return true;
}
