// The two ways frames come in: a WebSocket, and server-sent events where something between lets no WebSocket through.

import { SUBPROTOCOL } from './protocol';

export interface ChannelEvents {
  opened(): void;
  frame(text: unknown): void;
  /** `retries`: the browser itself tries again on this channel. */
  closed(retries: boolean): void;
}

export interface Channel {
  readonly kind: 'socket' | 'events';
  send(text: string): void;
  close(): void;
}

/** Closed by the page: not a node's code. */
const GIVEN_UP = 4_000;

export interface Openers {
  socket(url: string, subprotocol: string): WebSocket;
  events(url: string): EventSource;
}

export const BROWSER_OPENERS: Openers = {
  socket: (url, subprotocol) => new WebSocket(url, subprotocol),
  events: (url) => new EventSource(url),
};

/** May throw what the browser throws. */
export function openSocket(url: string, open: Openers, on: ChannelEvents): Channel {
  const socket = open.socket(url, SUBPROTOCOL);
  socket.onopen = () => on.opened();
  socket.onmessage = (message: MessageEvent<unknown>) => on.frame(message.data);
  socket.onclose = () => on.closed(false);
  return {
    kind: 'socket',
    send: (text) => socket.send(text),
    // Lets go at once: the close handshake of a dead connection may take minutes.
    close: () => {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close(GIVEN_UP);
    },
  };
}

const EVENTS_CLOSED = 2;

export function openEvents(url: string, open: Openers, on: ChannelEvents): Channel {
  const events = open.events(url);
  events.onopen = () => on.opened();
  events.onmessage = (message: MessageEvent<unknown>) => on.frame(message.data);
  events.onerror = () => on.closed(events.readyState !== EVENTS_CLOSED);
  return {
    kind: 'events',
    // One way only: what is asked for stands in the address.
    send: () => undefined,
    close: () => {
      events.onopen = events.onmessage = events.onerror = null;
      events.close();
    },
  };
}
