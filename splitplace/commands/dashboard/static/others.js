import { el, svg, percent, ms, number, megabytes, table, taskLink, get } from "./dom.js";
import { T } from "./texts.js";

export async function networksPage() {
  const all = await get("/api/networks");
  return [el("h1", {}, T.pages.networks), all.length === 0 ? el("p", {}, T.networks.empty) : null,
    ...all.flatMap((network) => [
      el("h2", {}, `${network.title} (${network.name})`),
      el("p", { class: "quiet" }, `${T.networks.input} ${network.input_shape.join(" × ")}, ${network.labels} ${T.networks.labels}, ${T.networks.deadline} ${ms(network.default_deadline_ms)}`),
      table(network.name, [[T.networks.variant], [T.networks.kind], [T.networks.accuracy, true], [T.networks.time, true], [T.networks.memory, true], [T.networks.stages]],
        network.variants.map((each) => ({ cells: [each.name, each.kind, percent(each.accuracy), ms(each.milliseconds), megabytes(Math.max(...each.stages.map(([, , bytes]) => bytes))), each.stages.map(([name]) => name).join(", ")] }))),
      accuracyOverTime(network),
      el("ul", { class: "quiet" }, network.pieces.map(([name, count, bytes]) => el("li", {}, T.networks.pieces(name, count, megabytes(bytes))))),
    ])].filter(Boolean);
}

function accuracyOverTime({ variants }) {
  const slowest = Math.max(...variants.map((each) => each.milliseconds), 1e-9), values = variants.map((each) => each.accuracy);
  const low = Math.min(...values) - 0.01, high = Math.max(...values) + 0.01;
  const x = (value) => 20 + (460 * value) / slowest, y = (value) => 130 - (110 * (value - low)) / (high - low);
  return svg("svg", { viewBox: "0 0 640 160", role: "img", "aria-label": T.networks.chart, class: "square" },
    svg("line", { class: "axis", x1: 20, x2: 600, y1: 135, y2: 135 }), svg("line", { class: "axis", x1: 20, x2: 20, y1: 10, y2: 135 }),
    variants.map((each) => svg("g", {}, svg("circle", { class: "dot", cx: x(each.milliseconds), cy: y(each.accuracy), r: 4 }),
      svg("text", { x: x(each.milliseconds) + 7, y: y(each.accuracy) + 4 }, each.name), svg("title", {}, `${each.name}: ${percent(each.accuracy)}, ${ms(each.milliseconds)}`))),
    svg("text", { x: 20, y: 153 }, T.networks.axes));
}

export async function sensorsPage() {
  const all = await get("/api/sensors");
  if (all.length === 0) return [el("h1", {}, T.pages.sensors), el("p", {}, T.sensors.empty)];
  const has = all.some((s) => s.picture);
  return [el("h1", {}, T.pages.sensors), el("p", { class: "quiet" }, T.sensors.quota, has ? "" : ` ${T.sensors.noPictures}`), table(T.pages.sensors,
    [...(has ? [[T.sensors.picture]] : []), [T.sensors.sensor], [T.tasks.application], [T.sensors.label], [T.sensors.last], [T.sensors.perMinute, true], [T.sensors.underWay, true], [T.sensors.finished, true], [T.sensors.share, true], [T.sensors.lateShare, true], [T.sensors.late, true], [T.sensors.refused, true], [T.sensors.lost, true]],
    all.map((s) => ({ cells: [...(has ? [thumbnail(s)] : []), s.sensor, s.application, s.label === null ? null : `${s.label} (${percent(s.confidence)})`, s.last_outcome, String(s.per_minute), ofQuota(s), String(s.finished), percent(s.finished ? s.on_time / s.finished : null), percent(s.late_ratio), String(s.late), String(s.refused), String(s.lost)] })))];
}

const NEARLY = 0.9;
const ofQuota = (s) => (s.quota === null ? String(s.under_way) : el("span", { class: s.quota_ratio > NEARLY ? "strained" : null }, `${s.under_way} / ${s.quota}`));

