"use strict";
// Building blocks of both pages. Text goes in as text nodes and attributes, never as markup.

const byId = (id) => document.getElementById(id);

/** An HTML element; children are elements, or text that stays text. */
const element = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

/** h:mm:ss */
function clock(value) {
  const whole = Math.round(value);
  const two = (number) => String(number % 60).padStart(2, "0");
  return `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60))}:${two(whole)}`;
}
