/** A module knows nothing of the tracker but `window.footfall`: the real one, or the page's queue in its place. */

type Footfall = (name: string, options: { props: Record<string, boolean | number | string> }) => void;

export function track(name: string, props: Parameters<Footfall>[1]["props"]): void {
  (window as { footfall?: Footfall }).footfall?.(name, { props });
}

/** What goes wrong in here must not reach the page. */
export const safe =
  <A extends unknown[]>(task: (...args: A) => void) =>
  (...args: A): void => {
    try {
      task(...args);
    } catch (error) {
      console.debug("footfall", error);
    }
  };
