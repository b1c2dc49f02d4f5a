/** An ingest node for tests: keeps what it acks, and fails in the ways that it is told to. */

import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { WebSocketServer, type WebSocket } from "ws";
import type { Ack, Batch, Here, Nack, TrackerEvent } from "../../src/protocol";

const root = new URL("../../", import.meta.url);
const types: Record<string, string> = { html: "text/html", css: "text/css", js: "text/javascript", svg: "image/svg+xml" };

export interface Stored {
  id: string;
  event: TrackerEvent;
  /** Whom it came for: two visitors' copies meet nowhere, so it would count twice. */
  visitors: Set<string>;
  copies: number;
  transports: Set<"ws" | "http" | "pixel">;
}

export class Ingest {
  readonly stored = new Map<string, Stored>();
  readonly here: Here[] = [];
  readonly batches: { batch: Batch; transport: "ws" | "http" | "pixel" }[] = [];
  readonly broken: string[] = [];
  upgrades = 0;
  /** What goes wrong from now on. */
  fault: "none" | "no_upgrade" | "silent_upgrade" | "no_network" | "kill_before_ack" | "swallow_acks" | "nack" | "unknown_site" = "none";
  /** Put into the script tag of the pages it serves. */
  attribute = "";
  policy = "default-src 'self'";
  private visitors = 0;
  private tokens = 0;
  private sockets = new Set<Socket>();
  private server: Server;
  private upgrader = new WebSocketServer({ noServer: true, handleProtocols: () => "footfall.v1" });
  private clients = new Set<WebSocket>();

  constructor() {
    this.server = createServer((request, response) => {
      const { pathname, searchParams } = new URL(request.url ?? "/", "http://node");
      if (pathname === "/e") {
        if (this.fault === "no_network") return request.socket.destroy();
        let body = "";
        request.on("data", (part: Buffer) => (body += part.toString()));
        request.on("end", () => {
          response.setHeader("access-control-allow-origin", "*");
          response.setHeader("content-type", "application/json");
          if (this.fault === "unknown_site") {
            response.statusCode = 404;
            return response.end(JSON.stringify({ t: "error", reason: "unknown_site", detail: "no such site" }));
          }
          const presented = searchParams.get("t");
          const answer = this.take(JSON.parse(body) as Batch, "http", presented ?? undefined);
          if (!answer) return request.socket.destroy();
          if (answer.t === "nack") response.statusCode = 503;
          response.end(JSON.stringify(answer.t === "ack" ? { ...answer, token: this.token(presented) } : answer));
        });
        return;
      }
      if (pathname === "/e.gif") {
        if (this.fault === "no_network") return request.socket.destroy();
        this.take(JSON.parse(searchParams.get("b") ?? "") as Batch, "pixel", searchParams.get("t") || "derived");
        response.setHeader("content-type", "image/gif");
        return response.end(Buffer.from("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7", "base64"));
      }
      this.serve(pathname, response);
    });
    this.server.on("connection", (socket) => {
      this.sockets.add(socket);
      socket.on("close", () => this.sockets.delete(socket));
    });
    this.server.on("upgrade", (request: IncomingMessage, socket: Socket, head: Buffer) => {
      const query = new URL(request.url ?? "/", "http://node").searchParams;
      this.upgrades += 1;
      if (this.fault === "no_network" || this.fault === "unknown_site") return socket.destroy();
      if (this.fault === "no_upgrade") return socket.end("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n");
      this.upgrader.handleUpgrade(request, socket, head, (client) => this.welcome(client, query.get("t")));
    });
  }

  async listen(): Promise<string> {
    await new Promise<void>((done) => this.server.listen(0, "127.0.0.1", done));
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    await new Promise((done) => this.server.close(done));
  }

  /** Cuts every WebSocket without a close frame. */
  cut(): void {
    for (const client of this.clients) client.terminate();
  }

  closeAll(code: number): void {
    for (const client of this.clients) client.close(code);
  }

