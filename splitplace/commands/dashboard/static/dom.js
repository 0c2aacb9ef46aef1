// Elements from data. Text is always set as text: nothing that comes over the network becomes markup.
const SVG = "http://www.w3.org/2000/svg";

export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}
function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}
export function tableRow({ cells, chosen }, numeric) {
  return el("tr", { class: chosen ? "chosen" : null }, cells.map((cell, i) => el("td", { class: numeric[i] ? "number" : null }, cell ?? "–")));
}
export function table(caption, headings, rows) {
  const head = headings.map(([text, number]) => el("th", { scope: "col", class: number ? "number" : null }, text));
  const numeric = headings.map(([, number]) => Boolean(number));
  const body = rows.map((row) => (row instanceof Element ? row : tableRow(row, numeric)));
  return el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": caption },
    el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, body)));
}
export const percent = (value) => (value === null || value === undefined ? "–" : `${(100 * value).toFixed(1)} %`);
export const ms = (value) => (value === null || value === undefined ? "–" : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`);
export const number = (value, digits = 0) => (value === null || value === undefined ? "–" : value.toFixed(digits));
export const megabytes = (value) => (value === null || value === undefined ? "–" : `${(value / 2 ** 20).toFixed(1)} MiB`);
export const taskLink = (task, text = task) => el("a", { href: `#/tasks/${encodeURIComponent(task)}` }, text);
export async function get(path) {
  const answer = await fetch(path);
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error ?? answer.statusText);
  return content;
}
