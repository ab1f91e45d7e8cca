import type { Report } from "../api/types";
import { bytes, digits } from "../numbers";

/** Size, latency and quality of the float file and of the quantized one. */
export function BeforeAfter({ report }: { report: Report }) {
  const { model, metrics, latency_ms: latency } = report;
  return (
    <section class="card" aria-labelledby="result-title">
      <h2 id="result-title">Result</h2>
      <div class="scroll" tabIndex={0} role="region" aria-label="Before and after">
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
                <td class="number">
                  {digits(metrics.quantized)}
                  {metrics.interval && ` (95 %: ${digits(metrics.interval[0])} to ${digits(metrics.interval[1])})`}
                </td>
                <td>
                  {metrics.samples} samples
                  {metrics.change_interval &&
                    `, change with 95 % between ${digits(metrics.change_interval[0])} and ${digits(metrics.change_interval[1])}`}
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
