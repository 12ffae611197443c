// The browser's camera: opens it, and makes one encoded frame at a time of what it shows.

const AUTO_LINES = 480; // what is sent while the server chooses the working size
const QUALITY = 0.85; // of the frames on their way to the server

export class Camera {
  constructor() {
    this.video = document.createElement("video");
    this.video.muted = true;
    this.video.playsInline = true;
    this.canvas = document.createElement("canvas");
    this.context = this.canvas.getContext("2d", { alpha: false });
  }

  // Throws an Error with a line for the user.
  async open(deviceId) {
    if (!navigator.mediaDevices) {
      throw new Error("Browsers open cameras for localhost and for https pages only. Start videonst serve with --tls-certificate and --tls-key to use this camera.");
    }
    const wanted = { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } };
    const choice = deviceId ? { deviceId: { exact: deviceId } } : { facingMode: "user" };
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video: { ...wanted, ...choice }, audio: false });
    } catch (error) {
      throw new Error(REASONS[error.name] ?? `The camera does not open: ${error.message}`);
    }
    this.video.srcObject = this.stream;
    await this.video.play();
  }

  onLost(callback) {
    for (const track of this.stream.getVideoTracks()) track.onended = callback;
  }

  // Calls back for every new picture until `close`.
  eachFrame(callback) {
    const stream = this.stream;
    const next = this.video.requestVideoFrameCallback
      ? (call) => this.video.requestVideoFrameCallback(call)
      : (call) => requestAnimationFrame(call);
    const step = () => {
      if (this.stream !== stream || !stream) return;
      callback();
      next(step);
    };
    next(step);
  }

  // The picture of this moment: encoded, and as a bitmap of the same size.
  async capture(lines, format, mirrored) {
    const { videoWidth: width, videoHeight: height } = this.video;
    const scale = Math.min(1, (lines === "auto" ? AUTO_LINES : lines) / Math.min(width, height));
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    if (mirrored) this.context.setTransform(-1, 0, 0, 1, this.canvas.width, 0);
    this.context.drawImage(this.video, 0, 0, this.canvas.width, this.canvas.height);
    const encoded = new Promise((done) => this.canvas.toBlob(done, `image/${format}`, QUALITY));
    const [blob, bitmap] = await Promise.all([encoded, createImageBitmap(this.canvas)]);
    return { blob, bitmap };
  }

  close() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = null;
    this.video.srcObject = null;
  }
}

const REASONS = {
  NotAllowedError: "This page may not use the camera. Allow it in the browser's address bar, then start again.",
  NotFoundError: "No camera is connected.",
  NotReadableError: "Another program is using the camera. Close it, then start again.",
  OverconstrainedError: "That camera is not connected any more. Choose another one in the settings.",
};
