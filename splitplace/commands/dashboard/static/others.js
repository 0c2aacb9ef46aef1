import { el, percent, ms, number, megabytes, table, taskLink, get } from "./dom.js";
import { T } from "./texts.js";

export async function decisionsPage() {
  const all = await get("/api/decisions");
  return [el("h1", {}, T.pages.decisions), all.length === 0 ? el("p", {}, T.decisions.empty) : table(T.pages.decisions,
    [[T.decisions.variant], [T.decisions.finished, true], [T.decisions.hit, true], [T.decisions.reward, true], [T.decisions.accuracy, true], [T.decisions.p95, true], [T.decisions.ratio, true], [T.decisions.within, true]],
    all.map(({ variant, metrics: m }) => ({ cells: [variant, String(m.finished), percent(m.hit_rate), number(m.reward, 3), percent(m.accuracy ?? m.variant_accuracy), ms(m.response_p95_ms), number(m.predicted_ratio_p50, 2), percent(m.predicted_within)] })))];
}

export async function networksPage() {
  const all = await get("/api/networks");
  return [el("h1", {}, T.pages.networks), all.length === 0 ? el("p", {}, T.networks.empty) : null,
    ...all.flatMap((network) => [
      el("h2", {}, `${network.title} (${network.name})`),
      el("p", { class: "quiet" }, `${T.networks.input} ${network.input_shape.join(" × ")}, ${network.labels} ${T.networks.labels}, ${T.networks.deadline} ${ms(network.default_deadline_ms)}`),
      table(network.name, [[T.networks.variant], [T.networks.kind], [T.networks.accuracy, true], [T.networks.memory, true], [T.networks.stages]],
        network.variants.map((each) => ({ cells: [each.name, each.kind, percent(each.accuracy), megabytes(Math.max(...each.stages.map(([, , bytes]) => bytes))), each.stages.map(([name]) => name).join(", ")] }))),
    ])].filter(Boolean);
}

export async function sensorsPage() {
  const all = await get("/api/sensors");
  return [el("h1", {}, T.pages.sensors), all.length === 0 ? el("p", {}, T.sensors.empty) : table(T.pages.sensors,
    [[T.sensors.sensor], [T.tasks.application], [T.sensors.last], [T.sensors.perMinute, true], [T.sensors.finished, true], [T.sensors.share, true], [T.sensors.late, true], [T.sensors.refused, true], [T.sensors.lost, true]],
    all.map((s) => ({ cells: [s.sensor, s.application, s.last_outcome, String(s.per_minute), String(s.finished), percent(s.finished ? s.on_time / s.finished : null), String(s.late), String(s.refused), String(s.lost)] })))];
}

export async function tryPage() {
  const networks = await get("/api/networks");
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
      answer.replaceChildren(...(got.ok ? shown(content) : [el("p", { class: "broken" }, content.error)]));
    } catch (error) { answer.replaceChildren(el("p", { class: "broken" }, error.message)); }
  };
  return [el("h1", {}, T.pages.try), drop,
    el("form", { onsubmit: send }, el("label", {}, T.try.application, application), el("label", {}, T.try.deadline, deadline), el("button", {}, T.try.send)), answer];
}

function shown(answer) {
  const first = answer.predictions[0];
  return [el("h2", {}, T.try.answer),
    first ? el("p", { class: "big", id: "label" }, `${first.label} (${percent(first.confidence)})`) : el("p", { class: "broken" }, answer.status),
    answer.response_ms === null ? null : el("p", {}, `${T.try.took(Math.round(answer.response_ms), Math.round(answer.deadline_ms ?? 0))}, ${answer.on_time ? T.try.on : T.try.late} · ${answer.decision ?? T.none} · ${answer.nodes.join(" → ")}`),
    el("p", {}, answer.reason), ...answer.warnings.map((text) => el("p", { class: "strained" }, text))].filter(Boolean);
}
