"use strict";
(() => {
  const table = document.getElementById("cases");
  if (!table) return;
  const form = document.getElementById("filters");
  const shown = document.getElementById("shown");
  const groups = Array.from(table.tBodies);
  const heads = Array.from(table.tHead.rows[0].cells);
  let order = groups;

  // What a group is sorted by: a number where it is one; nothing sorts last, whichever way.
  const value = (group, column) => {
    const text = column === 0 ? group.dataset.place : group.rows[0].cells[column].dataset.order;
    return text === "" ? null : Number.isNaN(Number(text)) ? text : Number(text);
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });

  function sort(column) {
    const head = heads[column];
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((one) => one.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const keys = new Map(groups.map((group) => [group, value(group, column)]));
    order = Array.from(groups).sort((a, b) => {
      const [x, y] = [keys.get(a), keys.get(b)];
      if (x === null || y === null) return (x === null) - (y === null) || a.dataset.place - b.dataset.place;
      return (up ? compare(x, y) : compare(y, x)) || a.dataset.place - b.dataset.place;
    });
    table.append(...order);
  }

  const field = (name) => (form.elements[name] ? form.elements[name].value.trim() : "");
  function within(group, key) {
    const [from, to] = [field(key + "-from"), field(key + "-to")];
    if (from === "" && to === "") return true;
    if (!group.dataset[key]) return false;
    const percent = 100 * Number(group.dataset[key]);
    return (from === "" || percent >= Number(from)) && (to === "" || percent <= Number(to));
  }
  function wanted(group) {
    const state = field("state");
    const fits = state === "all" || (["wrong", "strange"].includes(state) ? group.dataset[state] === "yes" : group.dataset.state === state);
    const name = group.querySelector(".name").textContent.toLowerCase();
    return (
      fits &&
      name.includes(field("name").toLowerCase()) &&
      (field("class") === "" || group.dataset.class === field("class")) &&
      within(group, "probability") &&
      within(group, "decidable")
    );
  }
  function filter() {
    let count = 0;
    for (const group of groups) {
      group.hidden = !wanted(group);
      count += !group.hidden;
    }
    shown.textContent = count + " of " + groups.length + " images shown";
  }

  function toggle(group, open) {
    group.rows[1].hidden = !open;
    group.querySelector(".open").setAttribute("aria-expanded", String(open));
  }
  const isOpen = (group) => !group.rows[1].hidden;
  function go(group, step) {
    const visible = order.filter((one) => !one.hidden);
    const next = visible[visible.indexOf(group) + step];
    if (!next) return;
    toggle(group, false);
    show(next);
  }
  function show(group) {
    toggle(group, true);
    group.scrollIntoView({ block: "start" });
    group.querySelector(".open").focus({ preventScroll: true });
  }

  table.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("th");
    if (head && event.target.closest(".sort")) sort(heads.indexOf(head));
  });
  table.addEventListener("click", (event) => {
    const group = event.target.closest("tbody");
    if (!group) return;
    const button = event.target.closest("button");
    const part = event.target.closest(".part, .enlarge");
    if (part) {
      const figure = part.closest("figure");
      const large = figure.classList.toggle("large");
      figure.querySelector(".enlarge").setAttribute("aria-pressed", String(large));
    } else if (!button) return;
    else if (button.matches(".open")) toggle(group, !isOpen(group));
    else if (button.matches(".next")) go(group, 1);
    else if (button.matches(".previous")) go(group, -1);
    else if (button.matches(".close")) {
      toggle(group, false);
      group.querySelector(".open").focus();
    }
  });
  table.addEventListener("keydown", (event) => {
    const group = event.target.closest("tbody");
    if (!group || !isOpen(group) || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowRight") go(group, 1);
    else if (event.key === "ArrowLeft") go(group, -1);
    else if (event.key === "Escape") {
      toggle(group, false);
      group.querySelector(".open").focus();
    } else return;
    event.preventDefault();
  });
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  document.getElementById("open-all").addEventListener("click", () => {
    for (const group of groups) if (!group.hidden) toggle(group, true);
  });
  document.getElementById("close-all").addEventListener("click", () => {
    for (const group of groups) toggle(group, false);
  });

  for (const button of table.querySelectorAll("button")) button.disabled = false;
  form.hidden = false;
  filter();
  const target = /^#image-\d+$/.test(location.hash) && document.getElementById(location.hash.slice(1));
  if (target) show(target);
})();
