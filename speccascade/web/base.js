"use strict";
function make(tag, text, parent, className) {
  const element = document.createElement(tag);
  element.textContent = text;
  if (className) element.className = className;
  parent.append(element);
  return element;
}

// Shows a card below something, or above where there is no room, within the window.
function place(card, at) {
  card.hidden = false;
  const left = Math.min(at.left, innerWidth - card.offsetWidth - 8);
  const below = at.bottom + 10;
  const above = at.top - card.offsetHeight - 10;
  card.style.left = Math.max(8, left) + "px";
  card.style.top = (below + card.offsetHeight < innerHeight || above < 0 ? below : above) + "px";
}

