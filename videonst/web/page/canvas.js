// The canvas: painted frames, the original to the left of a divider, snapshots and recordings of what is seen.

const KEY_STEP = 0.02;
const RECORD_FPS = 30;
const RECORD_BITS = 8_000_000;
const RECORD_TYPES = ["video/mp4;codecs=avc1.640028", "video/webm;codecs=vp9", "video/webm;codecs=vp8", "video/webm"];

export class Screen {
  constructor(frame) {
    this.frame = frame;
    this.canvas = frame.querySelector("canvas");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.divider = frame.querySelector("[role=slider]");
    this.tags = frame.querySelectorAll(".tag");
    this.at = 0.5;
    this.compare = false;
    this.recorder = null;
    this.last = null;
    this.#listen();
    this.#place();
  }

  // Both are taken over and closed when the next pair comes.
  show(painted, original) {
    this.last?.painted.close();
    this.last?.original?.close();
    this.last = { painted, original };
    if (this.canvas.width !== painted.width || this.canvas.height !== painted.height) {
      this.canvas.width = painted.width;
      this.canvas.height = painted.height;
      this.frame.style.setProperty("--ratio", painted.width / painted.height);
    }
    this.#draw();
  }

  setCompare(wanted) {
    this.compare = wanted;
    this.divider.hidden = !wanted;
    for (const tag of this.tags) tag.hidden = !wanted;
    this.#draw();
  }

  async snapshot() {
    const blob = await new Promise((done) => this.canvas.toBlob(done, "image/png"));
    save(blob, "png");
  }

  get canRecord() {
    return recordType() !== undefined;
  }

  // Starts or stops; stopping saves the file.
  toggleRecording(changed) {
    if (this.recorder) {
      this.recorder.stop();
      return;
    }
    const type = recordType();
    const pieces = [];
    this.recorder = new MediaRecorder(this.canvas.captureStream(RECORD_FPS), { mimeType: type, videoBitsPerSecond: RECORD_BITS });
    this.recorder.ondataavailable = ({ data }) => pieces.push(data);
    this.recorder.onstop = () => {
      this.recorder = null;
      changed(false);
      const blob = new Blob(pieces, { type });
      save(blob, type.startsWith("video/mp4") ? "mp4" : "webm");
    };
    this.recorder.start(1000);
    changed(true);
  }

  #draw() {
    if (!this.last) return;
    const { painted, original } = this.last;
    const { width, height } = this.canvas;
    this.context.drawImage(painted, 0, 0);
    if (!this.compare || !original) return;
    const x = Math.round(width * this.at);
    if (x > 0) {
      const scale = original.width / width;
      this.context.drawImage(original, 0, 0, x * scale, original.height, 0, 0, x, height);
    }
    this.context.fillStyle = "#fff";
    this.context.fillRect(x - 1, 0, 2, height);
  }

  #listen() {
    const follow = (event) => {
      const box = this.canvas.getBoundingClientRect();
      this.#move((event.clientX - box.left) / box.width);
    };
    this.divider.addEventListener("pointerdown", (event) => {
      this.divider.setPointerCapture(event.pointerId);
      this.divider.focus();
      event.preventDefault();
      this.divider.addEventListener("pointermove", follow);
    });
    for (const end of ["pointerup", "pointercancel"]) {
      this.divider.addEventListener(end, () => this.divider.removeEventListener("pointermove", follow));
    }
    this.divider.addEventListener("keydown", (event) => {
      const to = { ArrowLeft: this.at - KEY_STEP, ArrowRight: this.at + KEY_STEP, Home: 0, End: 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      this.#move(to);
    });
  }

  #move(at) {
    this.at = Math.min(1, Math.max(0, at));
    this.#place();
    this.#draw();
  }

  #place() {
    this.divider.style.left = `${this.at * 100}%`;
    this.divider.setAttribute("aria-valuenow", Math.round(this.at * 100));
    this.frame.style.setProperty("--divider", `${this.at * 100}%`);
  }
}

function recordType() {
  return RECORD_TYPES.find((type) => globalThis.MediaRecorder?.isTypeSupported(type));
}

function save(blob, suffix) {
  const link = document.createElement("a");
  const now = new Date(Date.now() - new Date().getTimezoneOffset() * 60_000);
  link.href = URL.createObjectURL(blob);
  link.download = `videonst-${now.toISOString().slice(0, 19).replaceAll(":", "-")}.${suffix}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
