import type { Report } from "../api/types";
import { bytes, digits, percent } from "../numbers";

/** Size, latency and quality of the float file and of the quantized one. */
export function BeforeAfter({ report }: { report: Report }) {
  const { model, metrics, latency_ms: latency } = report;
  return (
    <section class="card" aria-labelledby="result-title">
      <h2 id="result-title">Result</h2>
      <div class="scroll">
        <table>
          <thead>
            <tr>
              <td />
              <th scope="col" class="number">
                Float
              </th>
              <th scope="col" class="number">
                Quantized
              </th>
              <th scope="col">Change</th>
            </tr>
          </thead>
          <tbody>
            <tr>
              <th scope="row">Size</th>
              <td class="number">{bytes(model.float_bytes)}</td>
              <td class="number">{bytes(model.quantized_bytes)}</td>
              <td>{digits(model.float_bytes / model.quantized_bytes)} times smaller</td>
            </tr>
            <tr>
              <th scope="row">Latency, batch {latency.batch}</th>
              <td class="number">
                {digits(latency.float)} ms (spread {digits(latency.float_spread)})
              </td>
              <td class="number">
                {digits(latency.quantized)} ms (spread {digits(latency.quantized_spread)})
              </td>
              <td>
                {digits(latency.speedup)} times the speed, {latency.threads} threads
              </td>
            </tr>
            {metrics.name && metrics.float !== null && metrics.quantized !== null && (
              <tr>
                <th scope="row">{metrics.name}</th>
                <td class="number">{digits(metrics.float)}</td>
                <td class="number">{digits(metrics.quantized)}</td>
                <td>
                  {metrics.samples} samples
                  {metrics.drop_interval && `, change between ${percent(-metrics.drop_interval[1], 2)} and ${percent(-metrics.drop_interval[0], 2)}`}
                </td>
              </tr>
            )}
            {metrics.sqnr_db !== null && (
              <tr>
                <th scope="row">Output signal to noise</th>
                <td />
                <td class="number">{digits(metrics.sqnr_db)} dB</td>
                <td>{metrics.mean_cosine !== null && `cosine ${metrics.mean_cosine.toFixed(4)}`}</td>
              </tr>
            )}
          </tbody>
        </table>
      </div>
    </section>
  );
}
