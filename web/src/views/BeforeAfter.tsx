import type { Report } from "../api/types";
import { bytes, digits, percent } from "../numbers";

const NAMES: Record<string, string> = { top1: "Top-1 accuracy", top1_agreement: "Same class as float", mean_cosine: "Mean cosine" };

interface Row {
  name: string;
  detail: string;
  before: string;
  beforeDetail?: string;
  after: string;
  afterDetail?: string;
  change: string;
  changeDetail?: string;
}

/** Size, latency and quality of the float file and of the quantized one. */
export function BeforeAfter({ report }: { report: Report }) {
  return (
    <section class="card" aria-labelledby="result-title">
      <h2 id="result-title">Result</h2>
      <table class="before-after">
        <thead>
          <tr>
            <td />
            <th scope="col">Float</th>
            <th scope="col">Quantized</th>
            <th scope="col">Change</th>
          </tr>
        </thead>
        <tbody>
          {rows(report).map((row) => (
            <tr key={row.name}>
              <th scope="row">
                {row.name}
                <small>{row.detail}</small>
              </th>
              <td>
                {row.before}
                <small>{row.beforeDetail}</small>
              </td>
              <td class="after">
                {row.after}
                <small>{row.afterDetail}</small>
              </td>
              <td>
                {row.change}
                <small>{row.changeDetail}</small>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function rows(report: Report): Row[] {
  const { model, metrics, latency_ms: latency } = report;
  const faster = latency.speedup >= 1;
  const found: Row[] = [
    {
      name: "Size",
      detail: model.budget_bytes === null ? "on disk" : `budget ${bytes(model.budget_bytes)}`,
      before: bytes(model.float_bytes),
      after: bytes(model.quantized_bytes),
      change: `${digits(model.float_bytes / model.quantized_bytes)}× smaller`,
      changeDetail: `${percent(model.ratio)} of float`,
    },
  ];
  if (metrics.name && metrics.float !== null && metrics.quantized !== null) {
    const share = metrics.name.startsWith("top1");
    const value = (number: number) => (share ? percent(number) : digits(number));
    const points = (number: number) => `${number < 0 ? "−" : "+"}${(100 * Math.abs(number)).toFixed(1)}`;
    found.push({
      name: NAMES[metrics.name] ?? metrics.name,
      detail: `${metrics.samples} held-back samples`,
      before: value(metrics.float),
      after: value(metrics.quantized),
      ...(metrics.interval && { afterDetail: `95 %: ${value(metrics.interval[0])} to ${value(metrics.interval[1])}` }),
      change: share ? `${points(metrics.quantized - metrics.float)} points` : digits(metrics.quantized - metrics.float),
      ...(metrics.change_interval &&
        share && { changeDetail: `95 %: ${points(metrics.change_interval[0])} to ${points(metrics.change_interval[1])}` }),
    });
  }
  found.push({
    name: "Latency",
    detail: `batch ${latency.batch}, ${latency.threads} thread${latency.threads === 1 ? "" : "s"}, ${latency.runs} pairs of runs`,
    before: `${digits(latency.float)} ms`,
    beforeDetail: `spread ${digits(latency.float_spread)} ms`,
    after: `${digits(latency.quantized)} ms`,
    afterDetail: `spread ${digits(latency.quantized_spread)} ms`,
    change: `${digits(faster ? latency.speedup : 1 / latency.speedup)}× ${faster ? "faster" : "slower"}`,
    changeDetail: "from pairs of runs",
  });
  if (metrics.sqnr_db !== null) {
    found.push({
      name: "Output",
      detail: "signal to noise",
      before: "–",
      after: `${digits(metrics.sqnr_db)} dB`,
      change: metrics.mean_cosine === null ? "" : `cosine ${metrics.mean_cosine.toFixed(4)}`,
    });
  }
  return found;
}
