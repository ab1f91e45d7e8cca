import type { Chart, Plugin } from "chart.js";

import type { Scale } from "./scale";

export interface Measured {
  x: number;
  y: number;
  /** One standard error, up and down. */
  error: number | null;
}

/** What a point's whisker reaches from and to, as places on the axis. */
export interface Whisker {
  from: number;
  to: number;
}

/** Places of a value and of its whisker; what lies below the axis ends with it. */
export function whisker(value: number, error: number | null, scale: Scale): Whisker | null {
  if (!error) return null;
  return { from: Math.max(scale.place(value - error), scale.ends[0]), to: scale.place(value + error) };
}

/** Draws whiskers through the points of the data sets that have them as `whiskers`, one a point. */
export const errorBars: Plugin = {
  id: "errorBars",
  afterDatasetsDraw(chart: Chart) {
    const { ctx } = chart;
    chart.data.datasets.forEach((set, index) => {
      const meta = chart.getDatasetMeta(index);
      const whiskers = (set as { whiskers?: (Whisker | null)[] }).whiskers;
      const vertical = chart.scales[meta.yAxisID ?? "y"];
      if (!whiskers || !vertical || meta.hidden) return;
      ctx.save();
      ctx.strokeStyle = String(set.borderColor);
      ctx.lineWidth = 1.5;
      const cap = meta.data.length > 80 ? 0 : 4;
      whiskers.forEach((reach, place) => {
        const element = meta.data[place];
        if (!element || !reach) return;
        const high = vertical.getPixelForValue(reach.to);
        const low = vertical.getPixelForValue(reach.from);
        ctx.beginPath();
        ctx.moveTo(element.x, high);
        ctx.lineTo(element.x, low);
        for (const end of [high, low]) {
          ctx.moveTo(element.x - cap, end);
          ctx.lineTo(element.x + cap, end);
        }
        ctx.stroke();
      });
      ctx.restore();
    });
  },
};
