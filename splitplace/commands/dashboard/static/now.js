import { el, svg, percent, ms, number } from "./dom.js";
import { T } from "./texts.js";

const card = (figure, text) => el("div", { class: "card" }, el("div", { class: "figure" }, figure), el("div", { class: "quiet" }, text));

export function nowPage({ now }) {
  const { health, hour } = now;
  const wrong = health.checks.filter((check) => check.level !== "ok");
  const todo = wrong.length === 0 ? el("p", {}, T.now.ok)
    : el("ul", {}, wrong.map((check) => el("li", {}, el("strong", { class: check.level === "fail" ? "broken" : "strained" }, check.name), `: ${check.finding}`,
      check.remedy ? el("div", {}, `→ ${check.remedy}`) : null)));
  return [
    el("h1", {}, T.pages.now),
    el("p", { class: `light big ${health.light}`, id: "state" }, T.light[health.light]),
    el("p", { id: "why" }, health.why),
    el("div", { class: "cards" },
      card(percent(hour.hit_rate), T.now.hit), card(ms(hour.p50_ms), T.now.p50), card(ms(hour.p95_ms), T.now.p95),
      card(number(now.tasks_per_second, 1), T.now.rate), card(number(now.in_flight), T.now.open),
      card(`${now.online_nodes} / ${now.nodes}`, T.now.nodes), card(now.energy_joules === null ? "–" : `${number(now.energy_joules)} J`, T.now.energy)),
    el("h2", {}, T.now.todo), el("div", { id: "todo" }, todo),
    el("h2", {}, T.now.minutes), now.minutes.length ? chart(now.minutes) : el("p", {}, T.now.noMinutes),
    Object.keys(now.refusals).length ? [el("h2", {}, T.now.refused), el("ul", {}, Object.entries(now.refusals).map(([reason, count]) => el("li", {}, `${reason}: ${count}`)))] : [],
    el("h2", {}, T.now.checks),
    el("ul", {}, health.checks.map((check) => el("li", {}, `${check.level === "ok" ? "✓" : "✗"} ${check.name}: ${check.finding}`))),
  ].flat();
}

function chart(minutes) {
  const last = Math.floor(Date.now() / 60000), most = Math.max(1, ...minutes.map(([, finished]) => finished));
  // One path for all bars: an element for each would cost more than the rest of the page.
  const bars = (field) => minutes.map((each) => {
    const x = 600 - 10 * (last - each[0] + 1), height = (80 * each[field]) / most;
    return `M${x},90v${-height}h8v${height}z`;
  }).join("");
  return svg("svg", { viewBox: "0 0 600 100", role: "img", "aria-label": T.now.chart, id: "minutes" },
    svg("line", { class: "axis", x1: 0, x2: 600, y1: 90, y2: 90 }),
    svg("path", { class: "missed", d: bars(1) }), svg("path", { class: "ontime", d: bars(2) }),
    svg("text", { x: 2, y: 12 }, String(most)));
}
