// Frames a second and delay: numbers over the last two seconds, a graph over the last minute.

const WINDOW_MS = 2000;
const GRAPH_SECONDS = 60;
const REFRESH_MS = 500;

export class Meter {
  constructor(graph, outputs) {
    this.graph = graph;
    this.outputs = outputs;
    this.history = [];
    this.reset();
    setInterval(() => this.#refresh(), REFRESH_MS);
  }

  reset() {
    this.shown = [];
    this.dropped = [];
    this.began = performance.now();
  }

  // A frame is on the screen, `delay` milliseconds after it was there.
  count(delay) {
    this.shown.push([performance.now(), delay]);
  }

  drop() {
    this.dropped.push(performance.now());
  }

  read() {
    const now = performance.now();
    this.shown = this.shown.filter(([time]) => time > now - WINDOW_MS);
    this.dropped = this.dropped.filter((time) => time > now - WINDOW_MS);
    const delays = this.shown.map(([, delay]) => delay).sort((a, b) => a - b);
    const rank = (share) => delays[Math.max(0, Math.ceil(delays.length * share) - 1)] ?? null;
    const seconds = Math.min(WINDOW_MS, Math.max(now - this.began, 1)) / 1000;
    return { fps: delays.length / seconds, p50: rank(0.5), p95: rank(0.95), drops: this.dropped.length / seconds };
  }

  #refresh() {
    const reading = this.read();
    const { fps, p50, p95, drops } = reading;
    const { outputs } = this;
    outputs.fps.textContent = p50 === null ? "–" : fps.toFixed(1);
    outputs.delay.textContent = p50 === null ? "–" : `${Math.round(p50)} ms`;
    outputs.delay95.textContent = p95 === null ? "–" : `${Math.round(p95)} ms`;
    outputs.drops.textContent = p50 === null ? "–" : drops.toFixed(0);
    this.history.push(reading);
    this.history.splice(0, this.history.length - (GRAPH_SECONDS * 1000) / REFRESH_MS);
    this.#draw();
  }

  #draw() {
    const ratio = devicePixelRatio;
    const { clientWidth: width, clientHeight: height } = this.graph;
    if (!width || !height) return;
    this.graph.width = width * ratio;
    this.graph.height = height * ratio;
    const context = this.graph.getContext("2d");
    const style = getComputedStyle(this.graph);
    const colour = (name) => style.getPropertyValue(name).trim();
    context.scale(ratio, ratio);
    const points = (GRAPH_SECONDS * 1000) / REFRESH_MS;
    const x = (index) => width - ((this.history.length - 1 - index) * width) / (points - 1);
    const highest = (values, least) => Math.max(least, ...values.filter((value) => value !== null));
    const maxFps = highest(this.history.map(({ fps }) => fps), 30) * 1.15;
    const maxDelay = highest(this.history.map(({ p95 }) => p95), 100) * 1.15;
    const line = (value, maximum) => {
      let drawing = false;
      context.beginPath();
      this.history.forEach((reading, index) => {
        if (reading.p50 === null) drawing = false;
        else {
          context[drawing ? "lineTo" : "moveTo"](x(index), height - (value(reading) / maximum) * height);
          drawing = true;
        }
      });
    };
    context.strokeStyle = colour("--line");
    context.lineWidth = 1;
    for (const share of [0.25, 0.5, 0.75]) {
      context.beginPath();
      context.moveTo(0, Math.round(height * share) + 0.5);
      context.lineTo(width, Math.round(height * share) + 0.5);
      context.stroke();
    }
    context.lineJoin = "round";
    context.strokeStyle = colour("--cool");
    context.lineWidth = 1.5;
    context.setLineDash([3, 3]);
    line(({ p95 }) => p95, maxDelay);
    context.stroke();
    context.setLineDash([]);
    line(({ p50 }) => p50, maxDelay);
    context.stroke();
    context.strokeStyle = colour("--accent");
    context.lineWidth = 2;
    line(({ fps }) => fps, maxFps);
    context.stroke();
  }
}
