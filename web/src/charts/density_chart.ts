import { digits } from "../numbers";
import type { Density } from "./densities";
import { axis, BASE, Chart, colour, legend, lineColour, lineDash, scaledAxis, tooltip } from "./look";
import { Scale } from "./scale";

/** Densities below the highest by more than so many powers of ten are left out. */
const DECADES = 6;

/** Densities of eigenvalues, the density on a logarithmic axis. */
export class DensityChart {
  private readonly chart: Chart<"scatter">;

  constructor(canvas: HTMLCanvasElement, curves: readonly Density[]) {
    const high = Math.max(...curves.flatMap((curve) => curve.points.map((point) => point.y)));
    const floor = high * 10 ** -DECADES;
    const scale = Scale.fit([floor, high]);
    this.chart = new Chart<"scatter">(canvas, {
      type: "scatter",
      data: {
        datasets: curves.map((curve, index) => ({
          label: curve.name,
          showLine: true,
          spanGaps: false,
          pointRadius: 0,
          pointHitRadius: 6,
          pointStyle: "line",
          borderWidth: 2,
          borderColor: lineColour(index),
          borderDash: lineDash(index),
          data: curve.points.map((point) => ({ x: point.x, y: point.y < floor ? NaN : scale.place(point.y), density: point.y })),
        })),
      },
      options: {
        ...(BASE as object),
        interaction: { mode: "nearest", intersect: false, axis: "x" },
        scales: {
          x: { ...axis("eigenvalue"), ticks: { color: colour("quiet"), maxRotation: 0, callback: (value) => digits(Number(value)) } },
          y: scaledAxis("density", scale),
        },
        plugins: {
          legend: legend(curves.length > 1),
          tooltip: {
            ...tooltip(),
            callbacks: {
              label: (item) => {
                const point = item.raw as { x: number; density: number };
                return `${item.dataset.label}: ${digits(point.density)} at ${digits(point.x)}`;
              },
            },
          },
        },
      },
    });
  }

  destroy(): void {
    this.chart.destroy();
  }
}
