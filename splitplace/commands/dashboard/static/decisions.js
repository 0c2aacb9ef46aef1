import { el, svg, percent, ms, number, table, get } from "./dom.js";
import { T } from "./texts.js";

const SHADES = 8;
const answer = { policy: "rule", said: null };

export async function decisionsPage() {
  const [all, recent] = await Promise.all([get("/api/decisions"), get("/api/decisions/over-time")]);
  if (all.length === 0 && recent.tasks === 0) return [el("h1", {}, T.pages.decisions), el("p", {}, T.decisions.empty)];
  return [el("h1", {}, T.pages.decisions), table(T.pages.decisions,
    [[T.decisions.variant], [T.decisions.finished, true], [T.decisions.hit, true], [T.decisions.reward, true], [T.decisions.accuracy, true], [T.decisions.p95, true], [T.decisions.ratio, true], [T.decisions.within, true]],
    all.map(({ variant, metrics: m }) => ({ cells: [variant, String(m.finished), percent(m.hit_rate), number(m.reward, 3), percent(m.accuracy ?? m.variant_accuracy), ms(m.response_p95_ms), number(m.predicted_ratio_p50, 2), percent(m.predicted_within)] }))),
  el("h2", {}, T.decisions.minutes), ...minutes(recent.minutes),
  el("h2", {}, T.decisions.points), points(recent.points),
  el("h2", {}, T.decisions.promises), recent.promises.length === 0 ? el("p", {}, T.decisions.noPromises) : table(T.decisions.promises,
    [[T.decisions.promised, true], [T.decisions.kept, true], [T.decisions.tasks, true]],
    recent.promises.map((bin) => ({ cells: [percent(bin.promised), percent(bin.kept), String(bin.tasks)] }))),
  el("h2", {}, T.decisions.replay), el("p", { class: "quiet" }, T.decisions.replayHelp), replayForm()];
}

function minutes(all) {
  const names = [...new Set(all.flatMap((each) => Object.keys(each.variants)))].sort();
  const last = Math.floor(Date.now() / 60000), most = Math.max(1, ...all.map((each) => Object.values(each.variants).reduce((a, b) => a + b, 0)));
  const shade = (name) => `shade${names.indexOf(name) % SHADES}`;
  return [svg("svg", { viewBox: "0 0 600 100", role: "img", "aria-label": T.decisions.chart(names.join(", ")), id: "decided" },
    svg("line", { class: "axis", x1: 0, x2: 600, y1: 90, y2: 90 }),
    all.map(({ minute, variants }) => {
      let top = 90;
      return svg("g", {}, names.filter((name) => variants[name]).map((name) => {
        const height = (80 * variants[name]) / most;
        top -= height;
        return svg("rect", { class: shade(name), x: 600 - 10 * (last - minute + 1), y: top, width: 8, height }, svg("title", {}, `${name}: ${variants[name]}`));
      }));
    }),
    svg("text", { x: 2, y: 12 }, String(most))),
  el("p", { class: "quiet" }, names.map((name) => el("span", { class: `key ${shade(name)}` }, `${name} `)))];
}

function points(all) {
  const most = 1.05 * Math.max(1, ...all.map((each) => Math.max(each.predicted_ms, each.actual_ms)));
  const x = (value) => 10 + (380 * value) / most, y = (value) => 290 - (280 * value) / most;
  return svg("svg", { viewBox: "0 0 400 310", role: "img", "aria-label": T.decisions.pointsChart, id: "points", class: "square" },
    svg("line", { class: "axis", x1: x(0), x2: x(most), y1: y(0), y2: y(most) }), svg("line", { class: "axis", x1: 10, x2: 390, y1: 290, y2: 290 }),
    all.map((each) => svg("circle", { class: each.on_time ? "ontime" : "missed", cx: x(each.predicted_ms), cy: y(each.actual_ms), r: 3 },
      svg("title", {}, `${each.variant}: ${ms(each.predicted_ms)} / ${ms(each.actual_ms)}`))),
    svg("text", { x: 12, y: 305 }, T.decisions.axes(ms(most))));
}

function replayForm() {
  const said = el("p", { id: "replayed", role: "status" }, answer.said ?? "");
  const policy = el("select", { id: "replay-policy", onchange: () => { answer.policy = policy.value; } },
    T.decisions.policies.map((name) => el("option", { value: name, selected: name === answer.policy }, name)));
  const ask = async (event) => {
    event.preventDefault();
    answer.policy = policy.value;
    said.textContent = T.decisions.asking;
    try {
      const found = await get(`/api/decisions/replay?${new URLSearchParams({ policy: answer.policy })}`);
      answer.said = found.why_not || T.decisions.replayed(found);
    } catch (error) { answer.said = error.message; }
    document.getElementById("replayed").textContent = answer.said;
  };
  return el("form", { onsubmit: ask }, el("label", {}, T.decisions.policy, policy), el("button", {}, T.decisions.ask), said);
}
