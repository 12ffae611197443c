// A style of one's own: a painting goes to the server, which learns it; progress and a preview come back.

const POLL_MS = 1000;
const BUSY = "learning";

const $ = (id) => document.getElementById(id);

export class Learning {
  // learnt(name) is called when a style can be used that was learnt from this page.
  constructor(learnt) {
    this.learnt = learnt;
    this.begun = false;
    this.state = null;
    $("learn-form").onsubmit = (event) => {
      event.preventDefault();
      this.#begin();
    };
    $("learn-file").onchange = () => {
      const [file] = $("learn-file").files;
      if (file && !$("learn-name").value) $("learn-name").value = styleName(file.name);
    };
    $("learn-keep").onclick = () => this.#end(true);
    $("learn-cancel").onclick = () => this.#end(false);
    $("own").ontoggle = () => $("own").open && this.#look();
    this.#look();
  }

  async #begin() {
    const [file] = $("learn-file").files;
    if (!file) {
      this.#say("Choose a picture of a painting first.");
      return;
    }
    const query = new URLSearchParams({
      name: $("learn-name").value || styleName(file.name),
      minutes: $("learn-minutes").value,
      strokes: $("learn-strokes").value,
    });
    this.#say("Sending …");
    await this.#ask(`api/learn?${query}`, { method: "POST", body: file });
    this.begun = this.state === BUSY;
  }

  async #end(keep) {
    this.#say(keep ? "Finishing …" : "Cancelling …");
    await this.#ask(`api/learn?keep=${keep}`, { method: "DELETE" });
  }

  #look() {
    return this.#ask("api/learn");
  }

  async #ask(path, options) {
    clearTimeout(this.timer);
    try {
      const answer = await fetch(path, options);
      const value = await answer.json();
      if (answer.ok) this.#show(value);
      else this.#say(value.error);
    } catch {
      this.#say("The server does not answer.");
    }
    if (this.state === BUSY) this.timer = setTimeout(() => this.#look(), POLL_MS);
  }

  #show(job) {
    const before = this.state;
    this.state = job.state;
    const busy = job.state === BUSY;
    $("own").dataset.state = job.state;
    $("learn-form").hidden = busy || !job.available;
    $("learn-running").hidden = !busy;
    $("learn-preview").hidden = !job.preview || !(busy || job.state === "done");
    $("learn-model").hidden = !job.model || busy;
    if (!$("learn-preview").hidden) $("learn-preview").src = `api/learn/preview?${Date.now()}`;
    $("learn-share").value = busy ? (job.progress?.share ?? 0) : 0;
    if (!job.available) this.#say(`This server cannot learn: torch is not installed there. Run: ${job.install}`);
    else if (busy) this.#say(describe(job));
    else if (job.state === "failed") this.#say(`${job.name}: ${job.error}`);
    else if (job.state === "cancelled") this.#say(`${job.name} was cancelled.`);
    else if (job.state === "done") this.#say(`${job.name} is among the styles.`);
    if (job.state === "done" && before === BUSY && this.begun) this.learnt(job.name);
    if (!busy) this.begun = false;
  }

  #say(text) {
    $("learn-said").textContent = text;
  }
}

function describe({ name, progress }) {
  if (!progress) return `${name}: starting …`;
  const score = progress.scores[name];
  const left = progress.seconds_left === null ? "" : `, ${clock(progress.seconds_left)} left`;
  const how = `features of ${progress.features}${score === null ? "" : `, score ${score.toFixed(2)}`}`;
  return `${name}: ${progress.state}, step ${progress.step}${left}, ${how}`;
}

function clock(seconds) {
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

function styleName(file) {
  return file.replace(/\.[^.]*$/, "").replace(/[^\p{L}\p{N}._-]+/gu, "_") || "mine";
}
