"use strict";
// The page keeps all state: it sends latents along, and is answered with latents and the image that they decode to.
// Names of runs and of files are set as text, never as HTML.
const data = JSON.parse(document.getElementById("model").textContent);
const get = (id) => document.getElementById(id);
const UNUSED = 0.01; // activity, below which a latent is not used (Burda et al., arXiv:1509.00519, section 5.1)
const MOST_ACTIVE = Math.max(1e-9, ...data.latents.map((one) => one.activity));
const SMALL = 96; // pixels, below which an image is shown with its pixels
let start = null; // from where the sliders move: its latents, and their scores
let moves = {}; // scores by the number of the slider
let shown = null; // the answer on show
let title = ""; // of what the sliders move
const ends = [null, null];

// Questions are sent one after the other. Of those that wait, a slider's give way to its next one.
const waiting = [];
let asking = false;
const ask = async (kind, question, show) => {
  const old = waiting.findIndex((one) => one.kind === kind && kind !== "picture");
  if (old >= 0) waiting.splice(old, 1);
  waiting.push({ kind, question, show });
  if (asking) return;
  asking = true;
  while (waiting.length) {
    const next = waiting.shift();
    const answer = await answered(next.kind, next.question());
    say(answer.error ?? "");
    if (!answer.error) next.show(answer);
  }
  asking = false;
};
const answered = async (name, body) => {
  let response;
  try {
    response = await fetch(`/${name}`, { method: "POST", body });
  } catch {
    return { error: "vae-dist explore doesn't answer: start it again, and go on here." };
  }
  return response.json().catch(() => ({ error: "That failed; the terminal of vae-dist explore says why." }));
};
const say = (sentence) => { get("message").textContent = sentence; get("message").hidden = !sentence; };

const showImage = (answer) => { shown = answer; get("image").src = answer.image; };
const showCaption = () => { get("caption").textContent = Object.keys(moves).length ? `${title}, moved` : title; };
const begin = (answer, name, originalName) => {
  start = answer;
  moves = {};
  title = name;
  showImage(answer);
  showCaption();
  get("original").hidden = !answer.original;
  get("original").src = answer.original ?? "";
  get("original-caption").textContent = originalName ? originalName : "\u00a0";
  if (answer.remarks) say(`${originalName}: ${answer.remarks}.`);
  showSliders();
};

// Latents
const sliders = data.latents.map(({ name, activity }, number) => {
  const row = document.createElement("div"), label = document.createElement("label"), input = document.createElement("input");
  const use = document.createElement("span"), bar = document.createElement("i"), output = document.createElement("output");
  row.className = activity < UNUSED ? "slider unused" : "slider";
  use.className = "use";
  bar.style.width = `${100 * activity / MOST_ACTIVE}%`;
  label.htmlFor = input.id = `latent-${number}`;
  label.title = `activity ${activity.toPrecision(3)}: the variance of its posterior mean over images`;
  label.textContent = name;
  use.append(bar);
  label.append(use);
  Object.assign(input, { type: "range", min: -data.reach, max: data.reach, step: 0.05 });
  input.addEventListener("input", () => move(number, Number(input.value)));
  input.addEventListener("dblclick", () => move(number, null));
  row.append(label, input, output);
  get("sliders").append(row);
  return { row, input, output };
});
const showSliders = () => {
  sliders.forEach(({ row, input, output }, number) => {
    const score = moves[number] ?? start.scores[number];
    input.value = score;
    output.textContent = `${score < -0.005 ? "-" : ""}${Math.abs(score).toFixed(2)}`;
    row.classList.toggle("moved", number in moves);
  });
  get("reset").disabled = !Object.keys(moves).length;
};
const move = (number, score) => {
  if (!start) return;
  if (score === null) delete moves[number]; else moves[number] = score;
  showSliders();
  ask("move", () => JSON.stringify({ z: start.z, scores: moves }), (answer) => { showImage(answer); showCaption(); });
};
get("reset").addEventListener("click", () => { moves = {}; showSliders(); showImage(start); showCaption(); });

// Where to start from
const heldOut = (number, show) => ask("held-out", () => JSON.stringify({ number }), show);
const showHeldOut = () => heldOut(Math.trunc(Number(get("number").value) || 0), (answer) => {
  get("number").value = answer.number;
  begin(answer, "rebuilt", `${data.split} image ${answer.number}`);
});
const step = (by) => () => { get("number").value = Number(get("number").value) + by; showHeldOut(); };
get("back").addEventListener("click", step(-1));
get("on").addEventListener("click", step(1));
get("number").addEventListener("change", showHeldOut);

let drawn = -1;
const draw = () => {
  const seed = Math.abs(Math.trunc(Number(get("seed").value) || 0)), temperature = Math.abs(Number(get("temperature").value) || 0);
  ask("draw", () => JSON.stringify({ seed, temperature }), (answer) => {
    drawn = seed;
    begin(answer, `drawn, seed ${seed}${temperature === 1 ? "" : `, temperature ${temperature}`}`);
  });
};
get("draw").addEventListener("click", () => {
  if (Number(get("seed").value) === drawn) get("seed").value = drawn + 1;
  draw();
});
get("seed").addEventListener("change", draw);
get("temperature").addEventListener("change", draw);

const take = (file) => { if (file) ask("picture", () => file, (answer) => begin(answer, "rebuilt", file.name)); };
get("choose").addEventListener("click", () => get("file").click());
get("file").addEventListener("change", () => { take(get("file").files[0]); get("file").value = ""; });
addEventListener("paste", (event) => take(event.clipboardData.files[0]));
addEventListener("dragover", (event) => { event.preventDefault(); get("drop").classList.add("over"); });
addEventListener("dragleave", () => get("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  get("drop").classList.remove("over");
  take(event.dataTransfer.files[0]);
});

// Walk
const setEnd = (number, answer) => { ends[number] = answer; get(`end-${number}`).src = answer.image; };
[0, 1].forEach((number) => get(`take-${number}`).addEventListener("click", () => { if (shown) setEnd(number, shown); }));
get("share").addEventListener("input", () => {
  get("share-shown").textContent = `${Math.round(100 * get("share").value)} %`;
  if (!ends[0] || !ends[1]) return;
  const question = () => JSON.stringify({ start: ends[0].z, end: ends[1].z, share: Number(get("share").value) });
  ask("walk", question, (answer) => begin(answer, "on the walk"));
});

// Beginning
get("run").textContent = data.run;
get("facts").textContent = data.facts;
get("split").textContent = `${data.split} image`;
get("count").textContent = `of ${data.images.toLocaleString("en")}`;
get("note").textContent = data.note;
get("note").hidden = !data.note;
get("scale").textContent = `${data.explanation} The bar below a name is its activity. A double click puts a slider back.`;
get("image").addEventListener("load", () => document.body.classList.toggle("small", get("image").naturalHeight < SMALL));
heldOut(1, (answer) => {
  setEnd(1, answer);
  heldOut(0, (first) => { setEnd(0, first); begin(first, "rebuilt", `${data.split} image 0`); });
});
