// Eigenvalue densities from the quadrature points of stochastic Lanczos, smoothed by a Gaussian.

export interface SpectrumEntry {
  name: string;
  parameters: number;
  values: number[][];
  weights: number[][];
  smallest: number | null;
  largest: number | null;
  trace: number | null;
  frobenius: number | null;
}

export interface Density {
  name: string;
  points: { x: number; y: number }[];
}

const POINTS = 400;
const WIDTH = 0.01;

/** Density of one spectrum; each probe has mass 1, and their mean is shown. Null where there is nothing to draw. */
export function density(entry: SpectrumEntry): Density | null {
  const { smallest, largest } = entry;
  if (smallest === null || largest === null || !(largest > smallest)) return null;
  const width = WIDTH * (largest - smallest);
  const start = smallest - 4 * width;
  const step = (largest - smallest + 8 * width) / (POINTS - 1);
  const scale = 1 / (Math.sqrt(2 * Math.PI) * width * entry.values.length);
  const points = Array.from({ length: POINTS }, (_, index) => {
    const x = start + index * step;
    let y = 0;
    entry.values.forEach((places, probe) =>
      places.forEach((place, k) => {
        const distance = (x - place) / width;
        if (Math.abs(distance) < 8) y += entry.weights[probe]![k]! * Math.exp(-0.5 * distance * distance);
      }),
    );
    return { x, y: y * scale };
  });
  return { name: entry.name, points };
}
