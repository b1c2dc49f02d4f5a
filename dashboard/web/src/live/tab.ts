// The tab's title and its little picture show how many are here.

import type { Site } from '../api';
import * as format from '../format';
import { strings } from '../strings';
import type { View } from './view';

/** Pixels of the picture. */
const SIZE = 64;
/** The picture is drawn anew at most this often. */
const EVERY_MS = 1_000;

class Tab {
  #drawn = '';
  #wanted = '';
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** `null`: nothing is known. Of a filter who is active stands for who is online. */
  show(site: Site | null, view: View | null): void {
    const here = view?.online ?? view?.active ?? null;
    document.title = site && here !== null ? strings.title(format.count(here), site.name) : strings.product;
    this.#wanted = here === null ? '' : short(here);
    if (this.#timer === undefined) this.#draw();
  }

  #draw(): void {
    this.#timer = undefined;
    if (this.#wanted === this.#drawn) return;
    this.#timer = setTimeout(() => this.#draw(), EVERY_MS);
    const link = document.querySelector<HTMLLinkElement>('link[rel=icon]');
    const picture = this.#wanted === '' ? null : painted(this.#wanted);
    if (!link || picture === null) return;
    this.#drawn = this.#wanted;
    link.type = 'image/png';
    link.href = picture;
  }
}

export const tab = new Tab();

/** At most three figures, so that they can be read in a tab. */
export function short(count: number): string {
  if (count < 1_000) return String(count);
  const [size, unit] = count < 1_000_000 ? [count / 1_000, 'k'] : [count / 1_000_000, 'M'];
  return `${size < 10 ? Math.floor(size * 10) / 10 : Math.floor(size)}${unit}`;
}

function painted(text: string): string | null {
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = SIZE;
  const pen = canvas.getContext('2d');
  if (!pen) return null;
  pen.fillStyle = '#0f766e';
  pen.beginPath();
  pen.roundRect(0, 0, SIZE, SIZE, 16);
  pen.fill();
  pen.fillStyle = '#fff';
  pen.textAlign = 'center';
  pen.textBaseline = 'middle';
  const height = text.length < 3 ? 42 : 32;
  pen.font = `700 ${height}px 'Inter Variable', sans-serif`;
  pen.fillText(text, SIZE / 2, SIZE / 2 + 3, SIZE - 6);
  return canvas.toDataURL('image/png');
}
