// Short words on what was done; they go by themselves.

const SHOWN_MS = 5_000;

class Toasts {
  shown = $state.raw<{ id: number; text: string }[]>([]);
  #next = 0;

  say(text: string): void {
    const id = (this.#next += 1);
    this.shown = [...this.shown.slice(-2), { id, text }];
    setTimeout(() => (this.shown = this.shown.filter((toast) => toast.id !== id)), SHOWN_MS);
  }
}

export const toasts = new Toasts();
