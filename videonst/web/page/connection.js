// The WebSocket: messages in and out as docs/serve.md describes them, and reconnecting.

const HEADER_BYTES = 20;
const RETRY_MS = [500, 1000, 2000, 4000, 8000];
const FINAL = new Map([
  [4400, "The server closed the session: "],
  [4408, "Paused: "],
  [4410, ""],
  [4429, "No place: "],
  [1011, "The server failed: "],
]); // trying again at once would not help

export class Connection {
  // handlers: open(), json(message), frame({sequence, revision, waited, painted, picture, original}), lost(), closed(reason)
  constructor(path, handlers) {
    this.path = path;
    this.handlers = handlers;
    this.tries = 0;
    this.ended = false;
    this.connect();
  }

  connect() {
    const url = new URL(this.path, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    this.socket = new WebSocket(url);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => this.handlers.open();
    this.socket.onmessage = ({ data }) => {
      this.tries = 0;
      if (typeof data === "string") this.handlers.json(JSON.parse(data));
      else this.handlers.frame(readFrame(data));
    };
    this.socket.onclose = ({ code, reason }) => {
      if (this.ended) return;
      if (FINAL.has(code)) {
        this.ended = true;
        this.handlers.closed(FINAL.get(code) + reason);
        return;
      }
      this.handlers.lost();
      const wait = RETRY_MS[Math.min(this.tries++, RETRY_MS.length - 1)];
      this.timer = setTimeout(() => this.connect(), wait);
    };
  }

  get open() {
    return this.socket.readyState === WebSocket.OPEN;
  }

  sendJson(message) {
    if (this.open) this.socket.send(JSON.stringify(message));
  }

  // A camera's frame; without a blob, the acknowledgement of a viewer.
  sendFrame(sequence, blob) {
    if (!this.open) return;
    const header = new DataView(new ArrayBuffer(4));
    header.setUint32(0, sequence, true);
    this.socket.send(blob ? new Blob([header.buffer, blob]) : header.buffer);
  }

  close() {
    this.ended = true;
    clearTimeout(this.timer);
    this.socket.close(1000);
  }
}

function readFrame(data) {
  const header = new DataView(data, 0, HEADER_BYTES);
  const length = header.getUint32(16, true);
  return {
    sequence: header.getUint32(0, true),
    revision: header.getUint32(4, true),
    waited: header.getFloat32(8, true),
    painted: header.getFloat32(12, true),
    picture: new Blob([new Uint8Array(data, HEADER_BYTES, length)]),
    original: data.byteLength > HEADER_BYTES + length ? new Blob([new Uint8Array(data, HEADER_BYTES + length)]) : null,
  };
}
