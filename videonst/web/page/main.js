// Puts the page together: controls to the server and back, frames to the server and back.

import { Camera } from "./camera.js";
import { Screen } from "./canvas.js";
import { Connection } from "./connection.js";
import { Learning } from "./learn.js";
import { Meter } from "./meter.js";
import { Mixer, fill } from "./mixer.js";

const IN_FLIGHT = 2; // as the server allows
const OWN_MS = 500; // for so long after a change by hand, the server's echo does not move that control

const NOTICE_MS = 8000;

const $ = (id) => document.getElementById(id);
const screen = new Screen($("frame"));
const meter = new Meter($("graph"), { fps: $("fps"), delay: $("delay"), delay95: $("delay95"), drops: $("drops") });
const camera = new Camera();

let mixer = null;
let connection = null;
let source = "camera";
let mirrored = true;
let controls = { lines: "auto", format: "jpeg", keep_colour: false };
let newest = null; // the controls as the server last told them
const changedAt = {};
const waiting = {}; // changes to be sent at the next refresh of the screen
const chosen = {}; // all changes by hand, for a session that begins later or anew
let capturing = false;
let sequence = 0;
let drawing = Promise.resolve();
const inFlight = new Map(); // sequence to {time, bitmap}

boot();

async function boot() {
  listen();
  try {
    const [status, styles] = await Promise.all([get("api/status"), get("api/styles")]);
    listModels(status.models);
    $("from").append(new Option("the camera of this browser", "camera"));
    if (status.source) {
      $("from").append(new Option(status.source, "source"));
      $("start-source").hidden = false;
      $("start-source").querySelector("span").textContent = `Watch ${status.source}`;
    }
    for (const { thumbnail } of styles.slice(0, 12)) {
      const image = new Image();
      image.alt = "";
      image.src = thumbnail;
      if (thumbnail) $("easel").append(image);
    }
    mixer = new Mixer(styles, (mix) => change({ mix }));
    show((newest = await get("api/mix")));
    new Learning(useStyle);
    say("Ready");
  } catch (error) {
    say("Not connected");
    notice(error.message);
  }
}

function listModels(models) {
  $("model").replaceChildren(...models.map((name) => new Option(name === "auto" ? "automatic" : short(name), name)));
}

// Styles and models may change while the page is open: here or elsewhere a style was learnt, or the server is another.
async function refresh() {
  const [status, styles] = await Promise.all([get("api/status"), get("api/styles")]);
  listModels(status.models);
  for (const known of [controls, chosen]) if (known.model && !status.models.includes(known.model)) known.model = "auto";
  const names = (list) => list.map(({ name }) => name).join();
  if (names(styles) !== names(mixer.styles)) mixer.setStyles(styles);
  show(controls);
}

async function useStyle(name) {
  await refresh();
  show({ mix: { [name]: 1 } });
  change({ mix: { [name]: 1 } });
}

async function get(path) {
  const answer = await fetch(path);
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error);
  return value;
}

// --- starting and stopping -------------------------------------------------------------------------------------------

async function start(from) {
  stop();
  source = from;
  $("from").value = from;
  $("mirror").disabled = $("device").disabled = from !== "camera";
  notice("");
  say(from === "camera" ? "Opening the camera …" : "Connecting …");
  if (from === "camera") {
    try {
      await camera.open($("device").value);
    } catch (error) {
      stop();
      notice(error.message);
      return;
    }
    camera.onLost(() => {
      stop();
      notice("The camera was disconnected.");
    });
    listCameras();
  }
  meter.reset();
  document.body.classList.add("running");
  for (const id of ["stop", "snapshot", "record"]) $(id).disabled = false;
  connection = new Connection(from === "camera" ? "ws/camera" : "ws/source", {
    open: () => {
      forgetFrames();
      if (from === "camera" && Object.keys(chosen).length) connection.sendJson({ type: "controls", ...chosen });
      if (from === "source" && screen.compare) connection.sendJson({ type: "original", wanted: true });
    },
    json: receive,
    frame: from === "camera" ? cameraFrame : sourceFrame,
    lost: () => say("Connection lost, trying again …"),
    closed: (reason) => {
      stop();
      notice(reason);
    },
  });
  if (from === "camera") camera.eachFrame(sendFrame);
}

