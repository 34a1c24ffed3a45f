"use strict";
(() => {
  const records = JSON.parse(document.getElementById("records").textContent);
  const form = document.getElementById("filters");
  const pane = document.getElementById("window");
  const body = document.getElementById("rows");
  const heads = Array.from(document.getElementById("cases").tHead.rows[0].cells);
  const HEIGHT = 56; // px of a row, as in the style
  const MORE = 8; // rows drawn above and below those seen
  records.forEach((record, place) => (record.place = place));
  let order = records;
  let visible = records;
  let drawn = "";

  function cell(tag, text, side) {
    const one = document.createElement(tag);
    one.className = side;
    one.textContent = one.title = text;
    return one;
  }
  function row(record) {
    const one = document.createElement("tr");
    const head = cell("th", "", "t");
    head.scope = "row";
    head.title = record.name;
    const picture = document.createElement(record.thumbnail ? "img" : "span");
    if (record.thumbnail) [picture.src, picture.alt] = ["data:image/jpeg;base64," + record.thumbnail, ""];
    else picture.className = "none";
    const name = document.createElement(record.link ? "a" : "bdi");
    if (record.link) name.href = record.link;
    name.textContent = record.name;
    head.append(picture, name);
    one.append(head, ...record.cells.map((text, column) => cell("td", text, heads[column + 1].className)));
    return one;
  }
  function space(rows) {
    const one = document.createElement("tr");
    one.className = "space";
    one.setAttribute("aria-hidden", "true");
    one.append(document.createElement("td"));
    one.firstChild.colSpan = heads.length;
    one.firstChild.style.height = rows * HEIGHT + "px";
    return one;
  }
  // Only what is seen is in the page: ten thousand rows are as quick as forty.
  function draw(anew) {
    const first = Math.max(0, Math.floor(pane.scrollTop / HEIGHT) - MORE);
    const last = Math.min(visible.length, first + Math.ceil(pane.clientHeight / HEIGHT) + 2 * MORE);
    if (!anew && drawn === first + " " + last) return;
    drawn = first + " " + last;
    body.replaceChildren(space(first), ...visible.slice(first, last).map(row), space(visible.length - last));
  }

  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  function sort(column) {
    const head = heads[column];
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((one) => one.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (record) => (column === 0 ? record.place : record.orders[column - 1]);
    order = Array.from(records).sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === null || y === null) return (x === null) - (y === null) || a.place - b.place; // nothing sorts last
      return (up ? compare(x, y) : compare(y, x)) || a.place - b.place;
    });
    filter();
  }

  const field = (name) => (form.elements[name] ? form.elements[name].value.trim() : "");
  function within(value, key) {
    const [from, to] = [field(key + "-from"), field(key + "-to")];
    if (from === "" && to === "") return true;
    return value !== null && (from === "" || 100 * value >= Number(from)) && (to === "" || 100 * value <= Number(to));
  }
  function filter() {
    const [state, name, said] = [field("state"), field("name").toLowerCase(), field("class")];
    visible = order.filter(
      (one) =>
        (state === "all" || one.state === state || one.marks.includes(state)) &&
        one.name.toLowerCase().includes(name) &&
        (said === "" || one.class === said) &&
        within(one.probability, "probability") &&
        within(one.decidable, "decidable"),
    );
    document.getElementById("shown").textContent = visible.length + " of " + records.length + " images shown";
    pane.scrollTop = 0;
    draw(true);
  }

  document.getElementById("cases").tHead.addEventListener("click", (event) => {
    const head = event.target.closest("th");
    if (head && event.target.closest(".sort")) sort(heads.indexOf(head));
  });
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  pane.addEventListener("scroll", () => draw(false), { passive: true });
  addEventListener("resize", () => draw(false));
  form.hidden = false;
  filter();
})();
