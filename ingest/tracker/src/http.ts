import type { Link, Listener } from "./link";
import type { ServerFrame } from "./protocol";

/** Sends each frame as a request of its own (text/plain: no preflight) and hears the answer to it. */
export function dialHttp(url: string, { frame, down }: Listener): Link {
  let open = true;
  return {
    send(body) {
      fetch(url, { method: "POST", body, keepalive: true, credentials: "omit" })
        .then((response) => response.json() as Promise<ServerFrame>)
        // An ack counts however late it comes.
        .then(frame)
        .catch(() => open && down(0));
    },
    close() {
      open = false;
    },
  };
}