function stop() {
  connection?.close();
  connection = null;
  camera.close();
  forgetFrames();
  if (screen.recorder) toggleRecording();
  document.body.classList.remove("running");
  for (const id of ["stop", "snapshot", "record"]) $(id).disabled = true;
  say("Stopped");
}

async function listCameras() {
  const cameras = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === "videoinput");
  const current = camera.stream?.getVideoTracks()[0]?.getSettings().deviceId ?? "";
  $("device").replaceChildren(...cameras.map(({ label, deviceId }, index) => new Option(label || `Camera ${index + 1}`, deviceId)));
  $("device").value = current;
}

// --- frames ----------------------------------------------------------------------------------------------------------

async function sendFrame() {
  if (!connection?.open) return;
  if (capturing || inFlight.size >= IN_FLIGHT) {
    meter.drop();
    return;
  }
  capturing = true;
  const time = performance.now();
  const to = connection;
  try {
    const { blob, bitmap } = await camera.capture(controls.lines, controls.format, mirrored);
    if (to !== connection || !connection.open || !blob) return;
    sequence = (sequence + 1) >>> 0;
    inFlight.set(sequence, { time, bitmap });
    connection.sendFrame(sequence, blob);
  } catch (error) {
    console.warn("a picture of the camera was left out", error);
  } finally {
    capturing = false;
  }
}

function forgetFrames() {
  for (const { bitmap } of inFlight.values()) bitmap.close();
  inFlight.clear();
}

function cameraFrame(frame) {
  const sent = inFlight.get(frame.sequence);
  inFlight.delete(frame.sequence);
  if (sent) draw(frame, () => sent.bitmap, sent.time);
}

// The time on the way to the browser is not known here: what the server measured, and decoding.
function sourceFrame(frame) {
  const arrived = performance.now() - frame.waited - frame.painted;
  connection.sendFrame(frame.sequence);
  draw(frame, () => frame.original && createImageBitmap(frame.original), arrived);
}

// Decoding may overtake; frames are drawn in the order they came.
function draw(frame, original, time) {
  const pair = Promise.all([createImageBitmap(frame.picture), original()]);
  drawing = drawing.then(async () => {
    try {
      screen.show(...(await pair));
      meter.count(performance.now() - time);
      screen.canvas.dataset.revision = frame.revision;
    } catch (error) {
      console.warn("a frame could not be shown", error);
    }
  });
}

// --- controls --------------------------------------------------------------------------------------------------------

function receive(message) {
  if (message.type === "hello") {
    document.body.dataset.session = message.session;
    say(source === "camera" ? `Live, session ${message.session}` : "Live");
  }
  if (message.type === "styles") refresh().catch((error) => notice(error.message));
  if (message.type === "error") {
    notice(message.message);
    for (const name of Object.keys(changedAt)) delete changedAt[name];
  }
  if (message.type === "trouble") notice(message.message);
  if (message.type === "quality") $("rung").textContent = `${short(message.model)}, ${message.lines} lines`;
  if (message.type === "controls" || message.type === "hello") {
    newest = message.controls;
    document.body.dataset.revision = message.revision;
    follow();
  }
}

// Takes over what the server says, except for what a hand has just moved here.
function follow() {
  const now = performance.now();
  const taken = {};
  let later = false;
  for (const [name, value] of Object.entries(newest)) {
    if (now - (changedAt[name] ?? -Infinity) > OWN_MS) taken[name] = value;
    else later = true;
  }
  show(taken);
  clearTimeout(follow.timer);
  if (later) follow.timer = setTimeout(follow, OWN_MS);
}

function show(changes) {
  controls = { ...controls, ...changes };
  if (changes.mix) mixer?.show(changes.mix);
  for (const name of ["strength", "steady"]) if (name in changes) dial(name, changes[name]);
  if ("keep_colour" in changes) $("keep-colour").checked = changes.keep_colour;
  for (const name of ["model", "lines", "format", "quality"]) if (name in changes) choose($(name), String(changes[name]));
}

