// What the keyboard and the mouse do.

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input[type=search], select");
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (byId("film").open) {
    const actions = {
      ArrowLeft: () => enlarge(enlarged - 1), ArrowRight: () => enlarge(enlarged + 1), m: () => toggle("masks"),
      o: () => toggle("outlines"), b: () => toggle("members"), f: toggleFullSize,
    };
    if (fullSize && event.target === byId("stage") && key.startsWith("Arrow")) return; // scrolls
    if (actions[key]) actions[key]();
    else if (decideByKey(key, chosen[enlarged])) showChoices();
    else return;
    event.preventDefault();
  } else if (typing) {
    if (key === "Escape") byId("search").blur();
  } else if (key === "/") {
    byId("search").focus();
    event.preventDefault();
  } else if (moveFocus(key)) {
    event.preventDefault();
  } else if (document.activeElement?.dataset.place !== undefined) {
    decideByKey(key, Number(document.activeElement.dataset.place));
  }
}

lungs.index = async (index) => {
  films = index;
  await loadDecisions();
  fillFilters();
  byId("controls").hidden = false;
  for (const id of ["by-status", "by-reason", "by-decision"]) byId(id).onchange = filterFilms;
  byId("search").oninput = filterFilms;
  for (const [name, step] of [["earlier", -PER_PAGE], ["later", PER_PAGE]]) {
    for (const button of document.querySelectorAll(`.${name}`)) {
      button.onclick = () => { showPage(firstOfPage + step); byId("films").scrollIntoView(); };
    }
  }
  byId("sheet").onclick = (event) => {
    const shown = event.target.closest("[data-place]");
    if (shown) enlarge(chosen.indexOf(Number(shown.dataset.place)));
  };
  byId("previous").onclick = () => enlarge(enlarged - 1);
  byId("next").onclick = () => enlarge(enlarged + 1);
  byId("close").onclick = () => byId("film").close();
  byId("stage").onclick = toggleFullSize;
  byId("download").onclick = download;
  byId("film").onclose = () => {
    while (enlarged >= shownUpTo && shownUpTo < Math.min(firstOfPage + PER_PAGE, chosen.length)) showMore();
    cardOf(chosen[enlarged])?.focus();
  };
  document.addEventListener("keydown", onKey);
  addEventListener("resize", async () => {
    if (byId("film").open) fit(await detailsOf(chosen[enlarged]));
  });
  const watcher = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting) || shownUpTo >= Math.min(firstOfPage + PER_PAGE, chosen.length)) return;
    showMore();
    watcher.unobserve(byId("end")); // seen anew where the end is still in view
    watcher.observe(byId("end"));
  }, { rootMargin: "800px" });
  onPageShown = () => { watcher.unobserve(byId("end")); watcher.observe(byId("end")); };
  filterFilms();
  showSaved();
};
