import type { Chart, Plugin } from "chart.js";

export interface Measured {
  x: number;
  y: number;
  /** One standard error, up and down. */
  error: number | null;
}

/** Draws a whisker through each point of the data sets that are told so by `errorBars: true`. */
export const errorBars: Plugin = {
  id: "errorBars",
  afterDatasetsDraw(chart: Chart) {
    const vertical = chart.scales["y"];
    if (!vertical) return;
    const { ctx, chartArea } = chart;
    chart.data.datasets.forEach((set, index) => {
      const meta = chart.getDatasetMeta(index);
      if (!(set as { errorBars?: boolean }).errorBars || meta.hidden) return;
      ctx.save();
      ctx.beginPath();
      ctx.rect(chartArea.left, chartArea.top, chartArea.width, chartArea.height);
      ctx.clip();
      ctx.strokeStyle = String(set.borderColor);
      ctx.lineWidth = 1.5;
      (set.data as unknown as Measured[]).forEach((point, place) => {
        const element = meta.data[place];
        if (!element || !point.error) return;
        const high = vertical.getPixelForValue(point.y + point.error);
        const low = vertical.getPixelForValue(Math.max(point.y - point.error, vertical.min));
        ctx.beginPath();
        ctx.moveTo(element.x, high);
        ctx.lineTo(element.x, low);
        ctx.moveTo(element.x - 4, high);
        ctx.lineTo(element.x + 4, high);
        ctx.moveTo(element.x - 4, low);
        ctx.lineTo(element.x + 4, low);
        ctx.stroke();
      });
      ctx.restore();
    });
  },
};
