// Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
// Asks the server, and says what went wrong.

export class Refused extends Error {
  constructor(text, status) { super(text); this.status = status; }
}

export async function ask(path, { method = "GET", body, headers = {} } = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers: body === undefined ? headers : { "Content-Type": "application/json", ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new Refused("the server does not answer: is the command still running?", 0);
  }
  let content = {};
  try { content = await answer.json(); } catch { /* an answer without content */ }
  if (!answer.ok) throw new Refused(content.error || `the server answered ${answer.status}`, answer.status);
  return { content, version: answer.headers.get("ETag") };
}

export const byId = (id) => document.getElementById(id);

export function element(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text; // names come from strangers: always text
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// A line above the image, with buttons for what can be done about it; gone after a while where there are none.
let timer = 0;
export function say(text, buttons = {}) {
  const line = byId("message");
  clearTimeout(timer);
  line.replaceChildren(element("span", text));
  for (const [title, action] of Object.entries(buttons)) {
    const button = element("button", title);
    button.addEventListener("click", () => { line.hidden = true; action(); });
    line.append(button);
  }
  line.hidden = !text;
  if (!Object.keys(buttons).length) timer = setTimeout(() => { line.hidden = true; }, 6000);
}
