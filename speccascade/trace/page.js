// Shows a token's card on hover, focus and tap; arrow keys step through an answer.
const card = document.getElementById("card");
let shown = null;

function show(token) {
  hide();
  const data = JSON.parse(token.dataset.card);
  card.replaceChildren();
  const head = make("p", "", card);
  make("b", data.text, head);
  make("span", data.name, head, "t " + data.kind);
  for (const [label, symbol, value, text] of data.bars) {
    const bar = make("div", "", card, "bar");
    const name = make("span", label + " ", bar);
    make("i", symbol, name);
    make("span", "", make("div", "", bar)).style.width = 100 * (value || 0) + "%";
    make("span", text, bar, "value");
  }
  const list = make("dl", "", card);
  for (const [label, text] of data.details.concat([["place", data.place]])) {
    make("dt", label, list);
    make("dd", text, list);
  }
  place(card, token.getClientRects()[0]);
  token.classList.add("shown");
  token.setAttribute("aria-describedby", "card");
  shown = token;
}

function hide() {
  if (!shown) return;
  shown.classList.remove("shown");
  shown.removeAttribute("aria-describedby");
  shown = null;
  card.hidden = true;
}

function enter(answer, token) {
  for (const other of answer.querySelectorAll('.t[tabindex="0"]')) other.tabIndex = -1;
  token.tabIndex = 0;
}

for (const answer of document.querySelectorAll(".answer")) {
  const first = answer.querySelector(".t");
  if (first) enter(answer, first);
  answer.addEventListener("pointerover", (event) => {
    const token = event.target.closest(".t");
    if (token) show(token);
  });
  answer.addEventListener("pointerleave", (event) => {
    if (event.pointerType === "mouse") hide();
  });
  answer.addEventListener("focusin", (event) => {
    enter(answer, event.target);
    show(event.target);
  });
  answer.addEventListener("focusout", hide);
  answer.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const tokens = [...answer.querySelectorAll(".t")].filter((t) => t.getClientRects().length);
    const next = tokens[tokens.indexOf(event.target) + step];
    if (next) next.focus();
    event.preventDefault();
  });
}
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hide();
});
document.addEventListener("pointerdown", (event) => {
  if (!event.target.closest(".answer .t")) hide();
});
addEventListener(
  "scroll",
  () => {
    if (shown && shown === document.activeElement) show(shown);
    else hide();
  },
  { passive: true },
);