// The number of its finished tasks is part of the address: the picture comes again once it is answered.
const thumbnail = (s) => (s.picture ? el("img", { class: "thumb", alt: T.sensors.pictureOf(s.sensor), src: `/api/tasks/${encodeURIComponent(s.picture)}/picture?n=${s.finished}` }) : null);

export async function tryPage() {
  const networks = await get("/api/networks");
  if (networks.length === 0) return [el("h1", {}, T.pages.try), el("p", {}, T.networks.empty)];
  let picture = null;
  const preview = el("img", { class: "picture", alt: T.try.picture, hidden: true });
  const answer = el("div", { id: "answer", role: "status" });
  const take = (file) => {
    if (!file) return;
    picture = file;
    URL.revokeObjectURL(preview.src);
    preview.src = URL.createObjectURL(file);
    preview.hidden = false;
  };
  const file = el("input", { type: "file", id: "picture", accept: "image/*", onchange: (event) => take(event.target.files[0]) });
  const application = el("select", { id: "application" }, networks.map((each) => el("option", { value: each.name }, each.title)));
  const deadline = el("input", { type: "number", id: "deadline", min: 1, value: 1000 });
  const drop = el("div", { class: "drop",
    ondragover: (event) => { event.preventDefault(); drop.classList.add("over"); },
    ondragleave: () => drop.classList.remove("over"),
    ondrop: (event) => { event.preventDefault(); drop.classList.remove("over"); take(event.dataTransfer.files[0]); } },
  el("label", {}, T.try.drop, file), preview);
  const send = async (event) => {
    event.preventDefault();
    if (!picture) { file.focus(); return; }
    answer.replaceChildren(T.try.sending);
    const query = new URLSearchParams({ application: application.value, deadline_ms: deadline.value });
    try {
      const got = await fetch(`/api/try?${query}`, { method: "POST", body: picture });
      const content = await got.json();
      const drawn = got.ok ? await shown(content, preview) : [el("p", { class: "broken" }, content.error)];
      answer.replaceChildren(...drawn);
      if (got.ok) answer.append(...(await others(got.headers.get("splitplace-task"))));
    } catch (error) { answer.replaceChildren(el("p", { class: "broken" }, error.message)); }
  };
  return [el("h1", {}, T.pages.try), drop,
    el("form", { onsubmit: send }, el("label", {}, T.try.application, application), el("label", {}, T.try.deadline, deadline), el("button", {}, T.try.send)), answer];
}

function inWords(found) {
  const named = (all, share) => all.slice(0, 5).map((each) => `${each.label} (${percent(each[share])})`).join(", ");
  switch (found.kind) {
    case "detection": return named(found.objects, "confidence") || T.none;
    case "multi-label": return named(found.labels, "confidence") || T.none;
    case "segmentation": return named(found.regions, "share") || T.none;
    case "sequence": return found.text || T.none;
    case "embedding": return found.values.slice(0, 5).map((value) => value.toPrecision(3)).join(" ");
    case "tensors": return found.tensors.map((each) => `${each.name} ${each.dtype}[${each.shape}]`).join(", ");
    default: return `${found.label} (${percent(found.confidence)})`;
  }
}

function withBoxes(picture, objects, words) {
  const canvas = el("canvas", { class: "picture", role: "img", "aria-label": words });
  const pen = canvas.getContext("2d");
  canvas.width = picture.naturalWidth;
  canvas.height = picture.naturalHeight;
  pen.drawImage(picture, 0, 0);
  const size = Math.max(12, Math.round(canvas.height / 32));
  pen.lineWidth = Math.max(2, size / 8);
  pen.font = `${size}px sans-serif`;
  pen.textBaseline = "top";
  for (const { label, index, confidence, box: [left, top, right, bottom] } of [...objects].reverse()) {
    pen.strokeStyle = pen.fillStyle = `hsl(${(index * 222.5) % 360} 90% 55%)`;
    pen.strokeRect(left, top, right - left, bottom - top);
    const text = `${label} ${percent(confidence)}`;
    const at = Math.max(0, top - size - 4);
    pen.fillRect(left, at, pen.measureText(text).width + 8, size + 4);
    pen.fillStyle = "black";
    pen.fillText(text, left + 4, at + 2);
  }
  return canvas;
}

