import { useState } from "preact/hooks";

import { api } from "../api/client";
import type { Job } from "../api/types";
import { density, type SpectrumEntry } from "../charts/densities";
import { DensityChart } from "../charts/density_chart";
import { useLoad } from "../load";
import { count, digits } from "../numbers";
import { Canvas } from "../parts/Canvas";
import { ProblemBox } from "../parts/ProblemBox";

/** Eigenvalue densities, of a job that was asked for them. */
export function Spectrum({ job }: { job: Job }) {
  const found = useLoad((signal) => api.file<{ spectra: SpectrumEntry[] }>(job.id, "spectrum.json", signal), [job.id]);
  const [name, setName] = useState<string | null>(null);
  const spectra = found.value?.spectra ?? [];
  const entry = spectra.find((spectrum) => spectrum.name === name) ?? spectra[0];
  const curve = entry && density(entry);
  if (found.error !== null) return <ProblemBox error={found.error} />;
  if (!entry) return null;
  return (
    <section class="card" aria-labelledby="spectrum-title">
      <div class="row">
        <h2 id="spectrum-title">Eigenvalues of the Hessian</h2>
        <label class="end">
          Of
          <select value={entry.name} onChange={(event) => setName(event.currentTarget.value)}>
            {spectra.map((spectrum) => (
              <option key={spectrum.name}>{spectrum.name}</option>
            ))}
          </select>
        </label>
      </div>
      {curve ? (
        <Canvas
          label={`Density of the eigenvalues of ${entry.name}, from ${digits(entry.smallest ?? 0)} to ${digits(entry.largest ?? 0)}; the table below has the figures`}
          height={340}
          draw={(canvas) => new DensityChart(canvas, [curve])}
          inputs={[entry]}
        />
      ) : (
        <p>The Hessian of {entry.name} has no density: it is not finite, or all its eigenvalues are equal.</p>
      )}
      <details>
        <summary>As a table</summary>
        <div class="scroll tall" tabIndex={0} role="region" aria-label="Eigenvalues">
          <table>
            <thead>
              <tr>
                <th scope="col">Hessian of</th>
                {["Parameters", "Smallest", "Largest", "Trace", "Frobenius norm"].map((title) => (
                  <th scope="col" class="number" key={title}>
                    {title}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {spectra.map((row) => (
                <tr key={row.name}>
                  <th scope="row">{row.name}</th>
                  <td class="number">{count(row.parameters)}</td>
                  {[row.smallest, row.largest, row.trace, row.frobenius].map((value, index) => (
                    <td class="number" key={index}>
                      {value === null ? "–" : digits(value)}
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </details>
    </section>
  );
}
