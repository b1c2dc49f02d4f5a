// What lies between a browser and a node: passes everything on, or fails in the way that a test tells it to.

import http from 'node:http';
import net from 'node:net';

export class FaultProxy {
  /** `none`, `strip_upgrade`, `swallow_acks` (of sockets that are open or come), `refuse`. */
  fault = 'none';
  /** Headers of pages. */
  headers = {};
  #sockets = new Set();
  #server;

  static async to(target) {
    const proxy = new FaultProxy();
    const { hostname, port } = new URL(target);
    proxy.#server = http.createServer((request, response) => {
      const { method, url, headers } = request;
      const onward = http.request({ hostname, port, method, path: url, headers }, (answer) => {
        response.writeHead(answer.statusCode, { ...answer.headers, ...(/html/.test(answer.headers['content-type']) && proxy.headers) });
        answer.pipe(response);
      });
      onward.on('error', () => response.destroy());
      request.pipe(onward);
    });
    proxy.#server.on('connection', (socket) => {
      proxy.#sockets.add(socket);
      socket.on('close', () => proxy.#sockets.delete(socket));
      if (proxy.fault === 'refuse') socket.destroy();
    });
    proxy.#server.on('upgrade', (request, socket, head) => {
      if (proxy.fault === 'strip_upgrade') return socket.end('HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n');
      const node = net.connect(Number(port), hostname, () => {
        const headers = [];
        for (let i = 0; i < request.rawHeaders.length; i += 2) headers.push(`${request.rawHeaders[i]}: ${request.rawHeaders[i + 1]}`);
        node.write(`${request.method} ${request.url} HTTP/1.1\r\n${headers.join('\r\n')}\r\n\r\n`);
        node.write(head);
        socket.pipe(node);
      });
      // The handshake and the welcome pass: what is swallowed is what comes later.
      node.on('data', (bytes) => {
        if (proxy.fault !== 'swallow_acks' || !bytes.includes('"t":"ack"')) socket.write(bytes);
      });
      for (const [one, other] of [[node, socket], [socket, node]]) {
        one.on('error', () => other.destroy());
        one.on('close', () => other.destroy());
      }
    });
    await new Promise((done) => proxy.#server.listen(0, '127.0.0.1', done));
    proxy.url = `http://127.0.0.1:${proxy.#server.address().port}`;
    return proxy;
  }

  /** Ends every connection without a word. */
  cut() {
    for (const socket of this.#sockets) socket.destroy();
  }

  async close() {
    this.cut();
    await new Promise((done) => this.#server.close(done));
  }
}
