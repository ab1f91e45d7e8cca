// What report.html and spectrum.html run: the page's charts on the figures that stand in the file.

import { density, type SpectrumEntry } from "../charts/densities";
import { DensityChart } from "../charts/density_chart";
import { FrontChart, type FrontData } from "../charts/front_chart";
import { type LayerBar, LayerChart, lossScale } from "../charts/layer_chart";
import { sortable } from "./sorting";
import "./report.css";

interface Figures {
  front?: FrontData;
  layers?: LayerBar[];
  spectra?: SpectrumEntry[];
}

const figures = JSON.parse(document.getElementById("figures")!.textContent!) as Figures;
const darkness = matchMedia("(prefers-color-scheme: dark)");
let drawn: { destroy(): void }[] = [];

function canvas(name: string): HTMLCanvasElement | null {
  return document.querySelector(`canvas[data-chart="${name}"]`);
}

function draw(theme: "light" | "dark"): void {
  for (const chart of drawn) chart.destroy();
  document.documentElement.dataset["theme"] = theme;
  drawn = [];
  const { front, layers, spectra } = figures;
  const [curve, depth, spread] = ["front", "layers", "spectrum"].map(canvas);
  if (front && curve) drawn.push(new FrontChart(curve, front));
  if (layers && depth) drawn.push(new LayerChart(depth, layers, lossScale(layers.map(whiskers))));
  const density = spectra && chosenDensity(spectra);
  if (spread && density) drawn.push(new DensityChart(spread, [density]));
}

/** What the loss axis of these layers must hold. */
function whiskers(bar: LayerBar): Record<string, number> | null {
  if (bar.loss === null || bar.bits === 32) return null;
  return { low: bar.loss, high: bar.loss + (bar.lossError ?? 0) };
}

function chosenDensity(spectra: SpectrumEntry[]) {
  const chosen = document.querySelector<HTMLSelectElement>("select[data-spectrum]")?.value;
  const entry = spectra.find((spectrum) => spectrum.name === chosen) ?? spectra[0];
  const canvasThere = canvas("spectrum");
  if (entry && canvasThere) canvasThere.setAttribute("aria-label", `Density of the eigenvalues of ${entry.name}`);
  return entry && density(entry);
}

const now = () => draw(darkness.matches ? "dark" : "light");

now();
darkness.addEventListener("change", now);
document.querySelector("select[data-spectrum]")?.addEventListener("change", now);
// Paper is white whatever the theme.
addEventListener("beforeprint", () => draw("light"));
addEventListener("afterprint", now);
sortable(document.querySelectorAll<HTMLTableElement>("table[data-sortable]"));