// What was found is a picture of class numbers; it is laid over the picture in the colours of the boxes.
async function withMap(picture, png, words) {
  const bytes = Uint8Array.from(atob(png.replaceAll("-", "+").replaceAll("_", "/")), (sign) => sign.charCodeAt(0));
  const map = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const over = new OffscreenCanvas(map.width, map.height).getContext("2d");
  over.drawImage(map, 0, 0);
  const pixels = over.getImageData(0, 0, map.width, map.height), colours = new Map();
  for (let at = 0; at < pixels.data.length; at += 4) {
    const index = pixels.data[at];
    if (!colours.has(index)) colours.set(index, colourOf(index));
    pixels.data.set(index === OUTSIDE ? [0, 0, 0, 0] : [...colours.get(index), 110], at);
  }
  over.putImageData(pixels, 0, 0);
  const canvas = el("canvas", { class: "picture", role: "img", "aria-label": words });
  const pen = canvas.getContext("2d");
  canvas.width = picture.naturalWidth;
  canvas.height = picture.naturalHeight;
  pen.drawImage(picture, 0, 0);
  pen.imageSmoothingEnabled = false;
  pen.drawImage(over.canvas, 0, 0, canvas.width, canvas.height);
  return canvas;
}

const OUTSIDE = 255;

function colourOf(index) {
  const pen = new OffscreenCanvas(1, 1).getContext("2d");
  pen.fillStyle = `hsl(${(index * 222.5) % 360} 90% 55%)`;
  pen.fillRect(0, 0, 1, 1);
  return [...pen.getImageData(0, 0, 1, 1).data.slice(0, 3)];
}

const WAIT_MS = 300, TIMES = 10;

// The decision reaches the dashboard on another way than the answer: it may come a moment later.
async function others(task, times = TIMES) {
  try {
    const found = task ? await get(`/api/tasks/${encodeURIComponent(task)}/other-deadlines`) : [];
    if (found.length) return [otherDeadlines(found), el("p", {}, taskLink(task, T.try.open))];
  } catch { /* not there yet */ }
  if (!times) return [];
  await new Promise((done) => { setTimeout(done, WAIT_MS); });
  return others(task, times - 1);
}

export function otherDeadlines(found) {
  return el("div", { id: "others" }, el("h2", {}, T.try.others), table(T.try.others, [[T.tasks.deadline, true], [T.try.chosen], [T.try.stages, true], [T.tasks.predicted, true], [T.try.where], [T.try.why]],
    found.map((each) => ({ cells: [ms(each.deadline_ms), each.variant ?? T.try.refused, each.stages === null ? null : String(each.stages), ms(each.predicted_ms), each.note, each.reason] }))));
}

async function shown(answer, picture) {
  const first = answer.predictions[0];
  return [el("h2", {}, T.try.answer),
    first ? el("p", { class: "big", id: "label" }, inWords(first)) : el("p", { class: "broken" }, answer.status),
    first?.kind === "detection" && picture.naturalWidth ? withBoxes(picture, first.objects, inWords(first)) : null,
    first?.kind === "segmentation" && picture.naturalWidth ? await withMap(picture, first.png, inWords(first)) : null,
    answer.response_ms === null ? null : el("p", {}, `${T.try.took(Math.round(answer.response_ms), Math.round(answer.deadline_ms ?? 0))}, ${answer.on_time ? T.try.on : T.try.late} · ${answer.decision ?? T.none} · ${answer.nodes.join(" → ")}`),
    el("p", {}, answer.reason), ...answer.warnings.map((text) => el("p", { class: "strained" }, text))].filter(Boolean);
}
