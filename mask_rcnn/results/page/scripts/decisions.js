// Decisions: kept by the browser; saved by a button, or at once where the page comes from the review command.

let isServed = false; // by the review command
let decisions = new Map(); // by image id: {decision, wrong, decided}, decision empty where one was taken back
let placeOf = new Map(); // by image id
const storageKey = () => `lungs-decisions-${films.key}`;

function decisionOn(place) {
  const own = decisions.get(films.id[place]);
  return own && own.decision ? own : undefined;
}

function keep(image, decision, wrong, decided) {
  const other = decisions.get(image);
  if (!other || other.decided <= decided) decisions.set(image, { decision, wrong, decided });
}

async function loadDecisions() {
  placeOf = new Map(films.id.map((image, place) => [image, place]));
  const load = (list) => list.forEach(([image, decision, wrong, decided]) => keep(image, decision, wrong, decided));
  if (location.protocol.startsWith("http")) {
    const answer = await fetch("decisions").catch(() => null);
    isServed = answer?.ok ?? false;
    if (isServed) return load(await answer.json());
  }
  load(films.decisions);
  try {
    const kept = JSON.parse(localStorage.getItem(storageKey()) || "[]");
    for (const [image, own] of kept) if (placeOf.has(image)) keep(image, own.decision, own.wrong, own.decided);
  } catch (error) { /* a browser that keeps nothing */ }
  return undefined;
}

function storeDecisions() {
  try {
    localStorage.setItem(storageKey(), JSON.stringify([...decisions]));
    return true;
  } catch (error) {
    return false;
  }
}

function decide(place, decision, wrong) {
  const decided = new Date().toISOString().replace(/\.\d+Z$/, "+00:00");
  decisions.set(films.id[place], { decision, wrong, decided });
  const shown = cardOf(place);
  if (shown) showDecision(shown, place);
  if (isServed) send(place);
  else showSaved(storeDecisions() ? "" : "This browser keeps nothing: save the file before you leave the page. ");
}

function mark(place, name) {
  const wrong = decisionOn(place)?.wrong ?? [];
  const marks = wrong.includes(name) ? wrong.filter((other) => other !== name) : [...wrong, name];
  decide(place, "reject", films.marks.map(([own]) => own).filter((own) => marks.includes(own)));
}

function words(place) {
  const own = decisionOn(place);
  if (!own) return "";
  const marks = films.marks.filter(([name]) => own.wrong.includes(name)).map(([, text]) => text);
  return (own.decision === "accept" ? "accepted by you" : "rejected by you") + (marks.length ? `: ${marks.join(", ")}` : "");
}

function showDecision(shown, place) {
  shown.querySelector(".decision").textContent = words(place);
  shown.dataset.decision = decisionOn(place)?.decision ?? "";
}

function showSaved(before = "") {
  const made = [...decisions.values()].filter((own) => own.decision).length;
  const many = `${number(made)} ${made === 1 ? "decision" : "decisions"}`;
  const where = isServed ? "saved in decisions.csv." : "kept by this browser; save the file beside the results to use them.";
  byId("saving").hidden = made === 0 && !before;
  byId("saved").textContent = `${before}${many} ${where}`;
}

async function send(place) {
  const own = decisions.get(films.id[place]);
  const body = { image_id: films.id[place], file: films.file[place], decision: own.decision, wrong: own.wrong };
  try {
    const answer = await fetch("decisions", {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
    });
    if (!answer.ok) throw new Error(await answer.text());
    showSaved();
  } catch (error) {
    showSaved(`Not saved (${error.message}): is the review command still running? Save the file by the button. `);
  }
}

function cell(text) {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function table() {
  const rows = [...decisions]
    .filter(([image, own]) => own.decision && placeOf.has(image))
    .map(([image, own]) => [String(image), films.file[placeOf.get(image)], own.decision, own.wrong.join(";"), own.decided])
    .sort((one, other) => (one[1] < other[1] ? -1 : 1));
  return [["image_id", "file", "decision", "wrong", "decided"], ...rows].map((row) => row.map(cell).join(",") + "\n").join("");
}

function download() {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([table()], { type: "text/csv" }));
  link.download = "decisions.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
