import { digits } from "../numbers";
import { axis, BASE, Chart, colour, lineColour, powerTick, tooltip } from "./look";

/** Density of eigenvalues, on a logarithmic axis; both axes as the curves were computed. */
export class DensityChart {
  private readonly chart: Chart<"scatter">;

  constructor(canvas: HTMLCanvasElement, curves: { name: string; points: { x: number; y: number }[] }[]) {
    this.chart = new Chart<"scatter">(canvas, {
      type: "scatter",
      data: {
        datasets: curves.map((curve, index) => ({
          label: curve.name,
          showLine: true,
          pointRadius: 0,
          pointHitRadius: 6,
          borderWidth: 2,
          borderColor: lineColour(index),
          data: curve.points,
        })),
      },
      options: {
        ...(BASE as object),
        scales: {
          x: axis("eigenvalue"),
          y: { ...(axis("density") as object), type: "logarithmic", ticks: { color: colour("quiet"), callback: powerTick } },
        },
        plugins: {
          legend: { display: curves.length > 1, labels: { color: colour("ink") } },
          tooltip: {
            ...tooltip(),
            callbacks: {
              label: (item) => {
                const point = item.raw as { x: number; y: number };
                return `${item.dataset.label}: ${digits(point.y)} at ${digits(point.x)}`;
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
