// Dark or light: as the system says until a person says otherwise.

export type Choice = 'auto' | 'light' | 'dark';
const KEY = 'footfall.theme';
const NEXT: Record<Choice, Choice> = { auto: 'light', light: 'dark', dark: 'auto' };

class Theme {
  choice = $state<Choice>('auto');
  /** Changes whenever colours may have: charts draw again. */
  version = $state(0);

  constructor() {
    try {
      const kept = localStorage.getItem(KEY);
      if (kept === 'light' || kept === 'dark') this.choice = kept;
    } catch {
      // Storage is forbidden: the choice lasts as long as the page.
    }
    this.#show();
    // Canvases do not wait for a font.
    void document.fonts.load("1rem 'Inter Variable'").then(() => (this.version += 1));
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => (this.version += 1));
  }

  next(): void {
    this.choice = NEXT[this.choice];
    try {
      if (this.choice === 'auto') localStorage.removeItem(KEY);
      else localStorage.setItem(KEY, this.choice);
    } catch {
      // As above.
    }
    this.#show();
  }

  #show(): void {
    if (this.choice === 'auto') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = this.choice;
    this.version += 1;
  }
}

export const theme = new Theme();