function change(changes) {
  controls = { ...controls, ...changes };
  for (const name of Object.keys(changes)) changedAt[name] = performance.now();
  if (Object.keys(waiting).length === 0) requestAnimationFrame(send);
  Object.assign(waiting, changes);
  Object.assign(chosen, changes);
}

function send() {
  const changes = { ...waiting };
  for (const name of Object.keys(waiting)) delete waiting[name];
  connection?.sendJson({ type: "controls", ...changes });
}

function dial(name, value) {
  $(name).value = value;
  $(`${name}-value`).textContent = `${Math.round(value * 100)} %`;
  fill($(name));
}

// A model may be named by its path.
function short(model) {
  return model.split(/[\\/]/).at(-1);
}

function choose(select, value) {
  if (![...select.options].some((option) => option.value === value)) select.append(new Option(value, value));
  select.value = value;
}

// --- buttons and keys ------------------------------------------------------------------------------------------------

function listen() {
  $("start-camera").onclick = () => start("camera");
  $("start-source").onclick = () => start("source");
  $("stop").onclick = stop;
  $("compare").onclick = () => {
    const wanted = toggle("compare");
    screen.setCompare(wanted);
    if (source === "source") connection?.sendJson({ type: "original", wanted });
  };
  $("mirror").onclick = () => (mirrored = toggle("mirror"));
  $("snapshot").onclick = () => screen.snapshot();
  $("record").onclick = toggleRecording;
  $("full").onclick = () => (document.fullscreenElement ? document.exitFullscreen() : $("screen").requestFullscreen());
  $("theme").onclick = () => {
    const dark = getComputedStyle(document.documentElement).getPropertyValue("--dark").trim() === "1";
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    localStorage.setItem("videonst-theme", document.documentElement.dataset.theme);
  };
  for (const name of ["strength", "steady"]) {
    $(name).oninput = () => {
      dial(name, $(name).value);
      change({ [name]: Number($(name).value) });
    };
  }
  $("keep-colour").onchange = () => change({ keep_colour: $("keep-colour").checked });
  $("model").onchange = () => change({ model: $("model").value });
  $("format").onchange = () => change({ format: $("format").value });
  $("quality").onchange = () => change({ quality: Number($("quality").value) });
  $("lines").onchange = () => change({ lines: $("lines").value === "auto" ? "auto" : Number($("lines").value) });
  $("from").onchange = () => start($("from").value);
  $("device").onchange = () => source === "camera" && connection && start("camera");
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.target.closest("select, textarea, input, [role=slider]")) return;
    if (event.key === " " && event.target.closest("button, summary")) return;
    const action = {
      " ": () => $("compare").click(),
      c: () => $("keep-colour").click(),
      s: () => $("snapshot").click(),
      r: () => $("record").click(),
      m: () => $("mirror").click(),
      f: () => $("full").click(),
      n: () => mixer?.step(1),
      p: () => mixer?.step(-1),
    }[event.key];
    if (action) {
      event.preventDefault();
      action();
    }
  });
}

function toggle(id) {
  const pressed = $(id).getAttribute("aria-pressed") !== "true";
  $(id).setAttribute("aria-pressed", pressed);
  return pressed;
}

function toggleRecording() {
  if (!screen.canRecord) {
    notice("This browser cannot record.");
    return;
  }
  screen.toggleRecording((recording) => {
    $("record").setAttribute("aria-pressed", recording);
    $("recording").hidden = !recording;
    clearInterval(toggleRecording.timer);
    if (!recording) return;
    const began = performance.now();
    const tick = () => {
      const seconds = Math.floor((performance.now() - began) / 1000);
      $("recording").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    };
    tick();
    toggleRecording.timer = setInterval(tick, 500);
  });
}

function say(text) {
  $("state").textContent = text;
  document.title = connection ? `videonst: ${text}` : "videonst";
}

// Over a running picture a notice goes by itself.
function notice(text) {
  $("notice").textContent = text;
  clearTimeout(notice.timer);
  if (document.body.classList.contains("running")) notice.timer = setTimeout(() => ($("notice").textContent = ""), NOTICE_MS);
}
