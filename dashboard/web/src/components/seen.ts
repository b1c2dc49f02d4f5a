// Tells whether an element is within what the reader sees, and every change of that.

import type { Attachment } from 'svelte/attachments';

export function seen(tell: (isSeen: boolean) => void): Attachment {
  return (element) => {
    const observer = new IntersectionObserver((entries) => {
      const last = entries.at(-1);
      if (last) tell(last.isIntersecting);
    });
    observer.observe(element);
    return () => {
      observer.disconnect();
      tell(false);
    };
  };
}
