import type { Link, Listener } from "./link";
import { SUBPROTOCOL, type ServerFrame } from "./protocol";

/** Opens a WebSocket; the node's first frame is its welcome. */
export function dialSocket(url: string, { frame, down }: Listener): Link {
  const socket = new WebSocket(url, SUBPROTOCOL);
  socket.onmessage = ({ data }) => frame(JSON.parse(data as string) as ServerFrame);
  socket.onclose = ({ code }) => down(code);
  return {
    send: (text) => socket.send(text),
    close() {
      socket.onmessage = socket.onclose = null;
      socket.close();
    },
  };
}
