const card = document.getElementById("card");
const panels = document.querySelector(".panels");

// ---- plots: a mark's figures, one line alone ----

function show(point) {
  const data = JSON.parse(point.dataset.card);
  card.replaceChildren();
  make("h3", data.title, card);
  const list = make("dl", "", card);
  for (const [heading, text] of data.figures) {
    make("dt", heading, list);
    make("dd", text, list);
  }
  place(card, point.getBoundingClientRect());
}

function hide() {
  card.hidden = true;
}

for (const point of panels.querySelectorAll(".point")) {
  point.addEventListener("pointerenter", () => show(point));
  point.addEventListener("pointerleave", hide);
  point.addEventListener("focus", () => show(point));
  point.addEventListener("blur", hide);
}
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hide();
});
addEventListener("scroll", hide, { passive: true });

const names = [...document.querySelectorAll(".legend button")];
for (const name of names) {
  name.addEventListener("click", () => {
    const pressed = name.getAttribute("aria-pressed") !== "true";
    for (const other of names) other.setAttribute("aria-pressed", pressed && other === name);
    panels.classList.toggle("one", pressed);
    for (const line of panels.querySelectorAll(".line")) {
      line.classList.toggle("chosen", line.dataset.line === name.dataset.line);
    }
  });
}

// ---- the table: sorted by a column, the best first; filtered by words ----

const body = document.querySelector("#table tbody");
const headings = [...document.querySelectorAll("#table thead th")];

function key(row, column) {
  const text = row.children[column].textContent;
  const value = parseFloat(text.replace("\u2212", "-"));
  return column === 0 ? text : value;
}

function compare(a, b) {
  if (typeof a === "string") return a.localeCompare(b);
  return Number.isNaN(a) - Number.isNaN(b) || a - b || 0;
}

headings.forEach((heading, column) => {
  heading.querySelector("button").addEventListener("click", () => {
    const first = column < 2 ? "ascending" : "descending";
    const other = column < 2 ? "descending" : "ascending";
    const order = heading.getAttribute("aria-sort") === first ? other : first;
    for (const each of headings) each.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const missing = (row) => Number.isNaN(key(row, column)); // last, whichever the order
    const rows = [...body.rows].sort(
      (a, b) => missing(a) - missing(b) || sign * compare(key(a, column), key(b, column)),
    );
    body.append(...rows);
  });
});

document.getElementById("filter").addEventListener("input", (event) => {
  const words = event.target.value.toLowerCase().split(/\s+/);
  for (const row of body.rows) {
    const text = `${row.children[0].textContent} T=${row.children[1].textContent}`.toLowerCase();
    row.hidden = !words.every((word) => text.includes(word));
  }
});

// ---- answers of two settings ----

const { examples, settings } = JSON.parse(document.getElementById("data").textContent);
const sides = [document.getElementById("left"), document.getElementById("right")];
const differing = document.getElementById("differing");

// Where two texts part, behind what they begin with alike and before what they end with alike.
function parted(a, b) {
  let start = 0;
  while (start < a.length && a[start] === b[start]) start++;
  let end = 0;
  while (end < Math.min(a.length, b.length) - start && a.at(-1 - end) === b.at(-1 - end)) end++;
  return [start, end];
}

function side(parent, answer, other) {
  const box = make("div", "", parent);
  if (!answer) {
    make("p", "not kept", box);
    return;
  }
  make("p", `${answer.made}, score ${answer.score}`, box);
  const text = make("pre", "", box);
  const [start, end] = other ? parted(answer.text, other.text) : [answer.text.length, 0];
  const stop = Math.max(start, answer.text.length - end);
  text.append(answer.text.slice(0, start));
  if (stop > start) make("mark", answer.text.slice(start, stop), text);
  text.append(answer.text.slice(stop));
}

function list() {
  const parent = document.getElementById("examples");
  parent.replaceChildren();
  const [left, right] = sides.map((select) => settings[select.value]);
  let differ = 0;
  examples.forEach((example, i) => {
    const [a, b] = [left[i], right[i]];
    const unlike = (a && a.text) !== (b && b.text);
    differ += unlike;
    if (differing.checked && !unlike) return;
    const one = make("article", "", parent, "example");
    const prompt = make("details", "", one);
    make("summary", `example ${example.id}: its prompt`, prompt);
    make("p", example.prompt, prompt, "prompt");
    const both = make("div", "", one, "both");
    side(both, a, b);
    side(both, b, a);
  });
  document.getElementById("count").textContent =
    `${differ} of the first ${examples.length} answers differ.`;
}

if (examples.length) {
  const all = Object.keys(settings);
  for (const select of sides) {
    for (const name of all) make("option", name, select).value = name;
    select.addEventListener("change", list);
  }
  const temperature = (name) => name.match(/T=\S+/)?.[0];
  const alike = all.findIndex((name, i) => i > 0 && temperature(name) === temperature(all[0]));
  sides[1].selectedIndex = Math.max(alike, 0);
  differing.addEventListener("change", list);
  document.getElementById("compare").hidden = false;
  list();
}
