/** How fast and how steady the page was: one event `web_vital` for each metric, when its value is final. */

import { onCLS, onFCP, onINP, onLCP, onTTFB, type Metric } from "web-vitals";
import { safe, track } from "./track";

/** CLS is a score around 0.1, all others are ms. */
const rounded = ({ name, value }: Metric) => (name === "CLS" ? Math.round(value * 1e4) / 1e4 : Math.round(value));

const report = safe((metric: Metric) =>
  track("web_vital", { metric: metric.name, value: rounded(metric), rating: metric.rating, navigation: metric.navigationType }),
);

safe(() => {
  for (const observe of [onCLS, onFCP, onINP, onLCP, onTTFB]) observe(report);
})();
