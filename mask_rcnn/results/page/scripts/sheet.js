"use strict";
// The sheets: all films by risk, filtered, searched, a thousand a page, loading while scrolling.

const PER_PAGE = 1000;
const AT_ONCE = 60;
const byId = (id) => document.getElementById(id);
const lungs = {};
let films = null; // what index.js holds
let chosen = []; // places of the films that pass the filter, by risk
let firstOfPage = 0;
let shownUpTo = 0; // of chosen
let onPageShown = () => {};

function element(tag, text, name) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
}

function option(value, text) {
  const made = element("option", text);
  made.value = value;
  return made;
}

function number(value) {
  return value.toLocaleString("en");
}

function fillFilters() {
  const total = (status) => films.status.reduce((sum, own) => sum + (own === status), 0);
  byId("by-status").append(option("", "all"));
  for (const status of ["review", "rejected", "accepted"]) {
    if (total(status)) byId("by-status").append(option(status, `${films.titles[status].toLowerCase()} (${number(total(status))})`));
  }
  const counts = films.kinds.map(() => 0);
  for (const reasons of films.reasons) for (const kind of reasons) counts[kind] += 1;
  byId("by-reason").append(option("", "any or none"));
  films.kinds
    .map((kind, place) => [kind, place])
    .sort((one, other) => counts[other[1]] - counts[one[1]])
    .forEach(([kind, place]) => byId("by-reason").append(option(String(place), `${kind} (${number(counts[place])})`)));
  const decided = [["", "any or none"], ["none", "none yet"], ["accept", "accepted by you"], ["reject", "rejected by you"]];
  for (const [value, text] of decided) byId("by-decision").append(option(value, text));
}

function filterFilms() {
  const status = byId("by-status").value;
  const reason = byId("by-reason").value;
  const decision = byId("by-decision").value;
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  chosen = [];
  for (let place = 0; place < films.id.length; place += 1) {
    if (status && films.status[place] !== status) continue;
    if (reason && !films.reasons[place].includes(Number(reason))) continue;
    if (decision && (decisionOn(place)?.decision ?? "none") !== decision) continue;
    if (words.length) {
      const text = `${films.file[place]} ${films.sources[films.source[place]]}`.toLowerCase();
      if (!words.every((word) => text.includes(word))) continue;
    }
    chosen.push(place);
  }
  showPage(0);
}

function showPage(first) {
  firstOfPage = first;
  shownUpTo = first;
  byId("sheet").replaceChildren();
  const end = Math.min(first + PER_PAGE, chosen.length);
  const all = chosen.length === films.id.length ? "" : ` of ${number(films.id.length)}`;
  const unit = chosen.length === 1 && !all ? "film" : "films";
  byId("count").textContent = `${number(chosen.length)}${all} ${unit}, what is for review and least certain first`;
  for (const pager of document.querySelectorAll(".pager")) {
    pager.hidden = chosen.length <= PER_PAGE;
    pager.querySelector(".place").textContent = `${number(first + 1)} to ${number(end)} of ${number(chosen.length)}`;
    pager.querySelector(".earlier").disabled = first === 0;
    pager.querySelector(".later").disabled = end >= chosen.length;
  }
  showMore();
  onPageShown();
}

function showMore() {
  const end = Math.min(shownUpTo + AT_ONCE, firstOfPage + PER_PAGE, chosen.length);
  const cards = document.createDocumentFragment();
  for (; shownUpTo < end; shownUpTo += 1) cards.append(card(chosen[shownUpTo]));
  byId("sheet").append(cards);
}

function card(place) {
  const made = element("button", undefined, `film ${films.status[place]}`);
  made.type = "button";
  made.dataset.place = place;
  if (films.picture[place]) {
    const image = element("img");
    image.loading = "lazy";
    image.decoding = "async";
    image.alt = "";
    image.src = `${films.files}/thumbnails/${films.picture[place]}`;
    made.append(image);
  } else {
    made.append(element("span", "the file cannot be read any more", "missing"));
  }
  const [folder, name] = [films.file[place].replace(/[^/]*$/, ""), films.file[place].replace(/^.*\//, "")];
  const caption = element("span", undefined, "caption");
  caption.append(element("span", folder, "soft"), element("b", name));
  const words = films.reasons[place].map((kind) => films.kinds[kind]);
  caption.append(element("span", [films.titles[films.status[place]].toLowerCase(), ...words].join("; "), "why"));
  if (films.risk[place] !== null) caption.append(element("span", `risk ${films.risk[place].toFixed(2)}`));
  else if (films.agreement[place] !== null) caption.append(element("span", `agreement ${films.agreement[place].toFixed(2)}`));
  caption.append(element("span", "", "decision"));
  made.append(caption);
  showDecision(made, place);
  return made;
}

function cardOf(place) {
  return byId("sheet").querySelector(`[data-place="${place}"]`);
}

function moveFocus(key) {
  const cards = [...byId("sheet").children];
  const at = cards.indexOf(document.activeElement);
  if (at < 0) return false;
  const across = cards.filter((other) => other.offsetTop === cards[0].offsetTop).length;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across }[key];
  if (!step) return false;
  if (at + step >= cards.length) showMore();
  byId("sheet").children[at + step]?.focus();
  return true;
}
