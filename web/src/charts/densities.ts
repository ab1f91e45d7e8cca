// Eigenvalue densities from the quadrature points of stochastic Lanczos, smoothed by a Gaussian.

export interface SpectrumEntry {
  name: string;
  values: number[][];
  weights: number[][];
  smallest: number | null;
  largest: number | null;
}

const POINTS = 400;
const WIDTH = 0.012;
const LEAST = 1e-6;

/** Density of one spectrum; each probe has mass 1, and their mean is shown. Null where the Hessian is not finite. */
export function density(entry: SpectrumEntry): { x: number; y: number }[] | null {
  if (entry.smallest === null || entry.largest === null) return null;
  const span = entry.largest - entry.smallest || Math.abs(entry.largest) || 1;
  const width = WIDTH * span;
  const start = entry.smallest - 4 * width;
  const step = (span + 8 * width) / (POINTS - 1);
  const scale = 1 / (Math.sqrt(2 * Math.PI) * width * entry.values.length);
  return Array.from({ length: POINTS }, (_, index) => {
    const x = start + index * step;
    let y = 0;
    entry.values.forEach((places, probe) =>
      places.forEach((place, k) => {
        const distance = (x - place) / width;
        if (Math.abs(distance) < 6) y += entry.weights[probe]![k]! * Math.exp(-0.5 * distance * distance);
      }),
    );
    return { x, y: Math.max(y * scale, LEAST) };
  });
}
