import type { ServerFrame } from "./protocol";

/** One connection to a node, whatever carries it. */
export interface Link {
  /** `text` is a whole frame. */
  send(text: string): void;
  /** No `down` is heard after this. */
  close(): void;
}

export interface Listener {
  frame: (frame: ServerFrame) => void;
  /** It is gone, with a WebSocket's close code or 0. */
  down: (code: number) => void;
}
