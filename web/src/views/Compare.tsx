import { api } from "../api/client";
import type { Front, Job, Report } from "../api/types";
import { FrontChart } from "../charts/front_chart";
import { useLoad } from "../load";
import { bytes, digits, percent } from "../numbers";
import { Canvas } from "../parts/Canvas";
import { ProblemBox } from "../parts/ProblemBox";
import { thinned } from "../plans";
import type { Place } from "../router";
import { asked } from "./JobList";

interface Entry {
  job: Job;
  report: Report;
  front: Front;
}

/** Two or more jobs on one chart and in one table. */
export function Compare({ place }: { place: Place }) {
  const ids = (place.query.get("jobs") ?? "").split(",").filter(Boolean);
  const found = useLoad<Entry[]>(
    (signal) =>
      Promise.all(
        ids.map(async (id) => {
          const [job, report, front] = await Promise.all([
            api.job(id, signal),
            api.report(id, signal),
            api.front(id, signal),
          ]);
          return { job, report, front };
        }),
      ),
    [ids.join()],
  );
  if (ids.length < 2)
    return (
      <section class="card">
        <h1>Compare</h1>
        <p>
          Choose two or more jobs in the <a href="#/jobs?state=succeeded">list</a>.
        </p>
      </section>
    );
  if (found.error !== null) return <ProblemBox error={found.error} />;
  if (found.value === null) return <p role="status">Loading</p>;
  const entries = found.value;
  const names = entries.map((entry, index) => `${index + 1}. ${entry.job.model}, ${asked(entry.job)}`);
  return (
    <section class="card" aria-labelledby="compare-title">
      <h1 id="compare-title">Compare</h1>
      <Canvas
        label={`Pareto curves of ${entries.length} jobs; the table below has the plans that were made`}
        height={420}
        draw={(canvas) =>
          new FrontChart(canvas, {
            budget: null,
            curves: entries.map(({ front, report }, index) => ({
              name: names[index]!,
              points: thinned(front.points.length, 300).map((at) => ({
                x: front.points[at]!.bytes,
                y: front.points[at]!.predicted_loss,
                error: null,
              })),
              measured: report.trials
                .filter((trial) => trial.chosen)
                .map((trial) => ({ name: trial.name, x: trial.bytes, y: trial.measured_loss, error: trial.stderr })),
            })),
          })
        }
        inputs={[entries]}
      />
      <div class="scroll" tabIndex={0} role="region" aria-label="The jobs side by side">
        <table>
          <thead>
            <tr>
              <th scope="col">Job</th>
              <th scope="col" class="number">
                Size
              </th>
              <th scope="col" class="number">
                Of float
              </th>
              <th scope="col" class="number">
                Metric
              </th>
              <th scope="col" class="number">
                Latency
              </th>
              <th scope="col" class="number">
                Signal to noise
              </th>
            </tr>
          </thead>
          <tbody>
            {entries.map(({ job, report }, index) => (
              <tr key={job.id}>
                <th scope="row">
                  <a href={`#/jobs/${job.id}`}>{names[index]}</a>
                </th>
                <td class="number">{bytes(report.model.quantized_bytes)}</td>
                <td class="number">{percent(report.model.ratio)}</td>
                <td class="number">
                  {report.metrics.quantized === null ? "" : metric(report)}
                </td>
                <td class="number">{digits(report.latency_ms.quantized)} ms</td>
                <td class="number">{report.metrics.sqnr_db === null ? "" : `${digits(report.metrics.sqnr_db)} dB`}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function metric({ metrics }: Report): string {
  const value = metrics.quantized ?? 0;
  return metrics.name?.startsWith("top1") ? `${percent(value)} top-1` : `${metrics.name} ${digits(value)}`;
}
