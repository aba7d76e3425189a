"use strict";
(() => {
  const form = document.getElementById("filters");
  if (!form) return;
  const place = document.querySelector(".cards");
  const cards = [...place.children];
  const groups = ["size", "crowdedness", "truncation"];
  const show = () => {
    const wanted = new FormData(form);
    const sign = wanted.get("order") === "down" ? -1 : 1;
    let shown = 0;
    for (const card of cards) {
      card.hidden = groups.some((group) => wanted.get(group) && wanted.get(group) !== card.dataset[group]);
      shown += card.hidden ? 0 : 1;
    }
    const found = cards.map((card, at) => [Number(card.dataset.iou), at, card]);
    found.sort((a, b) => sign * (a[0] - b[0]) || a[1] - b[1]);
    // A card that is moved loses the focus.
    if (found.some((item, at) => item[2] !== place.children[at])) place.append(...found.map((item) => item[2]));
    form.querySelector("output").value = `${shown} of ${cards.length} shown`;
    document.getElementById("none-left").hidden = shown > 0;
  };
  const follow = () => {
    const card = document.getElementById(location.hash.slice(1));
    if (!card || !cards.includes(card)) return;
    if (card.hidden) {
      form.reset();
      show();
      card.scrollIntoView();
    }
    card.focus({ preventScroll: true });
  };
  form.hidden = false;
  form.addEventListener("change", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(show));
  addEventListener("hashchange", follow);
  form.reset();
  show();
  follow();
})();
