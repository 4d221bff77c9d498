// The way to the operator: requests, and streams that begin again by themselves.

const at = (id) => document.getElementById(id);
// Everything that comes from outside is text, never markup.
const make = (tag, text = "", name = "") => {
  const one = document.createElement(tag);
  one.textContent = text;
  if (name) one.className = name;
  return one;
};
const say = (text, bad = false) => {
  at("said").textContent = text;
  at("said").className = bad ? "bad" : "";
};
const fail = (error) => {
  if (error.name !== "AbortError") say(error.message, true);
};

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// Only this tab keeps it, until it is closed.
const token = {
  get: () => sessionStorage.getItem("token") ?? "",
  set: (text) => sessionStorage.setItem("token", text),
  forget: () => sessionStorage.removeItem("token"),
};

const ask = async (path, {method = "GET", body, signal, accept = "application/json"} = {}) => {
  const headers = {Accept: accept};
  if (token.get()) headers.Authorization = "Bearer " + token.get();
  const answer = await fetch("api/v1/" + path, {method, headers, body, signal, cache: "no-store"});
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({message: `the operator answered ${answer.status}`}));
  throw new Refused(answer.status, told.message);
};
const get = async (path, options) => (await ask(path, options)).json();

// A body's text as it comes.
async function* pieces(path, signal, accept) {
  const {body} = await ask(path, {signal, accept});
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const {done, value} = await reader.read();
    if (done) return;
    yield value;
  }
}

// Server-sent events, read by hand: EventSource cannot send a token.
async function* told(path, signal) {
  let rest = "";
  for await (const piece of pieces(path, signal, "text/event-stream")) {
    const blocks = (rest + piece).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const event = {name: "message", data: ""};
      for (const line of block.split("\n")) {
        if (line.startsWith("event:")) event.name = line.slice(6).trim();
        if (line.startsWith("data:")) event.data += line.slice(5).trimStart();
      }
      if (event.data) yield {name: event.name, data: JSON.parse(event.data)};
      else if (event.name !== "message") yield {name: event.name, data: null};
    }
  }
}

const pause = (seconds, signal) => new Promise((done) => {
  const timer = setTimeout(done, seconds * 1000);
  signal.addEventListener("abort", () => { clearTimeout(timer); done(); }, {once: true});
});

// Reads a stream for as long as `signal` lets it, and begins it again when it breaks. A refusal is for people to mend.
const follow = async (path, signal, {each, began = () => {}, lost = () => {}, refused = fail}) => {
  let failures = 0;
  while (!signal.aborted) {
    try {
      began();
      for await (const event of told(path(), signal)) {
        failures = 0;
        each(event);
      }
      if (!signal.aborted) lost();
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && error.status < 500) return refused(error);
      lost();
    }
    failures += 1;
    await pause(Math.min(0.5 * 2 ** (failures - 1), 5), signal);
  }
};