  get connections(): number {
    return this.clients.size;
  }

  events(kind: TrackerEvent["k"]): TrackerEvent[] {
    return [...this.stored.values()].map(({ event }) => event).filter(({ k }) => k === kind);
  }

  /** A token is a visitor and a signature that is another one each time. */
  private token = (presented?: string | null) => `${presented?.split(".")[0] || `visitor${(this.visitors += 1)}`}.${(this.tokens += 1)}`;

  private welcome(client: WebSocket, presented: string | null): void {
    this.clients.add(client);
    client.on("close", () => this.clients.delete(client));
    if (this.fault === "silent_upgrade") return;
    const token = this.token(presented);
    const limits = { batch_events: 256, batch_bytes: 65_536, idle_ms: 60_000 };
    client.send(JSON.stringify({ t: "welcome", token, node: "test", now: Date.now(), limits }));
    client.on("message", (data: Buffer) => {
      const frame = JSON.parse(data.toString()) as Batch | Here;
      if (frame.t === "here") {
        this.here.push(frame);
        return;
      }
      if (data.length > 65_536) this.broken.push(`a frame of ${data.length} bytes`);
      const answer = this.take(frame, "ws", token);
      if (answer) client.send(JSON.stringify(answer));
      else if (this.fault === "kill_before_ack") {
        this.fault = "none";
        client.terminate();
      }
    });
  }

  private take(batch: Batch, transport: "ws" | "http" | "pixel", connection: string | undefined): Ack | Nack | undefined {
    const { stream, first, events } = batch;
    const upto = first + events.length - 1;
    this.batches.push({ batch, transport });
    if (this.fault === "nack") {
      this.fault = "none";
      return { t: "nack", stream, first, upto, reason: "log_unavailable", retry_ms: 300 };
    }
    const token = batch.token ?? connection;
    if (events.length && !token) this.broken.push(`events without a token: ${JSON.stringify(batch)}`);
    if (!/^[0-9a-f]{24}$/.test(stream)) this.broken.push(`stream ${stream}`);
    events.forEach((event, index) => {
      const id = `${stream}/${first + index}`;
      const known = this.stored.get(id);
      if (known) {
        const timeless = (each: TrackerEvent) => JSON.stringify({ ...each, at: 0 });
        if (timeless(known.event) !== timeless(event)) this.broken.push(`${id} says something else when sent again`);
      }
      const stored = known ?? { id, event, visitors: new Set(), copies: 0, transports: new Set() };
      stored.copies += 1;
      stored.visitors.add(token?.split(".")[0] ?? "");
      stored.transports.add(transport);
      if (stored.visitors.size > 1) this.broken.push(`${id} came for the visitors ${[...stored.visitors].join()}`);
      this.stored.set(id, stored);
    });
    if (this.fault === "kill_before_ack" || this.fault === "swallow_acks") return;
    return { t: "ack", stream, first, upto };
  }

  private serve(path: string, response: { statusCode: number; setHeader(name: string, value: string): void; end(body?: string | Buffer): void }): void {
    const files: Record<string, string> = { "/demo/": "demo/index.html" };
    const file = files[path] ?? (/^\/f[-\w]*\.js$/.test(path) ? `dist${path}` : undefined) ?? (path.startsWith("/demo/app/") ? "demo/app.html" : path.slice(1));
    try {
      const body = readFileSync(new URL(file, root));
      const type = types[file.split(".").pop() ?? ""] ?? "application/octet-stream";
      response.setHeader("content-type", `${type}; charset=utf-8`);
      response.setHeader("content-security-policy", this.policy);
      response.end(
        type === "text/html"
          ? body
              .toString()
              .replace("data-site", `${this.attribute} data-site`)
              .replaceAll("{{site}}", "demo")
              .replaceAll("{{dashboard}}", "/dashboard")
          : body,
      );
    } catch {
      response.statusCode = 404;
      response.end();
    }
  }
}
