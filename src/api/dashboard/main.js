// Connecting, and what is done at each sign of life.

let running = new AbortController();
let seen = 0; // the last event's number: where to go on
let toldNow = new Set(); // names that were told since the stream began

const state = (word, text) => {
  at("link").dataset.state = word;
  at("link").textContent = text;
};

const onSession = ({name, data}) => {
  if (name === "bookmark") {
    // All there is has been told: what was not is gone.
    for (const gone of [...sessions.keys()].filter((one) => !toldNow.has(one))) end(gone);
    state("live", "live");
    later("");
    return;
  }
  const which = data.metadata.name;
  if (name === "deleted") {
    toldNow.delete(which);
    end(which);
  } else {
    toldNow.add(which);
    sessions.set(which, data);
  }
  later(which);
};

const end = (name) => {
  remove(name);
  if (name === chosen) {
    say(`${name} is gone`);
    choose(null);
  }
};

const onEvent = ({data}) => {
  seen = data.seq;
  events.push(data);
  if (events.length > EVENTS) events.splice(0, events.length - EVENTS);
  if (data.session === chosen) drawEvents();
};

// Reading may be open to everybody; then only who acts is asked for the token.
const enter = (why = "") => {
  running.abort();
  state("none", "not connected");
  at("main").hidden = true;
  at("enter").hidden = false;
  at("leave").hidden = true;
  say(why, why !== "");
  token.forget();
  at("token").focus();
};
const refused = (error) => enter(token.get() || error.status !== 401 ? error.message : "");

const start = async () => {
  running.abort();
  running = new AbortController();
  const {signal} = running;
  state("none", "connecting");
  try {
    for (const one of (await get(`events?after=${seen}`, {signal})).items) onEvent({data: one});
  } catch (error) {
    if (signal.aborted) return;
    if (error instanceof Refused && error.status < 500) return refused(error);
    // Those below try on.
  }
  at("enter").hidden = true;
  at("main").hidden = false;
  at("leave").hidden = !token.get();
  const lost = () => state("lost", "the operator does not answer; trying again. What is shown may be out of date");
  follow(() => "sessions?watch=true", signal, {each: onSession, began: () => { toldNow = new Set(); }, lost, refused});
  follow(() => `events?follow=true&after=${seen}`, signal, {each: onEvent, refused});
  poll(signal);
};

// Usage is asked for while somebody looks; the more sessions, the less often.
const poll = async (signal) => {
  while (!signal.aborted) {
    if (!document.hidden) await measure().catch(() => {});
    await pause(sessions.size > 100 ? 5 : 2, signal);
  }
};

at("enter").onsubmit = (event) => {
  event.preventDefault();
  token.set(at("token").value.trim());
  at("token").value = "";
  say("");
  start();
};
at("leave").onclick = () => {
  token.forget();
  sessions.clear();
  at("rows").replaceChildren();
  rows.clear();
  choose(null);
  enter();
};
at("filter").oninput = arrange;
// Ages move on by themselves.
setInterval(() => { if (!document.hidden && chosen) drawOne(); }, 5000);
start();
