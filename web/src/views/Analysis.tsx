import { useMemo, useState } from "preact/hooks";

import { api, download } from "../api/client";
import type { Job, Sensitivity } from "../api/types";
import { LayerChart, lossScale } from "../charts/layer_chart";
import { useLoad } from "../load";
import { bits, digits } from "../numbers";
import { Canvas } from "../parts/Canvas";
import { ProblemBox } from "../parts/ProblemBox";
import { barOf } from "../plans";
import { Spectrum } from "./Spectrum";

/** The result of an analysis: what each layer would cost at each width, and its curvature. */
export function Analysis({ job }: { job: Job }) {
  const table = useLoad((signal) => api.sensitivity(job.id, signal), [job.id]);
  if (table.error !== null) return <ProblemBox error={table.error} />;
  if (table.value === null) return <p role="status">Loading</p>;
  return (
    <>
      <Layers table={table.value} />
      {job.spec["spectrum"] === true && <Spectrum job={job} />}
      <div class="row">
        <button type="button" onClick={() => download(`jobs/${job.id}/files/sensitivity.json`, "sensitivity.json")}>
          Download sensitivity.json
        </button>
      </div>
    </>
  );
}

function Layers({ table }: { table: Sensitivity }) {
  const widths = useMemo(
    () => [...new Set(table.layers.flatMap((layer) => Object.keys(layer.sensitivity ?? {}).map(Number)))].sort((a, b) => a - b),
    [table],
  );
  const [width, setWidth] = useState(widths[0] ?? 8);
  const scale = useMemo(() => lossScale(table.layers.map((layer) => layer.sensitivity)), [table]);
  const bars = table.layers.map((layer) => barOf(layer.name, "", width, "", layer));
  return (
    <section class="card" aria-labelledby="layers-title">
      <div class="row">
        <h2 id="layers-title">
          Sensitivity by {table.method}, {table.loss}, {table.samples} samples
        </h2>
        <label class="end">
          Bits
          <select value={width} onChange={(event) => setWidth(Number(event.currentTarget.value))}>
            {widths.map((choice) => (
              <option value={choice} key={choice}>
                {bits(choice)}
              </option>
            ))}
          </select>
        </label>
      </div>
      <Canvas
        label={`Expected increase of the loss with each of ${bars.length} layers alone at ${width} bits; the table below has the figures`}
        height={600}
        draw={(canvas) => new LayerChart(canvas, bars, scale)}
        inputs={[table, width]}
      />
      <div class="scroll tall" tabIndex={0} role="region" aria-label="Sensitivity of the layers">
        <table>
          <thead>
            <tr>
              <th scope="col">Layer</th>
              <th scope="col" class="number">
                Trace
              </th>
              {widths.map((choice) => (
                <th scope="col" class="number" key={choice}>
                  {bits(choice)}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {table.layers.map((layer) => (
              <tr key={layer.name}>
                <th scope="row">{layer.name}</th>
                <td class="number">{layer.trace === null ? "" : `${digits(layer.trace)} ± ${digits(layer.trace_stderr ?? 0)}`}</td>
                {widths.map((choice) => (
                  <td class="number" key={choice}>
                    {layer.sensitivity?.[String(choice)] === undefined ? "" : digits(layer.sensitivity[String(choice)]!)}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}
