"use strict";
// Shows the values of all series at the step below the pointer. Names of runs are set as text, never as HTML.
const data = JSON.parse(document.getElementById("curves").textContent);
const [left, plotWidth, width] = data.plot;
const REACH = 0.1; // share of the axis from which a value is still shown
const short = (value) => Number(value.toPrecision(5)).toLocaleString("en", { maximumSignificantDigits: 5 });

const nearest = (xs, step) => {
  let low = 0, high = xs.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] < step) low = middle + 1; else high = middle;
  }
  return low > 0 && step - xs[low - 1] < xs[low] - step ? low - 1 : low;
};

const entry = (series, index) => {
  const row = document.createElement("div"), key = document.createElement("span");
  key.className = `key ${series.colour}`;
  row.append(key, `${series.name} ${short(series.y[index])}`);
  return row;
};

document.querySelectorAll(".panel").forEach((panel, number) => {
  const { steps: [first, last], series } = data.panels[number];
  const svg = panel.querySelector("svg"), cursor = panel.querySelector(".cursor"), tip = panel.querySelector(".tip");
  const hide = () => { tip.hidden = true; cursor.setAttribute("hidden", ""); };
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const share = ((event.clientX - box.left) / box.width * width - left) / plotWidth;
    if (share < 0 || share > 1) return hide();
    const x = left + share * plotWidth, step = first + share * (last - first);
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    cursor.removeAttribute("hidden");
    const title = document.createElement("div");
    title.textContent = `step ${Math.round(step).toLocaleString("en")}`;
    const near = series.map((one) => [one, nearest(one.x, step)])
      .filter(([one, index]) => Math.abs(one.x[index] - step) <= REACH * (last - first));
    tip.replaceChildren(title, ...near.map(([one, index]) => entry(one, index)));
    tip.hidden = false;
    tip.style.left = share < 0.5 ? "auto" : "0.6rem";
    tip.style.right = share < 0.5 ? "0.6rem" : "auto";
  });
});
