/** The two ways to a node that old browsers have. Each answers once. */

import type { ServerFrame } from "../protocol";

const ANSWER_MS = 10_000;

/** Answers with the frame, and with the status; without a frame when there was no answer. */
export function post(url: string, body: string, done: (frame: ServerFrame | undefined, status: number) => void): void {
  const request = new XMLHttpRequest();
  request.onreadystatechange = () => {
    if (request.readyState !== 4) return;
    let frame: ServerFrame | undefined;
    try {
      frame = JSON.parse(request.responseText) as ServerFrame;
    } catch {
      // No answer, or one of something on the way.
    }
    done(frame, request.status);
  };
  request.open("POST", url);
  request.timeout = ANSWER_MS;
  // Another type would ask for permission first.
  request.setRequestHeader("Content-Type", "text/plain");
  request.send(body);
}

/** Whether a request to another origin can be read at all; Internet Explorer before 10 could not. */
export const canPost = (endpoint: string): boolean =>
  "withCredentials" in XMLHttpRequest.prototype || endpoint === location.protocol + "//" + location.host;

/** An image that loads was taken. */
export function pixel(url: string, done: (taken: boolean) => void): void {
  const image = new Image();
  const end = (taken: boolean) => {
    clearTimeout(late);
    image.onload = image.onerror = null;
    done(taken);
  };
  const late = setTimeout(() => end(false), ANSWER_MS);
  image.onload = () => end(true);
  image.onerror = () => end(false);
  image.src = url;
}

/** Longest address of an image in characters: Internet Explorer cuts at 2,083, a node's limit for all headers is 16 KiB. */
export const maxAddress = (): number => ("documentMode" in document ? 2_000 : 8_000);
