/** A node for browsers that know XHR and images only. Keeps what it settles, fails as told, and serves one page. */

import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Batch, ServerFrame, TrackerEvent } from "../../src/protocol";

const GIF = Buffer.from("R0lGODlhAQABAIAAAAAAAAAAACH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==", "base64");
const script = () => readFileSync(new URL("../../dist/f-es5.js", import.meta.url));

type Fault = "none" | "no_network" | "lost_answer" | "nack" | "unknown_site" | "refuses_bad";

export class HttpNode {
  readonly stored = new Map<string, { event: TrackerEvent; token: string; copies: number }>();
  readonly requests: { batch: Batch; way: "xhr" | "pixel"; at: number; address: number }[] = [];
  readonly broken: string[] = [];
  fault: Fault = "none";
  body = "";
  /** How long an answer takes. */
  delayMs = 20;
  private open = 0;
  private server = createServer((request, response) => this.answer(request, response));

  async listen(): Promise<string> {
    await new Promise<void>((done) => this.server.listen(0, "127.0.0.1", done));
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((done) => this.server.close(done));
  }

  customs(): TrackerEvent[] {
    return [...this.stored.values()].map(({ event }) => event).filter(({ k }) => k === "custom");
  }

  private answer(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? "/", "http://node");
    if (url.pathname === "/f-es5.js") return void response.end(script());
    if (url.pathname !== "/e" && url.pathname !== "/e.gif") {
      response.setHeader("content-type", "text/html; charset=utf-8");
      return void response.end(`<!doctype html><title>${url.pathname}</title><body>${this.body}`);
    }
    if (this.fault === "no_network") return void request.socket.destroy();
    if (url.searchParams.get("k") !== "demo") this.broken.push(`site ${url.search}`);
    this.open += 1;
    if (this.open > 1) this.broken.push("two batches at a time");
    let body = "";
    request.on("data", (part: Buffer) => (body += part.toString()));
    request.on("end", () =>
      setTimeout(() => {
        this.open -= 1;
        const isPixel = url.pathname === "/e.gif";
        if (!isPixel && !request.headers["content-type"]?.startsWith("text/plain")) this.broken.push("a type that asks for permission");
        const batch = JSON.parse(isPixel ? (url.searchParams.get("b") ?? "") : body) as Batch;
        this.requests.push({ batch, way: isPixel ? "pixel" : "xhr", at: Date.now(), address: request.url?.length ?? 0 });
        const frame = this.take(batch);
        if (!frame) return void request.socket.destroy();
        response.statusCode = frame.t === "ack" ? 200 : frame.t === "nack" ? 503 : 400;
        if (!isPixel) return void response.end(JSON.stringify(frame));
        response.setHeader("content-type", "image/gif");
        response.end(frame.t === "nack" ? "" : GIF);
      }, this.delayMs),
    );
  }

  private take(batch: Batch): ServerFrame | undefined {
    const { stream, first, events } = batch;
    const upto = first + events.length - 1;
    if (!/^[0-9a-f]{24}$/.test(stream)) this.broken.push(`stream ${stream}`);
    if (this.fault === "unknown_site") return { t: "error", reason: "unknown_site", detail: "" };
    if (this.fault === "refuses_bad" && events.some(({ n }) => n === "bad")) return { t: "error", reason: "malformed", detail: "" };
    if (this.fault === "nack" && events.length) {
      this.fault = "none";
      return { t: "nack", stream, first, upto, reason: "log_unavailable", retry_ms: 800 };
    }
    events.forEach((event, index) => {
      const id = `${stream}/${first + index}`;
      const known = this.stored.get(id);
      const token = batch.token ?? "";
      if (known && (known.token !== token || known.event.n !== event.n)) this.broken.push(`${id} is another one when sent again`);
      this.stored.set(id, { event, token, copies: (known?.copies ?? 0) + 1 });
    });
    if (this.fault === "lost_answer" && events.length) {
      this.fault = "none";
      return undefined;
    }
    return { t: "ack", stream, first, upto, token: `visitor.${this.requests.length}` };
  }
}
